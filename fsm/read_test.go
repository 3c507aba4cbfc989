package fsm

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorate/fsm/command"
)

func TestSessionsAreListedInPages(t *testing.T) {
	r := up(t, nodeB)
	r.unchecked = true
	for i := range 600 {
		r.connect(nodeA, itoa(i), transient)
	}
	for i := range 300 {
		r.one(&command.Kick{ClientID: itoa(2 * i)})
	}
	seen := map[string]bool{}
	pages := 0
	for from := uint32(0); ; pages++ {
		n := 0
		from = r.m.Sessions(from, 70, func(s *SessionInfo) bool {
			if seen[s.ClientID] {
				t.Fatalf("%s twice", s.ClientID)
			}
			seen[s.ClientID] = true
			n++
			return true
		})
		if n > 70 {
			t.Fatalf("%d in a page of 70", n)
		}
		if from == 0 {
			break
		}
	}
	if len(seen) != 300 || pages < 4 {
		t.Fatalf("%d sessions in %d pages", len(seen), pages)
	}
	stop := 0
	next := r.m.Sessions(0, 1000, func(*SessionInfo) bool { stop++; return stop < 3 })
	if stop != 3 || next != 6 {
		t.Fatalf("visited %d, next %d", stop, next)
	}
}

func TestASessionIsShownAsItIs(t *testing.T) {
	r := up(t, nodeB)
	ref := r.connect(nodeB, "c", expiry(60), window(7))
	r.subscribe(ref, "a:2", "b:0", "$share/g/a:1")
	for range 3 {
		r.publish("a", 2, "x")
	}
	r.do(nodeB, &command.SendMark{Ref: ref, Seqs: r.seqs(ref)[:1]}, &command.Disconnect{Ref: ref})
	var got SessionInfo
	r.m.Sessions(0, 10, func(s *SessionInfo) bool { got = *s; return true })
	want := SessionInfo{
		Ref: ref, Serial: 1, ClientID: "c", Identity: "u", Version: 5, Persistent: true, ExpirySeconds: 60, ReceiveMaximum: 7,
		Node: nodeB, ExpiresAt: 61_000, Subscriptions: 3, Inflight: 1, Queued: 6,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestTheStateOfASessionNamesItsSubscriptions(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.publish("x", 0, "")
	opts := command.Subscription{Filter: "b/+", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}
	r.one(sub(ref, 9, opts))
	r.subscribe(ref, "$share/g/a:2", "a:0")
	got, ok := r.m.Session(ref)
	if !ok {
		t.Fatal("stale")
	}
	want := []Subscription{
		{Subscription: command.Subscription{Filter: "$share/g/a", QoS: 2}},
		{Subscription: command.Subscription{Filter: "a"}, Since: 1},
		{Subscription: opts, ID: 9, Since: 1},
	}
	if diff := cmp.Diff(want, got.Subscriptions); diff != "" {
		t.Fatal(diff)
	}
}

func TestLimitsAreThoseOfTheLog(t *testing.T) {
	r := up(t)
	if r.m.Limits() != DefaultLimits() {
		t.Fatalf("%+v", r.m.Limits())
	}
	l := DefaultLimits()
	l.MaxRetained = 7
	r.one(&command.Configure{Limits: l})
	if r.m.Limits() != l {
		t.Fatalf("%+v", r.m.Limits())
	}
}

// vanishing is a Bodies that lets something happen before a read.
type vanishing struct {
	*memory
	before func()
}

func (v *vanishing) Get(ref BodyRef, dst []byte) ([]byte, error) {
	if f := v.before; f != nil {
		v.before = nil
		f()
	}
	return v.memory.Get(ref, dst)
}

func TestAReaderOfARetainedMessageThatIsReplacedGetsTheNewerOne(t *testing.T) {
	// P5: it or a newer one, never none because of the change
	r := up(t)
	v := &vanishing{memory: r.bodies}
	r.m.bodies = v
	r.retain("a", 1, "old")
	r.retain("b", 1, "other")
	v.before = func() { r.retain("a", 1, "new") }
	equal(t, "replaced", r.retained("#"), []string{"a=new", "b=other"})
	v.before = func() { r.retain("a", 1, "") }
	equal(t, "cleared", r.retained("#"), []string{"b=other"})
}

func TestAMessageThatGoesWhileItIsPulledIsLeftOut(t *testing.T) {
	r := up(t)
	v := &vanishing{memory: r.bodies}
	r.m.bodies = v
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:1")
	first := r.publish("a", 1, "x")
	r.publish("a", 1, "y")
	v.before = func() { r.one(&command.Kick{ClientID: "c", EndSession: true}) }
	list, scanned, ok := r.m.Pull(ref, 0, 10, nil)
	if !ok || len(list) != 0 || scanned <= first {
		t.Fatalf("%v %d %t", list, scanned, ok)
	}
}

func TestManyShortLivedExpiriesLeaveNothingBehind(t *testing.T) {
	r := up(t)
	r.unchecked = true
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:1")
	for i := range 3000 {
		m := msg("a", 1, "x")
		m.HasExpiry, m.ExpirySeconds = true, uint32(1000+i)
		r.one(&command.Publish{Message: m})
		r.finish(ref)
	}
	r.unchecked = false
	r.do(nodeA)
	if n := len(r.m.st.expiry.heap); n > 100 || len(r.m.st.expiry.lists) != 0 {
		t.Fatalf("%d seconds for %d lists", n, len(r.m.st.expiry.lists))
	}
}

func TestASnapshotKnowsItsIndex(t *testing.T) {
	r := up(t)
	r.unchecked = true
	s, err := r.m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	r.do(nodeA)
	if s.Index() != r.index-1 {
		t.Fatalf("index %d", s.Index())
	}
}
