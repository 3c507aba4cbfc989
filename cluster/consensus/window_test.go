package consensus

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"quorate/fsm"
	"quorate/fsm/command"
)

func smallBounds() Bounds {
	b := DefaultBounds()
	b.BatchBytes, b.BatchCommands, b.CommandBytes, b.WindowBytes = 200, 4, 1000, 2000
	return b
}

func sized(n int) *command.Publish {
	p := publish("t")
	p.Payload = make([]byte, n)
	return p
}

// counts returns the number of commands of each batch that a window hands out.
func counts(w *window) (list []int) {
	for {
		out, _ := w.take(nil)
		if len(out) == 0 {
			return list
		}
		for _, o := range out {
			list = append(list, o.count)
			w.applied(w.incarnation, o.number)
		}
	}
}

func TestBatchesEndAtTheirBoundsAndALargeCommandGoesAlone(t *testing.T) {
	w := newWindow(smallBounds(), 1)
	add := func(n int) {
		t.Helper()
		if _, err := w.add(sized(n), nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 6 {
		add(10)
	}
	add(500) // does not fit: alone
	add(10)
	add(150)
	add(150)
	if got := counts(w); !slices.Equal(got, []int{4, 2, 1, 2, 1}) {
		t.Errorf("batches of %v", got)
	}
	if bytes, empty := w.pending(); bytes != 0 || !empty {
		t.Errorf("%d bytes left", bytes)
	}
}

func TestAWindowIsBounded(t *testing.T) {
	w := newWindow(smallBounds(), 1)
	if _, err := w.add(sized(1001), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	for {
		if _, err := w.add(sized(300), nil); err != nil {
			if !errors.Is(err, ErrOverloaded) {
				t.Error(err)
			}
			break
		}
	}
	if bytes, _ := w.pending(); bytes < 2000 || bytes > 2500 {
		t.Errorf("%d bytes in a window of 2000", bytes)
	}
	fail(w.close(), ErrUnknown)
	if _, err := w.add(sized(1), nil); !errors.Is(err, ErrShuttingDown) {
		t.Errorf("got %v", err)
	}
}

func TestOnlySoManyBatchesAreUnderWayAndARewindSendsThemAgain(t *testing.T) {
	w := newWindow(smallBounds(), 1)
	numbers := func() (list []uint64) {
		out, _ := w.take(nil)
		for _, o := range out {
			list = append(list, o.number)
		}
		return list
	}
	for range 20 {
		_, _ = w.add(sized(10), nil)
	}
	if got := numbers(); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("sent %v", got)
	}
	w.applied(1, 1)
	w.rewind()
	if got := numbers(); !slices.Equal(got, []uint64{2, 3}) {
		t.Errorf("sent %v", got)
	}
	w.applied(9, 2) // another incarnation's
	if got := numbers(); got != nil {
		t.Errorf("sent %v", got)
	}
	if _, skipped := w.applied(1, 3); len(skipped) != 1 {
		t.Errorf("%d batches skipped", len(skipped))
	}
}

func TestThePackerTakesEachNodesNextBatchOnly(t *testing.T) {
	p := newPacker(smallBounds(), newSilent())
	frame := func(node command.NodeID, incarnation, number uint64) []byte {
		return command.AppendBatch(nil, &command.Batch{Node: node, Incarnation: incarnation, Number: number, Count: 1, Commands: make([]byte, 50)})
	}
	accept := func(node command.NodeID, incarnation, number uint64) string {
		no, ok := p.accept(node, frame(node, incarnation, number), false)
		return fmt.Sprint(ok, no.expected)
	}
	early := accept("a", 2, 6)
	p.start([]fsm.NodeInfo{{ID: "a", Incarnation: 2, LastBatch: 5}})
	for _, c := range []struct{ got, want string }{
		{early, "true 0"},
		{accept("a", 2, 6), "true 0"},  // twice
		{accept("a", 2, 8), "false 7"}, // a gap
		{accept("a", 2, 7), "true 0"},
		{accept("a", 1, 9), "true 0"},  // of the past
		{accept("a", 3, 2), "false 1"}, // a new incarnation begins with 1
		{accept("a", 3, 1), "true 0"},
		{accept("b", 1, 1), "true 0"},
		{accept("b", 1, 2), "true 0"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
	var packed []string
	for {
		b := p.entry(func() uint64 { return 9 })
		if b == nil {
			break
		}
		e, err := command.DecodeEntry(b)
		if err != nil || e.Stamp != 9 {
			t.Fatal(e.Stamp, err)
		}
		for {
			batch, ok, err := e.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			packed = append(packed, fmt.Sprint(batch.Node, batch.Incarnation, "/", batch.Number))
		}
		packed = append(packed, "|")
	}
	if got, want := fmt.Sprint(packed), "[a2/6 a2/7 a3/1 | b1/1 b1/2 |]"; got != want {
		t.Errorf("packed %v, want %v", got, want)
	}
	p.close()
	if got := accept("b", 1, 3); got != "false 0" {
		t.Errorf("a closed packer said %s", got)
	}
}

func TestApplyFutureCanBeAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		defer l.close()
		leader := l.found()
		l.isolate(leader, true)
		f := leader.node.raft.Apply(command.AppendEntryHeader(nil, 0), 0)
		if field := reflect.ValueOf(f).Elem().FieldByName("ShutdownCh"); !field.CanSet() {
			t.Fatal("raft's futures have no ShutdownCh any more")
		}
		stop := make(chan struct{})
		time.AfterFunc(time.Millisecond, func() { close(stop) })
		if err := wait(f, stop); !errors.Is(err, raft.ErrRaftShutdown) {
			t.Errorf("got %v", err)
		}
	})
}

func TestTimingsKeepTheirOrder(t *testing.T) {
	if err := DefaultTimings().Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Timings){
		"lease above heartbeat":        func(x *Timings) { x.Lease = 2 * x.Heartbeat },
		"election below heartbeat":     func(x *Timings) { x.Election = x.Heartbeat / 2 },
		"node down before contact end": func(x *Timings) { x.NodeDown = x.ContactLimit },
		"contact shorter than pings":   func(x *Timings) { x.Ping = x.ContactLimit },
		"no resend":                    func(x *Timings) { x.Resend = 0 },
	} {
		x := DefaultTimings()
		change(&x)
		if x.Validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestLowerMedian(t *testing.T) {
	for _, c := range []struct {
		in   []uint64
		want uint64
	}{{[]uint64{7}, 7}, {[]uint64{9, 3}, 3}, {[]uint64{9, 3, 5}, 5}, {[]uint64{9, 3, 5, 100}, 5}} {
		if got := lowerMedian(c.in); got != c.want {
			t.Errorf("%v: %d, want %d", c.in, got, c.want)
		}
	}
}

func FuzzHandlersSurviveAnyFrame(f *testing.F) {
	f.Add(byte(1), []byte{})
	f.Add(byte(7), make([]byte, 16))
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		synctest.Test(t, func(t *testing.T) {
			l := newLan(t, "a")
			defer l.close()
			a := l.found()
			if h := a.node.Handlers()[kind]; h != nil {
				h("b", payload)
				h(a.id, payload)
			}
			if _, err := a.propose(publish("x")); err != nil {
				t.Error(err)
			}
		})
	})
}
