package session

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// stored is a message as the replicated machine keeps it for the Session of the model.
type stored struct {
	seq              uint64
	qos              byte
	done             bool // committed
	marked, received bool // committed
}

// model plays the client and the log around an Outbound, over several connections.
type model struct {
	t        *rapid.T
	o        *Outbound[uint64]
	limits   Limits
	log      []*stored
	cursor   uint64
	newest   uint64 // newest sequence ever sent
	taken    map[uint16]uint64
	open     map[uint16]*stored // PUBLISH or PUBREL sent, not answered to the end
	recs     []uint16           // PUBREL sent
	progress *Progress
	marks    []uint64
	lastSent [3]uint64
	deliver  map[uint64]int // times a QoS 2 message was new to the client
	known    map[uint16]bool
}

func newModel(t *rapid.T) *model {
	m := &model{t: t, deliver: map[uint64]int{}, known: map[uint16]bool{}}
	m.connect()
	return m
}

// connect begins a connection from the committed state.
func (m *model) connect() {
	m.limits = Limits{
		ReceiveMaximum: rapid.IntRange(1, 8).Draw(m.t, "receive maximum"), Cursor: m.cursor, ResendBound: m.newest,
		LocalMessageMax: 5, LocalBytesMax: 100,
	}
	m.o = NewOutbound[uint64](m.limits)
	m.taken, m.open = map[uint16]uint64{}, map[uint16]*stored{}
	m.progress, m.marks, m.lastSent = nil, nil, [3]uint64{}
}

func (m *model) publish(t *rapid.T) {
	seq := uint64(1)
	if n := len(m.log); n > 0 {
		// Gaps of 65,535 make identifiers collide.
		seq = m.log[n-1].seq + rapid.SampledFrom([]uint64{1, 2, 65535, 65534}).Draw(t, "gap")
	}
	m.log = append(m.log, &stored{seq: seq, qos: byte(rapid.IntRange(0, 2).Draw(t, "qos"))})
}

func (m *model) pull(t *rapid.T) {
	room, after := m.o.Room(), m.o.Scanned()
	for _, s := range m.log {
		if room == 0 {
			return
		}
		if s.seq <= after || s.done {
			continue
		}
		if !s.marked && rapid.IntRange(0, 9).Draw(t, "skip") == 0 {
			m.o.Skip(s.seq, false)
		} else {
			m.o.Push(Message[uint64]{Seq: s.seq, QoS: s.qos, Marked: s.marked, Received: s.received, Value: s.seq})
		}
		m.o.SetScanned(s.seq)
		room--
	}
}

func (m *model) send(t *rapid.T) {
	s, ok := m.o.Next()
	if !ok {
		return
	}
	if s.Pubrel {
		e := m.open[s.ID]
		if e == nil { // resumed
			e = m.bySeq(s.Msg.Seq)
			m.taken[s.ID] = e.seq
			m.open[s.ID] = e
		}
		if !e.received {
			t.Fatalf("PUBREL of %d before its PUBREC is committed", e.seq)
		}
		m.recs = append(m.recs, s.ID)
		return
	}
	seq := s.Msg.Seq
	if s.ID == 0 {
		return
	}
	if other, taken := m.taken[s.ID]; taken {
		t.Fatalf("identifier %d of sequence %d is still that of %d", s.ID, seq, other)
	}
	if s.ID != PacketID(seq) {
		t.Fatalf("sequence %d has identifier %d", seq, s.ID)
	}
	e := m.bySeq(seq)
	if s.Msg.QoS == 2 && !e.marked {
		t.Fatalf("QoS 2 message %d is sent before its send mark is committed", seq)
	}
	if seq <= m.lastSent[e.qos] {
		t.Fatalf("sequence %d after %d", seq, m.lastSent[e.qos])
	}
	if s.Dup != (seq <= m.limits.ResendBound) {
		t.Fatalf("sequence %d: DUP is %t", seq, s.Dup)
	}
	m.lastSent[e.qos], m.newest = seq, max(m.newest, seq)
	m.taken[s.ID], m.open[s.ID] = seq, e
	if len(m.open) > m.limits.ReceiveMaximum {
		t.Fatalf("%d unfinished with a receive maximum of %d", len(m.open), m.limits.ReceiveMaximum)
	}
	if e.qos == 2 && !m.known[s.ID] {
		m.known[s.ID] = true
		if m.deliver[seq]++; m.deliver[seq] > 1 {
			t.Fatalf("QoS 2 message %d is delivered twice", seq)
		}
	}
}

