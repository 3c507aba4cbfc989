package consensus

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/protocol/packet"
)

// fakeMachine is the least machine that keeps the rules of batches. It records what it applied.
type fakeMachine struct {
	self command.NodeID
	obs  *Observer

	mu      sync.Mutex
	st      fakeState
	applied uint64
	waits   []fakeWait
	stamps  []uint64 // of entries with batches, in order, not in snapshots
	hold    chan struct{}
	tickGap uint64
	quick   bool // for benchmarks: publishes are decoded and forgotten
	scratch command.Publish
}

type fakeState struct {
	Applied  uint64
	Now      uint64
	Nodes    map[command.NodeID]*fsm.NodeInfo
	Topics   []string // of the applied publishes, in order
	Ticks    []uint64 // stamps
	Deadline uint64   // 0 none
	Limits   fsm.Limits
}

type fakeWait struct {
	index uint64
	done  func()
}

func newFakeMachine(self command.NodeID, obs *Observer) *fakeMachine {
	return &fakeMachine{self: self, obs: obs, st: fakeState{Nodes: make(map[command.NodeID]*fsm.NodeInfo), Limits: fsm.DefaultLimits()}}
}

type fakeEvent struct {
	batch    command.Batch
	results  []fsm.Result
	gap      bool
	expected uint64
}

func (m *fakeMachine) Apply(index uint64, entry []byte) error {
	e, err := command.DecodeEntry(entry)
	if err != nil {
		return err
	}
	m.mu.Lock()
	if hold := m.hold; hold != nil {
		m.mu.Unlock()
		<-hold
		m.mu.Lock()
	}
	var events []fakeEvent
	m.st.Now = max(m.st.Now, e.Stamp)
	for {
		b, ok, err := e.Next()
		if err != nil {
			m.mu.Unlock()
			return err
		}
		if !ok {
			break
		}
		m.stamps = append(m.stamps, e.Stamp)
		ev, tell, err := m.batch(b)
		if err != nil {
			m.mu.Unlock()
			return err
		}
		if tell {
			events = append(events, ev)
		}
	}
	m.st.Applied = index
	m.mu.Unlock()
	for _, ev := range events {
		if ev.gap {
			m.obs.BatchGap(ev.batch.Incarnation, ev.expected, ev.batch.Number)
		} else {
			m.obs.BatchApplied(ev.batch.Incarnation, ev.batch.Number, ev.results)
		}
	}
	m.reached(index)
	return nil
}

func (m *fakeMachine) batch(b command.Batch) (ev fakeEvent, tell bool, err error) {
	ev.batch = b
	nd := m.st.Nodes[b.Node]
	if nd == nil {
		nd = &fsm.NodeInfo{ID: b.Node}
		m.st.Nodes[b.Node] = nd
	}
	own := b.Node == m.self
	switch {
	case b.Incarnation > nd.Incarnation && b.Number == 1:
		*nd = fsm.NodeInfo{ID: b.Node, Incarnation: b.Incarnation, Up: true}
	case b.Incarnation != nd.Incarnation:
		return ev, false, nil
	case !nd.Up:
		ev.gap = true
		return ev, own, nil
	case b.Number <= nd.LastBatch:
		return ev, false, nil
	case b.Number != nd.LastBatch+1:
		ev.gap, ev.expected = true, nd.LastBatch+1
		return ev, own, nil
	}
	nd.LastBatch = b.Number
	rest := b.Commands
	for range b.Count {
		if m.quick && rest[0] == byte(command.KindPublish) {
			n, err := command.DecodePublish(rest, &m.scratch)
			if err != nil {
				return ev, false, err
			}
			rest = rest[n:]
			ev.results = append(ev.results, fsm.Result{})
			continue
		}
		c, n, err := command.Decode(rest)
		if err != nil {
			return ev, false, err
		}
		rest = rest[n:]
		ev.results = append(ev.results, m.command(c))
	}
	return ev, own, nil
}

func (m *fakeMachine) command(c command.Command) fsm.Result {
	switch c := c.(type) {
	case *command.Publish:
		m.st.Topics = append(m.st.Topics, c.Topic)
		return fsm.Result{Code: packet.Success, Seq: uint64(len(m.st.Topics))}
	case *command.NodeDown:
		if nd := m.st.Nodes[c.ID]; nd != nil && nd.Incarnation == c.Incarnation {
			nd.Up = false
		}
	case *command.Tick:
		m.st.Ticks = append(m.st.Ticks, m.st.Now)
		if m.st.Deadline <= m.st.Now {
			m.st.Deadline = 0
			if m.tickGap > 0 && len(m.st.Ticks) < 5 {
				m.st.Deadline = m.st.Now + m.tickGap
			}
		}
	case *command.Configure:
		m.st.Limits = c.Limits
	}
	return fsm.Result{}
}

func (m *fakeMachine) reached(index uint64) {
	m.mu.Lock()
	m.applied = index
	var due []fakeWait
	rest := m.waits[:0]
	for _, w := range m.waits {
		if w.index <= index {
			due = append(due, w)
		} else {
			rest = append(rest, w)
		}
	}
	m.waits = rest
	m.mu.Unlock()
	for _, w := range due {
		w.done()
	}
}

func (m *fakeMachine) Applied() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied
}

func (m *fakeMachine) WaitApplied(index uint64, done func()) {
	m.mu.Lock()
	if m.applied < index {
		m.waits = append(m.waits, fakeWait{index, done})
		m.mu.Unlock()
		return
	}
	m.mu.Unlock()
	done()
}

type fakeSnapshot struct{ data []byte }

func (s fakeSnapshot) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(s.data)
	return int64(n), err
}
func (fakeSnapshot) Release() {}

func (m *fakeMachine) Snapshot() (Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, err := json.Marshal(m.st)
	return fakeSnapshot{data}, err
}

func (m *fakeMachine) Restore(r io.Reader) error {
	var st fakeState
	if err := json.NewDecoder(r).Decode(&st); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	m.mu.Lock()
	m.st = st
	m.mu.Unlock()
	m.obs.Restored()
	m.reached(st.Applied)
	return nil
}

func (m *fakeMachine) Now() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.st.Now
}

func (m *fakeMachine) NextDeadline() (uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.st.Deadline, m.st.Deadline != 0
}

func (m *fakeMachine) Nodes() (nodes []fsm.NodeInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, nd := range m.st.Nodes {
		nodes = append(nodes, *nd)
	}
	return nodes
}

func (m *fakeMachine) Node(id command.NodeID) (fsm.NodeInfo, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if nd := m.st.Nodes[id]; nd != nil {
		return *nd, true
	}
	return fsm.NodeInfo{}, false
}

func (m *fakeMachine) Limits() fsm.Limits {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.st.Limits
}

// topics returns a copy of what was applied.
func (m *fakeMachine) topics() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.st.Topics...)
}

func (m *fakeMachine) with(f func(st *fakeState)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.st)
}

func newSilent() *slog.Logger { return slog.New(slog.DiscardHandler) }
