package consensus

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"quorate/fsm/command"
)

// pingsKept is how many unanswered pings are remembered.
const pingsKept = 64

// goneAnswers in a row make a node believe that it was removed: one alone may have crossed its addition on the way.
const goneAnswers = 4

// bookFlush is how often what pings told is written down.
const bookFlush = 10 * time.Second

// contact knows when this node last had proof that the leader leads. It counts from the sending of the ping that was
// answered, on a clock that goes on while the machine sleeps.
type contact struct {
	n *Node

	mu     sync.Mutex
	sent   [pingsKept]sentPing
	last   time.Duration // on Clock.Boot
	proven bool
	full   bool   // the leader says that nothing may be stored
	behind uint64 // the machine must have applied this much before the node is ready
	gone   int    // how many answers in a row said that this node is no member
}

type sentPing struct {
	seq uint64
	at  time.Duration
}

// ContactAge returns how long ago the ping was sent that the leader, knowing that it leads, answered last; since Start
// if none was. A node whose contact is older than Timings.ContactLimit must close its clients.
func (n *Node) ContactAge() time.Duration { return n.contact.age() }

func (c *contact) age() time.Duration {
	now := c.n.cfg.Clock.Boot()
	c.mu.Lock()
	defer c.mu.Unlock()
	return now - c.last
}

// fresh is the age up to which contact counts as present.
func (c *contact) fresh() time.Duration { return 4 * c.n.cfg.Timings.Ping }

// next makes a new ping.
func (c *contact) next() (seq uint64) {
	seq = c.n.ids.Add(1)
	now := c.n.cfg.Clock.Boot()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent[seq%pingsKept] = sentPing{seq: seq, at: now}
	return seq
}

// pong takes the leader's answer.
func (c *contact) pong(p pong) {
	now := c.n.cfg.Clock.Boot()
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.sent[p.seq%pingsKept]
	if sent.seq != p.seq {
		return
	}
	if !c.proven || now-c.last > c.fresh() {
		c.behind = p.commit // it was away, and has to catch up first
	}
	c.proven = true
	c.last = max(c.last, sent.at)
	c.full = p.flags&flagDiskLow != 0
	c.gone++
	if p.flags&flagNotMember == 0 {
		c.gone = 0
	}
}

// Ready reports whether this node should serve clients: its incarnation is open, the leader is in contact, and what was
// committed while it was away is applied.
func (n *Node) Ready() bool {
	age := n.contact.age()
	c := n.contact
	c.mu.Lock()
	ok := c.proven && age <= c.fresh()
	behind := c.behind
	c.mu.Unlock()
	return ok && n.registered.Load() && !n.closing.Load() && n.cfg.Machine.Applied() >= behind
}

// runContact pings, and looks after what needs looking after now and then.
func (n *Node) runContact() {
	tick := time.NewTicker(n.cfg.Timings.Ping)
	defer tick.Stop()
	flush := time.NewTicker(bookFlush)
	defer flush.Stop()
	for {
		n.pingAll()
		n.checkLeadership()
		n.checkMembership()
		n.checkIncarnation()
		select {
		case <-n.stop:
			return
		case <-tick.C:
		case <-flush.C:
			if err := n.cfg.Storage.Book.Flush(); err != nil {
				n.storageError(err)
			}
		}
	}
}

func (n *Node) pingAll() {
	low := n.cfg.Storage.Low()
	n.contact.mu.Lock()
	full := n.contact.full
	n.contact.mu.Unlock()
	n.diskFull.Store(low || full)
	p := ping{seq: n.contact.next(), incarnation: n.Incarnation(), committed: n.cfg.Machine.Applied()}
	if low {
		p.flags |= flagDiskLow
	}
	servers, _ := n.Servers()
	for _, srv := range servers {
		if id := command.NodeID(srv.ID); id != n.self {
			n.send(id, KindPing, p.seq, p.incarnation, p.committed, p.flags)
		}
	}
	if s := n.session.Load(); s != nil {
		s.heard(n.self, p)
	}
}

// checkMembership notices that this server was taken out: Raft has shut down by itself, or the leader of the cluster in
// which it once was says so.
func (n *Node) checkMembership() {
	servers, _ := n.Servers()
	listed := false
	for _, srv := range servers {
		listed = listed || command.NodeID(srv.ID) == n.self
	}
	n.contact.mu.Lock()
	gone := n.contact.gone >= goneAnswers
	n.contact.mu.Unlock()
	removed := n.raftStopped() || n.member && gone
	n.member = n.member || listed
	if !removed || n.closing.Load() || !n.removed.CompareAndSwap(false, true) {
		return
	}
	n.logger.Warn("this server was removed from the cluster")
	if n.cfg.Removed == nil {
		n.fatal(ErrRemoved)
		return
	}
	go n.cfg.Removed()
}

// checkIncarnation finds out that this node was declared dead when it has nothing to propose; otherwise its next batch
// does.
func (n *Node) checkIncarnation() {
	if _, empty := n.window.pending(); !empty || !n.registered.Load() {
		return
	}
	if self, ok := n.cfg.Machine.Node(n.self); ok && !self.Up && self.Incarnation == n.Incarnation() {
		n.reincarnate(self.Incarnation)
	}
}

// storageError ends the process for everything but a full disk.
func (n *Node) storageError(err error) {
	if errors.Is(err, syscall.ENOSPC) {
		n.logger.Warn("disk is full", "err", err)
		return
	}
	n.fatal(err)
}
