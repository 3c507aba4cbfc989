package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/consensus/storage"
	"quorate/fsm/command"
)

// Errors of Propose, ReadIndex and their callbacks.
var (
	// ErrOverloaded: too many bytes are proposed and not yet applied. Nothing was proposed.
	ErrOverloaded = errors.New("too many proposals wait")
	// ErrTooLarge: the command exceeds Bounds.CommandBytes. Nothing was proposed.
	ErrTooLarge = errors.New("command is too large")
	// ErrDiskFull: disk space is short here, at the leader or on a majority, and the command would need more. Nothing was
	// proposed. It passes by itself when there is space again.
	ErrDiskFull = errors.New("disk space is short")
	// ErrShuttingDown: the node takes no more. Nothing was proposed.
	ErrShuttingDown = errors.New("node is shutting down")
	// ErrUnknown: whether the command was or will be applied is not known. It must not be acknowledged.
	ErrUnknown = errors.New("outcome of the proposal is unknown")
	// ErrNoLeader: no leader answered in time.
	ErrNoLeader = errors.New("no leader")
	// ErrRemoved: this server is no longer part of the cluster.
	ErrRemoved = errors.New("server was removed from the cluster")
)

// Node is one server's part in the consensus. All methods are safe for concurrent use and, unless they say otherwise,
// do not block.
type Node struct {
	cfg    Config
	self   command.NodeID
	logger *slog.Logger
	raft   *raft.Raft
	intake *guardedTransport

	window  *window
	reads   *reads
	contact *contact
	session atomic.Pointer[session] // while this node leads
	leader  atomic.Pointer[command.NodeID]

	incarnation atomic.Uint64
	ended       atomic.Uint64 // the last incarnation that was found ended
	registered  atomic.Bool   // NodeUp of the incarnation is applied
	ids         atomic.Uint64 // of requests; see Start
	diskFull    atomic.Bool
	broken      atomic.Bool // Fatal was called
	closing     atomic.Bool
	removed     atomic.Bool
	wedged      atomic.Int64 // since when Raft refuses for a transfer, time since started; 0 not
	member      bool         // was seen in the configuration; runContact's own
	started     time.Time

	wake    chan struct{} // for the sender
	again   atomic.Bool   // the sender is to send the whole window
	refused atomic.Bool   // the sender is to pause first
	recheck chan struct{} // for the monitor

	ctx    context.Context // ends with the node
	cancel context.CancelFunc
	stop   chan struct{}
	wg     sync.WaitGroup
	once   sync.Once
	err    error // of the end
}

// Start runs a server on its storage, which it owns from then on, also when Start fails. The machine must be fresh, and
// its observer in place. Start returns when the newest snapshot is restored; the log after it is applied as soon as a
// leader says how far it is committed (Ready).
//
// The error is a *storage.RefusedError when snapshots and log do not make a whole.
func Start(cfg Config) (*Node, error) {
	if err := cfg.fill(); err != nil {
		if cfg.Storage != nil {
			err = errors.Join(err, cfg.Storage.Close())
		}
		return nil, err
	}
	id := cfg.Storage.Identity()
	n := &Node{
		cfg: cfg, self: id.ServerID, logger: cfg.Logger,
		window: newWindow(cfg.Bounds, id.Incarnation), started: time.Now(),
		wake: make(chan struct{}, 1), recheck: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	// No request of an earlier process may be answered to this one: that answer knows nothing of what came since.
	n.ids.Store(id.Incarnation << 40)
	n.reads = newReads(n)
	n.contact = &contact{n: n, last: cfg.Clock.Boot()}
	none := command.NodeID("")
	n.leader.Store(&none)
	n.openIncarnation(id.Incarnation)
	if err := n.startRaft(); err != nil {
		n.cancel()
		return nil, errors.Join(err, cfg.Storage.Close())
	}
	cfg.Observer.node.Store(n)
	for _, f := range []func(){n.runSender, n.reads.run, n.runContact, n.runSnapshots, n.runMonitor, n.runLeaderWatch} {
		n.wg.Go(f)
	}
	n.wg.Go(func() { n.intake.run(n.stop) })
	return n, nil
}

// startRaft makes the Raft server. NewRaft panics when the log does not go on where the snapshot ends.
func (n *Node) startRaft() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &storage.RefusedError{Dir: n.cfg.Storage.Dir(), Seen: "snapshots and log do not make a whole", Err: fmt.Errorf("%v", r)}
		}
	}()
	if _, ok := n.cfg.Transport.(raft.WithPreVote); !ok {
		return errors.New("raft transport cannot carry pre-votes")
	}
	st := n.cfg.Storage
	n.intake = newGuardedTransport(n.cfg.Transport, st)
	cache, err := raft.NewLogCache(n.cfg.Bounds.LogCacheEntries, st.Logs)
	if err != nil {
		return fmt.Errorf("make log cache: %w", err)
	}
	n.raft, err = raft.NewRaft(raftConfig(&n.cfg, n.self), &applier{n}, cache, st.Stable, st.Snapshots, n.intake)
	if err != nil {
		return &storage.RefusedError{Dir: st.Dir(), Seen: "raft cannot start from it", Err: err}
	}
	return nil
}

