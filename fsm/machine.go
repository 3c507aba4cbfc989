package fsm

import (
	"fmt"
	"sync"
	"sync/atomic"

	"quorate/fsm/command"
)

// Machine applies the log. Apply and Restore are called by one goroutine; everything else is safe for concurrent use.
type Machine struct {
	self   command.NodeID
	bodies Bodies
	obs    Observer

	applied atomic.Uint64
	waits   waiters
	// turn lets Route begin at another member of a large group each time. It is no part of the state.
	turn atomic.Uint32

	// mu guards st, what it points to, and the progress of a snapshot. Apply holds it for one entry, the writer of a
	// snapshot for moments. No call of an Observer and no read of a body for a reader is made under it.
	mu sync.RWMutex
	st *state
}

// New returns an empty machine of the node self, which keeps message bodies in bodies and tells obs what happens. obs
// may be nil; SetObserver can give it before the first Apply.
func New(self command.NodeID, bodies Bodies, obs Observer) *Machine {
	return &Machine{self: self, bodies: bodies, obs: obs, st: newState(self, bodies)}
}

// SetObserver sets who is told what happens. It must not be called after the first Apply or Restore.
func (m *Machine) SetObserver(obs Observer) { m.obs = obs }

// Apply applies the committed entry of a log index, calls the observer, and lets Applied reach index. An entry at or
// below Applied is passed over. The entry is not kept. An error means that the state can no longer follow the log (the
// entry cannot be decoded, or a stored body cannot be read): the node must stop.
func (m *Machine) Apply(index uint64, entry []byte) error {
	m.mu.Lock()
	st := m.st
	if index <= st.applied {
		m.mu.Unlock()
		return nil
	}
	if st.err == nil {
		st.applyEntry(entry)
		st.applied = index
	}
	err := st.err
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("apply log entry %d: %w", index, err)
	}
	st.events.tell(m.obs)
	m.reached(index)
	return nil
}

func (m *Machine) reached(index uint64) {
	m.applied.Store(index)
	m.waits.reached(index)
}

// Applied is the index of the last entry whose effects and observer calls are done.
func (m *Machine) Applied() uint64 { return m.applied.Load() }

// WaitApplied calls done once Applied is at least index: at once, or on the apply goroutine.
func (m *Machine) WaitApplied(index uint64, done func()) {
	if !m.waits.add(index, done, &m.applied) {
		done()
	}
}

// Digest is a digest of every effect of every entry up to index: machines that have applied the same log have the same.
func (m *Machine) Digest() (index, digest uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.st.applied, m.st.digest
}

// Now is the machine's time: the greatest stamp of the entries so far, in milliseconds.
func (m *Machine) Now() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.st.now
}

// NextDeadline is the stamp at which a Tick has something to do; a stamp at or before Now means at once. ok is false
// when nothing waits. It may be early, never late.
func (m *Machine) NextDeadline() (stamp uint64, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.st.nextDeadline()
}

// Limits are the limits in force.
func (m *Machine) Limits() Limits {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.st.limits
}

// waiters are the calls that wait for an index to be applied.
type waiters struct {
	mu   sync.Mutex
	list []waiter // a heap by index would be more; reads wait for moments, and all for about the same index
}

type waiter struct {
	index uint64
	done  func()
}

// add notes a waiter; false when the index has been reached.
func (w *waiters) add(index uint64, done func(), applied *atomic.Uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if applied.Load() >= index {
		return false
	}
	w.list = append(w.list, waiter{index: index, done: done})
	return true
}

func (w *waiters) reached(index uint64) {
	w.mu.Lock()
	var due []waiter
	rest := w.list[:0]
	for _, e := range w.list {
		if e.index <= index {
			due = append(due, e)
		} else {
			rest = append(rest, e)
		}
	}
	clear(w.list[len(rest):])
	w.list = rest
	w.mu.Unlock()
	for _, e := range due {
		e.done()
	}
}
