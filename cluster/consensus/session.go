package consensus

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"quorate/fsm"
	"quorate/fsm/command"
)

// Pauses of the leader's duties.
const (
	establishPause = 20 * time.Millisecond
	proposePause   = 100 * time.Millisecond
	// downAgain is how long the leader waits for the machine to know of a death that it has proposed.
	downAgain = 5 * time.Second
)

// session is one leadership: everything that runs while this node leads in one term. It starts with nothing known, is
// established once an entry of its term is applied here, and never outlives the term.
type session struct {
	n        *Node
	term     uint64
	stop     chan struct{}
	stopped  sync.Once
	wg       sync.WaitGroup
	packer   *packer
	verifier *verifier
	slots    chan struct{} // one for each entry under way
	futures  chan raft.ApplyFuture
	applied  chan struct{} // the machine has moved
	due      chan struct{} // a proposal of ours has finished

	established atomic.Bool
	clock       stampClock

	mu    sync.Mutex
	peers map[command.NodeID]*peerState
}

// peerState is what this leader has heard from a node.
type peerState struct {
	contact time.Time // of the last ping that was answered
	applied uint64
	low     bool // its disk is short
	down    time.Time

	// incarnation is the newest one that this leader has seen up, seen when it first did.
	incarnation uint64
	seen        time.Time
}

// stampClock gives the stamps of one term: the base, and what the monotone clock has counted since.
type stampClock struct {
	base  uint64 // milliseconds; 0 until the session is established
	start time.Time
}

func (c *stampClock) now() uint64 { return c.base + uint64(time.Since(c.start)/time.Millisecond) }

func newSession(n *Node, term uint64) *session {
	s := &session{
		n: n, term: term, stop: make(chan struct{}),
		packer:  newPacker(n.cfg.Bounds, n.logger),
		slots:   make(chan struct{}, n.cfg.Bounds.EntriesInFlight),
		futures: make(chan raft.ApplyFuture, n.cfg.Bounds.EntriesInFlight),
		applied: make(chan struct{}, 1), due: make(chan struct{}, 1),
		peers: make(map[command.NodeID]*peerState),
	}
	s.verifier = newVerifier(n, term, s.stop)
	return s
}

// begin starts the session's goroutines.
func (s *session) begin() {
	s.goFunc(s.lead)
	s.goFunc(func() { s.verifier.run(s.reply) })
}

func (s *session) goFunc(f func()) {
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		f()
	}()
}

// end stops everything without waiting.
func (s *session) end() {
	s.stopped.Do(func() {
		close(s.stop)
		s.packer.close()
	})
}

func (s *session) ended() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// lead gets established and then does the duties until the session ends.
func (s *session) lead() {
	for !s.establish() {
		select {
		case <-s.stop:
			return
		case <-time.After(establishPause):
		}
	}
	s.goFunc(s.pack)
	s.goFunc(s.await)
	s.n.logger.Info("leadership established", "term", s.term, "stamp", s.clock.base)
	s.n.wakeSender(true)
	s.n.reads.again()
	s.duties()
}

// establish applies an entry of this term, and starts the clock: the time since the last stamp is what a majority's
// wall clocks say, never below zero.
func (s *session) establish() bool {
	if s.term != s.n.raft.CurrentTerm() {
		s.end()
		return false
	}
	err := wait(s.n.raft.Apply(command.AppendEntryHeader(nil, 0), 0), s.stop)
	s.n.noteApplyError(err)
	if err != nil {
		s.n.logger.Debug("leadership not established", "term", s.term, "err", err)
		return false
	}
	if !s.n.leads(s.term) {
		s.end()
		return false
	}
	s.established.Store(true)
	proof := make(chan verdict, 1)
	if !s.verifier.ask(question{done: func(v verdict) { proof <- v }}) {
		return false
	}
	v := <-proof // answered at the latest when the session ends
	if !v.ok {
		return false
	}
	s.clock = stampClock{base: max(s.n.cfg.Machine.Now(), lowerMedian(v.walls)), start: time.Now()}
	s.packer.start(s.n.cfg.Machine.Nodes())
	return true
}

