package bodies

import (
	"sync"

	"quorate/fsm"
)

// Memory keeps bodies in memory: for tests, and for whole clusters in a testing/synctest bubble. All methods are safe
// for concurrent use.
type Memory struct {
	mu      sync.Mutex
	next    fsm.BodyRef
	live    map[fsm.BodyRef][]byte
	pins    pins
	zombies map[fsm.BodyRef]pinned // freed, but still protected
}

// pinned is a freed body that the pins up to newest protect.
type pinned struct {
	body   []byte
	newest uint64
}

var _ fsm.Bodies = (*Memory)(nil)

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{live: make(map[fsm.BodyRef][]byte), zombies: make(map[fsm.BodyRef]pinned)}
}

// Put implements fsm.Bodies.
func (m *Memory) Put(body []byte, _ bool) fsm.BodyRef {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	m.live[m.next] = append([]byte(nil), body...)
	return m.next
}

// Get implements fsm.Bodies.
func (m *Memory) Get(ref fsm.BodyRef, dst []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	body, ok := m.live[ref]
	if !ok {
		z, ok := m.zombies[ref]
		if !ok {
			return dst, fsm.ErrFreed
		}
		body = z.body
	}
	return append(dst, body...), nil
}

// Free implements fsm.Bodies.
func (m *Memory) Free(ref fsm.BodyRef) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free(ref)
}

func (m *Memory) free(ref fsm.BodyRef) {
	body, ok := m.live[ref]
	if !ok {
		return
	}
	delete(m.live, ref)
	if !m.pins.none() {
		m.zombies[ref] = pinned{body, m.pins.newest()}
	}
}

// Pin implements fsm.Bodies.
func (m *Memory) Pin() (unpin func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.pins.add()
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.pins.remove(n)
		for ref, z := range m.zombies {
			if m.pins.none() || m.pins.active[0] > z.newest {
				delete(m.zombies, ref)
			}
		}
	}
}

// Reset implements fsm.Bodies.
func (m *Memory) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ref := range m.live {
		m.free(ref)
	}
}

// Len returns how many bodies live.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.live)
}
