package fsm

import (
	"errors"
)

// ErrSnapshotBusy says that another snapshot is being written.
var ErrSnapshotBusy = errors.New("another snapshot is being written")

// Snapshot is the state as it was when Machine.Snapshot was called, while the machine goes on. It is written once.
//
// Every object (node, session, filter, group, message chunk, ...) carries the generation of the last snapshot it is done
// with. The writer of the snapshot walks the tables in short holds of the machine's lock and encodes what it finds of
// older generations; Apply, before it changes such an object or removes it, encodes it itself into captured. Objects
// made after the snapshot began have its generation from the start, so that neither sees them.
type Snapshot struct {
	m     *Machine
	st    *state
	index uint64
	// header is the record of everything that is not in a table.
	header []byte
	// cells is how far the tables reached when the snapshot began.
	cells [tables]uint32
	// captured are records that Apply has taken. Guarded by m.mu.
	captured []record
	unpin    func()
	written  bool
	// records bounds what one hold of the lock takes; between is called between two. Tests change them.
	records int
	between func()
}

// The tables of the state, in the order in which they are written.
const (
	tableNodes = iota
	tableLives
	tableFilters
	tableGroups
	tableSessions
	tableRetained
	tableDelayed
	tableChunks
	tables
)

// record is a piece of a snapshot that has been taken from the state but not written.
type record struct {
	kind byte
	body []byte
	// list follows the body in records of its own, for a filter or a group.
	list  list
	index uint32
	// chunk is a copy of a message chunk, still to be encoded; its bodies follow it.
	chunk *chunk
}

// Snapshot begins a snapshot of the present state, in microseconds. It must be released. There is one at a time.
func (m *Machine) Snapshot() (*Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.st
	if st.snap != nil {
		return nil, ErrSnapshotBusy
	}
	st.gen++
	s := &Snapshot{
		m: m, st: st, index: st.applied, header: st.appendHeader(nil), unpin: st.bodies.Pin(),
		records: sweepRecords, between: func() {},
	}
	s.cells = [tables]uint32{
		tableNodes: uint32(len(st.nodes.cells)), tableLives: uint32(len(st.lives.cells)),
		tableFilters: uint32(len(st.filters.cells)), tableGroups: uint32(len(st.groups.cells)),
		tableSessions: uint32(len(st.sessions.cells)), tableRetained: uint32(len(st.retained.cells)),
		tableDelayed: uint32(len(st.delayed.cells)), tableChunks: uint32(len(st.slab.chunks)),
	}
	st.snap = s
	return s, nil
}

// Index is the log index the snapshot stands for.
func (s *Snapshot) Index() uint64 { return s.index }

// Release gives the snapshot up, written or not. It may be called twice.
func (s *Snapshot) Release() {
	s.m.mu.Lock()
	if s.st.snap == s {
		s.st.snap = nil
	}
	s.captured = nil
	unpin := s.unpin
	s.unpin = nil
	s.m.mu.Unlock()
	if unpin != nil {
		unpin()
	}
}

// capture adds a record taken by Apply.
func (s *Snapshot) capture(r record) { s.captured = append(s.captured, r) }

// The touch functions are called before an object changes in what a snapshot holds of it.

func (st *state) touchNode(n *node) {
	if st.snap != nil && n.gen != st.gen {
		n.gen = st.gen
		st.snap.capture(st.nodeRecord(n))
	}
}

func (st *state) touchLife(l *life) {
	if st.snap != nil && l.gen != st.gen {
		l.gen = st.gen
		st.snap.capture(st.lifeRecord(l))
	}
}

func (st *state) touchFilter(f *filter) {
	if st.snap != nil && f.gen != st.gen {
		f.gen = st.gen
		st.snap.capture(st.filterRecord(f))
	}
}

func (st *state) touchGroup(g *group) {
	if st.snap != nil && g.gen != st.gen {
		g.gen = st.gen
		st.snap.capture(st.groupRecord(g))
	}
}

func (st *state) touchSession(s *session) {
	if st.snap != nil && s.gen != st.gen {
		s.gen = st.gen
		st.snap.capture(st.sessionRecord(s))
	}
}

func (st *state) touchRetained(e *retained) {
	if st.snap != nil && e.gen != st.gen {
		e.gen = st.gen
		st.snap.capture(st.retainedRecord(e))
	}
}

func (st *state) touchDelayed(e *delayed) {
	if st.snap != nil && e.gen != st.gen {
		e.gen = st.gen
		st.snap.capture(st.delayedRecord(e))
	}
}

func (st *state) touchChunk(n uint32) {
	if c := st.slab.chunks[n]; st.snap != nil && c.gen != st.gen {
		c.gen = st.gen
		st.snap.capture(chunkRecord(n, c))
	}
}

// take gives the record of cell i of a table if it has one and it is not done.
func (st *state) take(table int, i uint32) (r record, ok bool) {
	switch table {
	case tableNodes:
		if n := st.nodes.at(i); n != nil && n.gen != st.gen {
			n.gen = st.gen
			return st.nodeRecord(n), true
		}
	case tableLives:
		if l := st.lives.at(i); l != nil && l.gen != st.gen {
			l.gen = st.gen
			return st.lifeRecord(l), true
		}
	case tableFilters:
		if f := st.filters.at(i); f != nil && f.gen != st.gen {
			f.gen = st.gen
			return st.filterRecord(f), true
		}
	case tableGroups:
		if g := st.groups.at(i); g != nil && g.gen != st.gen {
			g.gen = st.gen
			return st.groupRecord(g), true
		}
	case tableSessions:
		if s := st.sessions.at(i); s != nil && s.gen != st.gen {
			s.gen = st.gen
			return st.sessionRecord(s), true
		}
	case tableRetained:
		if e := st.retained.at(i); e != nil && e.gen != st.gen {
			e.gen = st.gen
			return st.retainedRecord(e), true
		}
	case tableDelayed:
		if e := st.delayed.at(i); e != nil && e.gen != st.gen {
			e.gen = st.gen
			return st.delayedRecord(e), true
		}
	case tableChunks:
		if int(i) < len(st.slab.chunks) && st.slab.chunks[i] != nil && st.slab.chunks[i].gen != st.gen {
			st.slab.chunks[i].gen = st.gen
			return chunkRecord(i, st.slab.chunks[i]), true
		}
	}
	return record{}, false
}
