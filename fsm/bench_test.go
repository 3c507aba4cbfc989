package fsm

import (
	"io"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"quorate/fsm/command"
)

// discard is a Bodies that keeps nothing but counts, so that benchmarks measure the machine.
type discard struct{ body []byte }

func (d *discard) Put(body []byte, _ bool) BodyRef {
	if d.body == nil {
		d.body = slices.Clone(body)
	}
	return 1
}
func (d *discard) Get(_ BodyRef, dst []byte) ([]byte, error) { return append(dst, d.body...), nil }
func (d *discard) Free(BodyRef)                              {}
func (d *discard) Pin() func()                               { return func() {} }
func (d *discard) Reset()                                    {}

// nobody is an observer that does nothing.
type nobody struct{ rig }

func (*nobody) BatchApplied(uint64, uint64, []Result) {}
func (*nobody) Published(*Message)                    {}
func (*nobody) Wake(command.Ref)                      {}

// loaded is a machine with so many offline sessions subscribed to one filter.
func loaded(t testing.TB, sessions int) *rig {
	r := &rig{t: t, stamp: 1000, inc: map[command.NodeID]uint64{}, number: map[command.NodeID]uint64{}, unchecked: true}
	r.m = New(nodeA, &discard{}, new(nobody))
	r.start(nodeA)
	for i := range sessions {
		ref := r.connect(nodeA, "client-"+itoa(i))
		r.do(nodeA, sub(ref, 0, command.Subscription{Filter: "plant/+/temperature", QoS: 1}), &command.Disconnect{Ref: ref})
	}
	return r
}

// entries are log entries of n publishes in all, at most perEntry in each.
func (r *rig) entries(n, perEntry, payloadBytes int) [][]byte {
	p := &command.Publish{Message: command.Message{Topic: "plant/7/temperature", QoS: 1, Payload: make([]byte, payloadBytes)}}
	one := encode(p)
	var out [][]byte
	for n > 0 {
		k := min(n, perEntry)
		n -= k
		r.number[nodeA]++
		b := command.AppendEntryHeader(nil, r.stamp)
		out = append(out, command.AppendBatch(b, &command.Batch{
			Node: nodeA, Incarnation: 1, Number: r.number[nodeA], Count: k, Commands: slices.Repeat(one, k),
		}))
	}
	return out
}

func (r *rig) applyAll(entries [][]byte) {
	for _, e := range entries {
		r.index++
		if err := r.m.Apply(r.index, e); err != nil {
			r.t.Fatal(err)
		}
	}
}

func benchmarkPublish(b *testing.B, sessions int) {
	r := loaded(b, sessions)
	l := DefaultLimits()
	l.MaxQueuedMessages = 100_000
	r.do(nodeA, &command.Configure{Limits: l})
	const perEntry = 256
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += perEntry {
		b.StopTimer()
		e := r.entries(perEntry, perEntry, 256)
		b.StartTimer()
		r.applyAll(e)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "publishes/s")
}

// The next three are P11: a publish costs the same for 10 and for 100,000 sessions that are away.
func BenchmarkPublishTo1OfflineSession(b *testing.B)       { benchmarkPublish(b, 1) }
func BenchmarkPublishTo10OfflineSessions(b *testing.B)     { benchmarkPublish(b, 10) }
func BenchmarkPublishTo100000OfflineSessions(b *testing.B) { benchmarkPublish(b, 100_000) }

// BenchmarkPublishPullAndFinish is the whole way of a QoS 1 message to one connected session.
func BenchmarkPublishPullAndFinish(b *testing.B) {
	r := loaded(b, 0)
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "plant/#:1")
	var list []Delivery
	after := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		r.applyAll(r.entries(64, 64, 256))
		list, after, _ = r.m.Pull(ref, after, 1024, list[:0])
		if len(list) != 64 {
			b.Fatalf("%d messages", len(list))
		}
		r.do(nodeA, &command.Progress{Items: []command.ProgressItem{{Ref: ref, Cursor: after}}})
	}
	b.ReportMetric(float64(b.N)*64/b.Elapsed().Seconds(), "messages/s")
}

