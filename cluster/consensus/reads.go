package consensus

import (
	"sync"
	"time"
)

// readRetry is how long a request for a read index may go unanswered before it is asked again.
const readRetry = 100 * time.Millisecond

// waiter is one call of ReadIndex.
type waiter struct {
	deadline time.Duration // on the reads' own clock
	done     func(error)
}

// reads asks the leader for read indexes: one request at a time, for all who asked before it was sent.
type reads struct {
	n     *Node
	start time.Time
	wake  chan struct{}

	mu       sync.Mutex
	closed   bool
	queued   []waiter // asked since the request under way was sent
	asked    []waiter // wait for the answer to request id
	id       uint64   // of the request under way, 0 for none
	sentAt   time.Duration
	retry    bool       // ask again now
	applying []*readSet // have their index, and wait for the machine
}

// readSet are waiters of one answer.
type readSet struct {
	mu      sync.Mutex
	waiters []waiter
}

func newReads(n *Node) *reads {
	return &reads{n: n, start: time.Now(), wake: make(chan struct{}, 1)}
}

// ReadIndex calls done(nil) once the local machine has applied everything that was committed anywhere before this call,
// or done(ErrNoLeader) when that was not to be had within Timings.ReadTimeout (ErrShuttingDown when the node closes).
// Done runs once, on the apply goroutine or another; it must not block.
func (n *Node) ReadIndex(done func(err error)) { n.reads.add(done) }

func (r *reads) now() time.Duration { return time.Since(r.start) }

func (r *reads) add(done func(error)) {
	w := waiter{deadline: r.now() + r.n.cfg.Timings.ReadTimeout, done: done}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		done(ErrShuttingDown)
		return
	}
	r.queued = append(r.queued, w)
	start := len(r.queued) == 1 && r.id == 0
	r.mu.Unlock()
	if start {
		r.signal()
	}
}

func (r *reads) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// again makes a request that is under way go to the present leader.
func (r *reads) again() {
	r.mu.Lock()
	r.retry = true
	r.mu.Unlock()
	r.signal()
}

// answer takes a read index, or the news that the asked one does not lead.
func (r *reads) answer(a readAnswer) {
	r.mu.Lock()
	if a.id != r.id || r.id == 0 {
		r.mu.Unlock()
		return
	}
	if a.ok == 0 {
		r.mu.Unlock() // the retry asks again, or a new leader wakes us
		return
	}
	set := &readSet{waiters: r.asked}
	r.asked, r.id = nil, 0
	r.applying = append(r.applying, set)
	more := len(r.queued) > 0
	r.mu.Unlock()
	r.n.cfg.Machine.WaitApplied(a.index, func() { set.finish(nil) })
	if more {
		r.signal()
	}
}

// finish answers whoever of the set still waits.
func (s *readSet) finish(err error) {
	s.mu.Lock()
	waiters := s.waiters
	s.waiters = nil
	s.mu.Unlock()
	for _, w := range waiters {
		w.done(err)
	}
}

// expire takes out those whose time is over.
func (s *readSet) expire(now time.Duration) (late []waiter, empty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	late, s.waiters = splitLate(s.waiters, now)
	return late, len(s.waiters) == 0
}

// splitLate splits off the late ones; deadlines rise.
func splitLate(waiters []waiter, now time.Duration) (late, rest []waiter) {
	n := 0
	for n < len(waiters) && waiters[n].deadline <= now {
		n++
	}
	return waiters[:n:n], waiters[n:]
}

// run asks, asks again, and gives up.
func (r *reads) run() {
	tick := time.NewTicker(readRetry / 2)
	defer tick.Stop()
	for {
		select {
		case <-r.n.stop:
			return
		case <-r.wake:
		case <-tick.C:
			for _, w := range r.expire() {
				w.done(ErrNoLeader)
			}
		}
		if id, ok := r.next(); ok {
			r.send(id)
		}
	}
}

// next decides whether to send a request now. One that is sent again has a new id and serves later waiters too.
func (r *reads) next() (id uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	again := r.id != 0 && (r.retry || r.now()-r.sentAt >= readRetry)
	r.retry = false
	if r.id != 0 && !again || r.id == 0 && len(r.queued) == 0 {
		return 0, false
	}
	r.asked = append(r.asked, r.queued...)
	r.queued = nil
	r.id = r.n.ids.Add(1) // never used before, so that no old answer fits
	r.sentAt = r.now()
	return r.id, true
}

func (r *reads) send(id uint64) {
	leader, known := r.n.Leader()
	switch {
	case !known:
	case leader != r.n.self:
		r.n.send(leader, KindReadIndex, id)
	default:
		if s := r.n.session.Load(); s != nil {
			s.verifier.ask(question{read: true, from: r.n.self, id: id})
		}
	}
}

func (r *reads) expire() (late []waiter) {
	now := r.now()
	r.mu.Lock()
	late, r.asked = splitLate(r.asked, now)
	if len(r.asked) == 0 {
		var more []waiter
		more, r.queued = splitLate(r.queued, now)
		late = append(late, more...)
		r.id = 0
	}
	sets := r.applying
	r.applying = nil
	r.mu.Unlock()
	var left []*readSet
	for _, s := range sets {
		l, empty := s.expire(now)
		late = append(late, l...)
		if !empty {
			left = append(left, s)
		}
	}
	r.mu.Lock()
	r.applying = append(left, r.applying...)
	r.mu.Unlock()
	return late
}

// close answers everybody.
func (r *reads) close() {
	r.mu.Lock()
	r.closed = true
	late := append(r.asked, r.queued...)
	sets := r.applying
	r.asked, r.queued, r.applying, r.id = nil, nil, nil, 0
	r.mu.Unlock()
	for _, w := range late {
		w.done(ErrShuttingDown)
	}
	for _, s := range sets {
		s.finish(ErrShuttingDown)
	}
}

// replyRead answers a request for a read index, wherever it came from.
func (n *Node) replyRead(q question, v verdict) {
	a := readAnswer{id: q.id, index: v.index}
	if v.ok {
		a.ok = 1
	}
	if q.from == n.self {
		n.reads.answer(a)
		return
	}
	n.send(q.from, KindReadIndexAnswer, a.id, a.ok, a.index)
}