// Leader returns the node that leads as far as this one knows.
func (n *Node) Leader() (id command.NodeID, ok bool) {
	id = *n.leader.Load()
	return id, id != ""
}

// IsLeader reports whether this node leads and is established: what it serves is right as of its last proof.
func (n *Node) IsLeader() bool {
	s := n.session.Load()
	return s != nil && s.established.Load() && n.leads(s.term)
}

// leads reports whether Raft says that this node leads in a term. It is no proof against a later leader.
func (n *Node) leads(term uint64) bool {
	return n.raft.State() == raft.Leader && n.raft.CurrentTerm() == term
}

func (n *Node) raftStopped() bool { return n.raft.State() == raft.Shutdown }

// PeerUp says that the connection to a node was made anew: what was queued for it before is lost.
func (n *Node) PeerUp(id command.NodeID) {
	if leader, ok := n.Leader(); ok && leader == id {
		n.wakeSender(true)
		n.reads.again()
	}
}

// runLeaderWatch follows Raft's idea of who leads.
func (n *Node) runLeaderWatch() {
	events := make(chan raft.Observation, 16)
	observer := raft.NewObserver(events, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	n.raft.RegisterObserver(observer)
	defer n.raft.DeregisterObserver(observer)
	poll := time.NewTicker(n.cfg.Timings.Ping) // an event may have been dropped
	defer poll.Stop()
	for {
		n.noteLeader()
		select {
		case <-n.stop:
			return
		case e := <-events:
			if e.Data.(raft.LeaderObservation).LeaderID != "" {
				// Also when it is the same as before: it may lead in a new term, and have lost what was under way.
				n.wakeSender(true)
				n.reads.again()
			}
		case <-poll.C:
		}
	}
}

func (n *Node) noteLeader() {
	_, id := n.raft.LeaderWithID()
	now := command.NodeID(id)
	if *n.leader.Swap(&now) == now {
		return
	}
	n.logger.Info("leader changed", "leader", now, "term", n.raft.CurrentTerm())
	if now != "" {
		n.wakeSender(true)
		n.reads.again()
	}
	if n.cfg.LeaderChanged != nil {
		n.cfg.LeaderChanged(now)
	}
}

// checkLeadership makes the monitor look.
func (n *Node) checkLeadership() { signal(n.recheck) }

// runMonitor keeps exactly one session while this node leads, and none otherwise. It goes by the term: a leadership that
// was lost and won again at once is another term, however few signals came of it.
func (n *Node) runMonitor() {
	for {
		select {
		case <-n.stop:
			n.endSession()
			return
		case <-n.raft.LeaderCh(): // always drained
		case <-n.recheck:
		}
		term, leads := n.raft.CurrentTerm(), n.raft.State() == raft.Leader
		if s := n.session.Load(); s != nil && (!leads || s.term != term || s.ended()) {
			n.endSession()
		}
		if leads && n.session.Load() == nil && n.leads(term) {
			s := newSession(n, term)
			n.session.Store(s)
			s.begin()
			n.noteLeader()
			n.wakeSender(true)
		}
	}
}

func (n *Node) endSession() {
	if s := n.session.Swap(nil); s != nil {
		s.end()
		s.wg.Wait()
	}
}

// fatal reports, once, that this node must not go on.
func (n *Node) fatal(err error) {
	if n.broken.CompareAndSwap(false, true) {
		n.logger.Error("consensus has failed, the process must end", "err", err)
		n.cfg.Fatal(err)
	}
}
