package check

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

func TestRegisterRefusesAStaleRead(t *testing.T) {
	s := newStory()
	c := s.connect("c", "n1", false)
	write := func(v string) { s.end(s.retainedWrite(c, v), OK) }
	read := func(v string) { s.read(c, v) }
	write("1")
	read("1")
	write("2")
	read("2")
	s.expect(t, "retained", Valid, "")
	read("1")
	s.expect(t, "retained", Invalid, "stale")
}

func TestRegisterRefusesNoMessageAfterOneWasStored(t *testing.T) {
	s := newStory()
	c := s.connect("c", "n1", false)
	s.read(c, "")
	s.end(s.retainedWrite(c, "1"), OK)
	s.read(c, "1")
	s.expect(t, "retained", Valid, "")
	s.read(c, "")
	s.expect(t, "retained", Invalid, "stale")
}

func TestRegisterLetsAnUnansweredWriteTakeEffectAtAnyTimeButOnce(t *testing.T) {
	s := newStory()
	c := s.connect("c", "n1", false)
	s.retainedWrite(c, "1")
	s.end(s.retainedWrite(c, "2"), OK)
	s.read(c, "2")
	s.read(c, "1")
	s.expect(t, "retained", Valid, "")
	s.read(c, "2")
	s.expect(t, "retained", Invalid, "stale")
}

func TestRegisterRefusesAValueThatWasRefusedOrNeverWritten(t *testing.T) {
	s := newStory()
	c := s.connect("c", "n1", false)
	s.end(s.retainedWrite(c, "1"), Fail)
	s.read(c, "1")
	s.expect(t, "retained", Invalid, "stale")
}

func TestAQoS1WriteThatWasRepeatedMayBeSeenTwice(t *testing.T) {
	s := newStory()
	c, d := s.connect("c", "n1", false), s.connect("d", "n2", false)
	p := s.retainedWrite(c, "1")
	s.read(d, "1")
	s.end(s.retainedWrite(d, "2"), OK)
	s.read(d, "2")
	p.Phase, p.Op = Note, Resend
	s.note(p)
	p.Op = Publish
	s.end(p, OK)
	s.read(d, "1")
	s.expect(t, "retained", Valid, "")

	s = newStory()
	c, d = s.connect("c", "n1", false), s.connect("d", "n2", false)
	p = s.retainedWrite(c, "1")
	s.read(d, "1")
	s.end(s.retainedWrite(d, "2"), OK)
	s.read(d, "1") // before it was repeated
	s.expect(t, "retained", Invalid, "stale")
}

func (s *story) retainedWrite(c Event, v string) Event {
	return s.begin(Event{Op: Publish, Client: c.Client, Conn: c.Conn, Topic: "r", Value: v, QoS: 1, Retain: true})
}

func (s *story) read(c Event, v string) {
	e := s.begin(Event{Op: Read, Client: c.Client, Conn: c.Conn, Topic: "r"})
	s.end(e, OK, func(e *Event) {
		e.Value = v
		if v == "" {
			e.Topic = ""
		}
	})
}

// TestZonesAgreeWithPorcupine compares the zones with a search through all
// orders, on random small histories of which about half are linearizable.
func TestZonesAgreeWithPorcupine(t *testing.T) {
	rounds := 20000
	if testing.Short() {
		rounds = 2000
	}
	rng := rand.New(rand.NewPCG(1, 2))
	good := 0
	for i := range rounds {
		ops := randomRegister(rng)
		why := linearizable(ops)
		if want := porcupineAgrees(ops); (why == "") != want {
			t.Fatalf("history %d: porcupine says %v, zones say %q:\n%+v", i, want, why, ops)
		}
		if why == "" {
			good++
		}
	}
	if good < rounds/10 || good > rounds*9/10 {
		t.Fatalf("only %d of %d histories were linearizable: the test does not bite", good, rounds)
	}
}

// randomRegister makes up to 9 operations at different times, whose reads
// return the start value or any value that is written.
func randomRegister(rng *rand.Rand) []registerOp {
	n := 2 + rng.IntN(8)
	times := rng.Perm(2 * n)
	var ops []registerOp
	values := []string{""}
	for i := range n {
		from, to := times[2*i], times[2*i+1]
		o := registerOp{from: time.Duration(min(from, to)), to: time.Duration(max(from, to))}
		if o.write = rng.IntN(2) == 0; o.write {
			o.value = fmt.Sprint(i)
			values = append(values, o.value)
			if rng.IntN(5) == 0 {
				o.to = never
			}
		}
		ops = append(ops, o)
	}
	for i := range ops {
		if !ops[i].write {
			ops[i].value = values[rng.IntN(len(values))]
		}
	}
	return ops
}

func porcupineAgrees(ops []registerOp) bool {
	model := porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, in, _ any) (bool, any) {
			o := in.(registerOp)
			if o.write {
				return true, o.value
			}
			return state == o.value, state
		},
	}
	var history []porcupine.Operation
	for _, o := range ops {
		history = append(history, porcupine.Operation{Input: o, Call: int64(o.from), Return: int64(o.to)})
	}
	return porcupine.CheckOperations(model, history)
}

// BenchmarkZones is the reason why zones decide and not a search.
func BenchmarkZones(b *testing.B) {
	ops := longRegister(30000)
	b.ReportAllocs()
	for b.Loop() {
		if why := linearizable(ops); why != "" {
			b.Fatal(why)
		}
	}
}

// longRegister is a linearizable history of one hot topic and 100 clients.
func longRegister(n int) []registerOp {
	rng := rand.New(rand.NewPCG(3, 4))
	var ops []registerOp
	value := ""
	for i := range n {
		at := time.Duration(i * 10)
		o := registerOp{from: at - time.Duration(rng.IntN(500)), to: at + time.Duration(rng.IntN(500))}
		if o.write = rng.IntN(2) == 0; o.write {
			value = fmt.Sprint(i)
		}
		o.value = value
		ops = append(ops, o)
	}
	return ops
}