func (m *model) acknowledge(t *rapid.T) {
	ids := make([]uint16, 0, len(m.open))
	for id := range m.open {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return
	}
	slices.Sort(ids)
	id := rapid.SampledFrom(ids).Draw(t, "id")
	switch e := m.open[id]; {
	case e.qos == 1:
		m.expect(m.o.Puback(id), Finished)
		delete(m.open, id)
	case slices.Contains(m.recs, id):
		m.expect(m.o.Pubcomp(id), Finished)
		m.recs = slices.DeleteFunc(m.recs, func(x uint16) bool { return x == id })
		delete(m.open, id)
		delete(m.known, id)
	case rapid.IntRange(0, 5).Draw(t, "failed") == 0:
		if m.o.Pubrec(id, true) == Finished {
			m.deliver[e.seq]-- // the client did not take it
			delete(m.open, id)
			delete(m.known, id)
		}
	default:
		m.o.Pubrec(id, false)
	}
}

func (m *model) expect(got, want Outcome) {
	if got != want {
		m.t.Fatalf("outcome %d, want %d", got, want)
	}
}

func (m *model) report(*rapid.T) {
	if m.progress != nil {
		return
	}
	if p, ok := m.o.Progress(); ok {
		m.progress = &p
	}
}

// apply is the log applying the command.
func (m *model) apply(t *rapid.T, p *Progress) {
	if p.Cursor < m.cursor {
		t.Fatalf("cursor went from %d back to %d", m.cursor, p.Cursor)
	}
	m.cursor = p.Cursor
	for _, s := range m.log {
		if s.seq <= p.Cursor && !s.marked {
			s.done = true
		}
	}
	for _, seq := range p.Done {
		m.bySeq(seq).done = true
	}
	for _, seq := range p.Received {
		m.bySeq(seq).received = true
	}
	for id, e := range m.open {
		if e.done {
			t.Fatalf("message %d is reported as finished while identifier %d is unacknowledged", e.seq, id)
		}
	}
}

func (m *model) commit(t *rapid.T) {
	if m.progress == nil {
		return
	}
	m.apply(t, m.progress)
	m.progress = nil
	m.o.Committed()
	for id, seq := range m.taken {
		if m.bySeq(seq).done {
			delete(m.taken, id)
		}
	}
}

func (m *model) mark(*rapid.T) {
	if m.marks == nil {
		m.marks = m.o.Marks()
	}
}

func (m *model) commitMark(t *rapid.T) {
	if m.marks == nil {
		return
	}
	lost := rapid.IntRange(0, 9).Draw(t, "lost") == 0
	for i, seq := range m.marks {
		// A lost one was trimmed: no connection will ever get it.
		m.bySeq(seq).marked, m.bySeq(seq).done = !lost || i > 0, lost && i == 0
	}
	m.o.Marked(func(i int) bool { return !lost || i > 0 })
	m.marks = nil
}

// crash breaks the connection; what is on its way to the log is applied or not.
func (m *model) crash(t *rapid.T) {
	if m.progress != nil && rapid.Bool().Draw(t, "progress applied") {
		m.apply(t, m.progress)
	}
	if m.marks != nil && rapid.Bool().Draw(t, "mark applied") {
		for _, seq := range m.marks {
			m.bySeq(seq).marked = true
		}
	}
	m.recs = nil
	m.connect()
}

func (m *model) bySeq(seq uint64) *stored {
	i, ok := slices.BinarySearchFunc(m.log, seq, func(s *stored, seq uint64) int {
		switch {
		case s.seq < seq:
			return -1
		case s.seq > seq:
			return 1
		}
		return 0
	})
	if !ok {
		m.t.Fatalf("no message %d", seq)
	}
	return m.log[i]
}

// drain lets everything finish and checks that nothing is left.
func (m *model) drain(t *rapid.T) {
	for range 20*len(m.log) + 20 {
		m.pull(t)
		for range 4 {
			m.send(t)
			m.acknowledge(t)
		}
		m.mark(t)
		m.commitMark(t)
		m.report(t)
		m.commit(t)
	}
	for _, s := range m.log {
		if !s.done {
			t.Fatalf("message %d (QoS %d, marked %t) is not finished in the end", s.seq, s.qos, s.marked)
		}
	}
	if n := m.o.Unfinished(); n != 0 {
		t.Fatalf("%d exchanges are unfinished in the end", n)
	}
}

func TestOutboundKeepsItsPromisesOverReconnects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		t.Repeat(map[string]func(*rapid.T){
			"publish": m.publish, "pull": m.pull, "send": m.send, "acknowledge": m.acknowledge, "report": m.report,
			"commit": m.commit, "mark": m.mark, "commit mark": m.commitMark, "crash": m.crash,
		})
		m.drain(t)
	})
}