// pack turns waiting batches into entries, as many at a time as there are slots.
func (s *session) pack() {
	for {
		select {
		case <-s.stop:
			return
		case s.slots <- struct{}{}:
		}
		entry := s.packer.entry(s.clock.now)
		for entry == nil {
			select {
			case <-s.stop:
				return
			case <-s.packer.wake:
				entry = s.packer.entry(s.clock.now)
			}
		}
		future := s.n.raft.Apply(entry, 0)
		select {
		case <-s.stop:
			return
		case s.futures <- future:
		}
	}
}

// await frees the slots. An entry that Raft did not take ends the session: what its batches' numbers promised to the
// packer is void. If this node still leads, a new session begins where the machine stands.
func (s *session) await() {
	for {
		var future raft.ApplyFuture
		select {
		case <-s.stop:
			return
		case future = <-s.futures:
		}
		err := wait(future, s.stop)
		s.n.noteApplyError(err)
		if err != nil {
			s.n.logger.Info("entry was not taken, leadership begins anew or ends", "term", s.term, "err", err)
			s.end()
			s.n.checkLeadership()
			return
		}
		<-s.slots
	}
}

// reply answers a question; reads only once an entry of this term is committed.
func (s *session) reply(q question, v verdict) {
	switch {
	case q.done != nil:
		q.done(v)
	case q.read:
		v.ok = v.ok && s.established.Load()
		s.n.replyRead(q, v)
	case v.ok:
		s.pong(q, v)
	}
}

// heard takes a ping. It is answered, and counts as contact, once this node knows that it still leads.
func (s *session) heard(from command.NodeID, p ping) {
	s.mu.Lock()
	st := s.peer(from)
	st.applied, st.low = p.committed, p.flags&flagDiskLow != 0
	s.mu.Unlock()
	s.verifier.ask(question{from: from, id: p.seq})
}

func (s *session) peer(id command.NodeID) *peerState {
	st := s.peers[id]
	if st == nil {
		st = new(peerState)
		s.peers[id] = st
	}
	return st
}

func (s *session) pong(q question, v verdict) {
	s.mu.Lock()
	s.peer(q.from).contact = time.Now()
	s.mu.Unlock()
	p := pong{seq: q.id, term: s.term, commit: v.index, flags: s.flags(q.from)}
	if q.from == s.n.self {
		s.n.contact.pong(p)
		return
	}
	s.n.send(q.from, KindPong, p.seq, p.term, p.commit, p.flags)
}

// flags tells a node whether it is a member, and whether disks are so short that nothing more may be stored: the
// leader's own, or so many that no majority could take it.
func (s *session) flags(to command.NodeID) (flags uint64) {
	servers, _ := s.n.Servers()
	voters, low, member := 0, 0, false
	s.mu.Lock()
	for _, srv := range servers {
		id := command.NodeID(srv.ID)
		member = member || id == to
		if srv.Suffrage == raft.Voter {
			voters++
			if st := s.peers[id]; st != nil && st.low {
				low++
			}
		}
	}
	self := s.peers[s.n.self]
	selfLow := self != nil && self.low
	s.mu.Unlock()
	if selfLow || voters-low < voters/2+1 {
		flags |= flagDiskLow
	}
	if !member {
		flags |= flagNotMember
	}
	return flags
}

// noteApplyError watches for hashicorp/raft #696: a leadership transfer that was cut off leaves a leader that refuses
// everything for ever. Only a new process gets out of it.
func (n *Node) noteApplyError(err error) {
	if !errors.Is(err, raft.ErrLeadershipTransferInProgress) || n.closing.Load() {
		n.wedged.Store(0)
		return
	}
	since := n.wedged.Load()
	now := int64(time.Since(n.started))
	if since == 0 {
		n.wedged.Store(max(now, 1))
		return
	}
	if time.Duration(now-since) > 3*n.cfg.Timings.Election {
		n.fatal(errors.New("raft refuses entries because of a leadership transfer that nobody asked for (hashicorp/raft #696)"))
	}
}

