package check

import (
	"testing"
	"time"
)

// story writes a history by hand. Every call takes the next second.
type story struct {
	h      *History
	events []Event
	now    time.Duration
	ids    uint64
}

func newStory() *story { return &story{h: NewHistory()} }

func (s *story) add(e Event) Event {
	s.now += time.Second
	e.At = s.now
	s.events = append(s.events, e)
	return e
}

func (s *story) wait(d time.Duration) { s.now += d }

// begin adds the Invoke of a new operation.
func (s *story) begin(e Event) Event {
	s.ids++
	e.ID, e.Phase = s.ids, Invoke
	if e.Op == Connect {
		e.Conn = s.ids
	}
	return s.add(e)
}

// end adds the end of an operation.
func (s *story) end(e Event, phase Phase, change ...func(*Event)) {
	e.Phase = phase
	for _, c := range change {
		c(&e)
	}
	s.add(e)
}

func (s *story) note(e Event) {
	e.Phase = Note
	s.add(e)
}

// connect opens a connection of a persistent session.
func (s *story) connect(client, node string, present bool, change ...func(*Event)) Event {
	e := Event{Op: Connect, Client: client, Node: node, Keep: true}
	for _, c := range change {
		c(&e)
	}
	e = s.begin(e)
	s.end(e, OK, func(e *Event) { e.Present = present })
	return e
}

func (s *story) subscribe(c Event, filter string, qos byte) Event {
	e := s.begin(Event{Op: Subscribe, Client: c.Client, Node: c.Node, Conn: c.Conn, Topic: filter, QoS: qos})
	s.end(e, OK)
	return e
}

func (s *story) sent(c Event, name, value string, qos byte) Event {
	return s.begin(Event{Op: Publish, Client: c.Client, Node: c.Node, Conn: c.Conn, Topic: name, Value: value, QoS: qos})
}

func (s *story) publish(c Event, name, value string, qos byte) Event {
	e := s.sent(c, name, value, qos)
	s.end(e, OK)
	return e
}

func (s *story) deliver(c Event, p Event, change ...func(*Event)) {
	e := Event{Op: Deliver, Client: c.Client, Node: c.Node, Conn: c.Conn, Topic: p.Topic, Value: p.Value, QoS: p.QoS}
	for _, f := range change {
		f(&e)
	}
	s.note(e)
}

func (s *story) conn(op Op, c Event, reason byte) {
	s.note(Event{Op: op, Client: c.Client, Node: c.Node, Conn: c.Conn, Reason: reason})
}

func (s *story) fault(node, what string) { s.note(Event{Op: Fault, Node: node, Value: what}) }

func dup(e *Event)       { e.Dup = true }
func clean(e *Event)     { e.Clean = true }
func transient(e *Event) { e.Clean, e.Keep = true, false }

// on returns a change that puts the end of an operation on connection c.
func on(c Event) func(*Event) { return func(e *Event) { e.Conn, e.Node = c.Conn, c.Node } }

// verdict is what a test expects of one checker: a verdict, and the kind of
// its first problem.
func (s *story) expect(t *testing.T, checker string, want Verdict, kind string) {
	t.Helper()
	r := All(s.events, Default()).Find(checker)
	if r.Verdict != want {
		t.Fatalf("verdict %v, want %v:\n%v", r.Verdict, want, r)
	}
	if kind != "" && r.Counts[kind] == 0 {
		t.Fatalf("no problem of kind %q:\n%v", kind, r)
	}
}