func BenchmarkRoute(b *testing.B) {
	r := loaded(b, 10)
	r.do(nodeA, &command.Routes{Add: []string{"plant/#", "#"}})
	var route Route
	b.ReportAllocs()
	for b.Loop() {
		r.m.Route("plant/7/temperature", &route)
	}
}

func BenchmarkRestore1MMessages(b *testing.B) {
	r := loaded(b, 1)
	r.applyAll(r.entries(1_000_000, 256, 256))
	for b.Loop() {
		pr, pw := io.Pipe()
		s, err := r.m.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			_, err := s.WriteTo(pw)
			pw.CloseWithError(err)
		}()
		if err := New(nodeA, &discard{}, nil).Restore(pr); err != nil {
			b.Fatal(err)
		}
		s.Release()
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestAMillionQueuedMessagesCostAtMost60MBWithoutTheirBodies(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("memory measurement")
	}
	r := loaded(t, 1)
	before := heap()
	for range 100 {
		r.applyAll(r.entries(10_000, 256, 16))
	}
	used := heap() - before
	t.Logf("%d bytes a message", used/1_000_000)
	if r.m.Stats().StoredMessages != 1_000_000 || used > 60_000_000 {
		t.Fatalf("%d messages take %d bytes", r.m.Stats().StoredMessages, used)
	}
	runtime.KeepAlive(r)
}

func TestATransientSessionCostsAtMost400Bytes(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("memory measurement")
	}
	r := loaded(t, 0)
	before := heap()
	const n = 100_000
	for i := range n {
		r.do(nodeA, &command.Connect{ClientID: "client-with-a-usual-name-" + itoa(i), Identity: "user-" + itoa(i), Version: 5})
	}
	used := heap() - before
	t.Logf("%d bytes a session", used/n)
	if used/n > 400 {
		t.Fatalf("%d bytes a session", used/n)
	}
	runtime.KeepAlive(r)
}

func TestApplyIsNotStoppedForMoreThan50msByASnapshotOfAMillionMessages(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("time measurement")
	}
	r := loaded(t, 1000)
	for range 100 {
		r.applyAll(r.entries(10_000, 256, 256))
	}
	l := DefaultLimits()
	l.MaxQueuedMessages = 1_000_000 // each further publish drops one: chunks change at both ends
	r.do(nodeA, &command.Configure{Limits: l})
	begun := time.Now()
	s, err := r.m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Since(begun)
	done := make(chan error)
	go func() {
		_, err := s.WriteTo(io.Discard)
		done <- err
	}()
	var stops []time.Duration
	for running := true; running; {
		for _, e := range r.entries(1024, 64, 256) {
			at, cpu := time.Now(), processor(t)
			r.applyAll([][]byte{e})
			// Not more than the processor time of the whole process: that others use the machine is not its fault.
			stops = append(stops, min(time.Since(at), processor(t)-cpu))
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
	}
	s.Release()
	slices.Sort(stops)
	n := len(stops)
	t.Logf("snapshot began in %v; %d entries: p50 %v, p99 %v, worst %v", began, n, stops[n/2], stops[n*99/100], stops[n-1])
	if stops[n-1] > 50*time.Millisecond {
		t.Fatalf("an entry took %v", stops[n-1])
	}
}

// processor is the processor time that the process has used.
func processor(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestAPublishTouchesNoSession(t *testing.T) {
	// P11: what a snapshot captures while a message is published is what the publish changed.
	f := func(sessions int) []byte {
		r := loaded(t, sessions)
		r.applyAll(r.entries(1, 1, 16))
		s, err := r.m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release()
		r.applyAll(r.entries(1, 1, 16))
		var kinds []byte
		for _, c := range s.captured {
			kinds = append(kinds, c.kind)
		}
		return kinds
	}
	want := []byte{recordNode, recordChunk, recordFilter}
	equal(t, "10 sessions", f(10), want)
	equal(t, "5,000 sessions", f(5000), want)
}