// duties does what only a leader does, until the session ends.
func (s *session) duties() {
	watch := time.NewTicker(s.n.cfg.Timings.Ping)
	defer watch.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	established := time.Now()
	ticking, configuring := false, false
	done := func(pending *bool) completion {
		return func(fsm.Result, error) {
			s.mu.Lock()
			*pending = false
			s.mu.Unlock()
			signal(s.due)
		}
	}
	for {
		s.mu.Lock()
		idle, unconfigured := !ticking, !configuring
		s.mu.Unlock()
		if unconfigured && s.n.cfg.Machine.Limits() != s.n.cfg.Limits {
			s.begun(&configuring, &command.Configure{Limits: s.n.cfg.Limits}, done(&configuring))
		}
		if idle {
			if left, ok := s.untilTick(); ok && left <= 0 {
				s.begun(&ticking, &command.Tick{}, done(&ticking))
			} else if ok {
				timer.Reset(left)
			}
		}
		select {
		case <-s.stop:
			return
		case <-s.applied:
		case <-s.due:
		case <-timer.C:
		case <-watch.C:
			s.watchNodes(established)
		}
	}
}

// begun proposes a duty. One that is not taken is looked at again at the next turn.
func (s *session) begun(pending *bool, c command.Command, done completion) {
	s.mu.Lock()
	*pending = true
	s.mu.Unlock()
	if err := s.n.Propose(c, done); err != nil {
		s.mu.Lock()
		*pending = false
		s.mu.Unlock()
		s.n.logger.Debug("duty not proposed", "kind", c.Kind(), "err", err)
		select {
		case <-s.stop:
		case <-time.After(proposePause):
			signal(s.due)
		}
	}
}

// untilTick returns how long it is until the machine has something to do.
func (s *session) untilTick() (left time.Duration, ok bool) {
	deadline, ok := s.n.cfg.Machine.NextDeadline()
	if !ok {
		return 0, false
	}
	now := s.clock.now()
	if deadline <= now {
		return 0, true
	}
	ms := min(deadline-now, uint64(time.Hour/time.Millisecond))
	return time.Duration(ms) * time.Millisecond, true
}

// watchNodes declares nodes dead that this leader has not heard of for Timings.NodeDown. A former leader may have
// answered a node until just before this leadership, so the time counts from then at the earliest.
func (s *session) watchNodes(established time.Time) {
	now := time.Now()
	for _, nd := range s.n.cfg.Machine.Nodes() {
		if !nd.Up || nd.ID == s.n.self {
			continue
		}
		s.mu.Lock()
		st := s.peer(nd.ID)
		if st.incarnation != nd.Incarnation {
			st.incarnation, st.seen = nd.Incarnation, now // it has come through the log, its ping may be on its way
		}
		since := established
		for _, t := range []time.Time{st.contact, st.seen} {
			if t.After(since) {
				since = t
			}
		}
		dead := now.Sub(since) >= s.n.cfg.Timings.NodeDown && now.Sub(st.down) >= downAgain
		if dead {
			st.down = now
		}
		s.mu.Unlock()
		if dead {
			s.declareDown(nd, now.Sub(since))
		}
	}
}

// declareDown asks for the proof of leadership once more: a deposed leader hears of nobody.
func (s *session) declareDown(nd fsm.NodeInfo, silent time.Duration) {
	s.verifier.ask(question{done: func(v verdict) {
		if !v.ok {
			return
		}
		s.n.logger.Warn("node is declared dead", "node", nd.ID, "name", nd.Name, "incarnation", nd.Incarnation, "silent", silent)
		if err := s.n.Propose(&command.NodeDown{ID: nd.ID, Incarnation: nd.Incarnation}, nil); err != nil {
			s.n.logger.LogAttrs(s.n.ctx, slog.LevelWarn, "node not declared dead", slog.Any("err", err))
		}
	}})
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
