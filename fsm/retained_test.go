package fsm

import (
	"slices"
	"testing"

	"quorate/fsm/command"
	"quorate/protocol/packet"
)

func (r *rig) retained(filter string) []string {
	var out []string
	r.m.Retained(filter, "", 1<<20, func(m *Message) bool {
		out = append(out, m.Topic+"="+string(m.Payload))
		return true
	})
	return out
}

func TestARetainedMessageIsARegisterPerTopic(t *testing.T) {
	// P5, [MQTT-3.3.1-5..7]
	r := up(t)
	r.retain("a", 1, "1")
	r.retain("b", 0, "2")
	r.retain("a", 0, "3")
	equal(t, "retained", r.retained("#"), []string{"a=3", "b=2"})
	r.heard("")
	r.retain("a", 1, "")
	equal(t, "published", r.heard("published"), []string{"published a="})
	equal(t, "after clearing", r.retained("+"), []string{"b=2"})
	if s := r.m.Stats(); s.Retained != 1 || s.StoredMessages != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestRetainedIsReadInPages(t *testing.T) {
	r := up(t)
	r.unchecked = true
	var want []string
	for i := range 700 {
		r.retain("t/"+itoa(1000+i), 1, itoa(i))
		want = append(want, "t/"+itoa(1000+i)+"="+itoa(i))
	}
	equal(t, "all", r.retained("t/#"), want)
	var got []string
	after := ""
	for range 10 {
		r.m.Retained("t/#", after, 70, func(m *Message) bool {
			got = append(got, m.Topic+"="+string(m.Payload))
			after = m.Topic
			return true
		})
	}
	equal(t, "pages", got, want)
	n := 0
	r.m.Retained("t/#", "", 100, func(*Message) bool { n++; return n < 5 })
	if n != 5 {
		t.Fatalf("visited %d after being told to stop", n)
	}
}

func TestRetainedTopicsAreBounded(t *testing.T) {
	r := up(t)
	l := DefaultLimits()
	l.MaxRetained = 1
	r.one(&command.Configure{Limits: l})
	r.retain("a", 1, "x")
	m := msg("b", 1, "x")
	m.Retain = true
	if res := r.one(&command.Publish{Message: m}); res.Code != packet.QuotaExceeded {
		t.Fatalf("%v", res.Code)
	}
	if r.retain("a", 1, "y") == 0 {
		t.Fatal("a topic that is there was refused")
	}
}

func TestARetainedMessageExpires(t *testing.T) {
	r := up(t)
	m := msg("a", 1, "x")
	m.Retain, m.HasExpiry, m.ExpirySeconds = true, true, 10
	r.one(&command.Publish{Message: m})
	r.stamp += 9999
	r.do(nodeA, &command.Routes{})
	equal(t, "before", r.retained("a"), []string{"a=x"})
	r.stamp++
	r.do(nodeA, &command.Routes{})
	equal(t, "after, without a tick", r.retained("a"), nil)
	r.tick(0)
	r.tick(1)
	if s := r.m.Stats(); s.Retained != 0 || s.StoredMessages != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestAPersistentSubscriptionIsOwedTheRetainedMessages(t *testing.T) {
	// [MQTT-3.3.1-9..11], P22
	f := func(handling byte, again bool, want []string) {
		t.Helper()
		r := up(t)
		r.retain("a/1", 1, "one")
		r.retain("a/2", 2, "two")
		r.retain("a/3", 0, "zero is sent by the node")
		ref := r.connect(nodeA, "c")
		s := command.Subscription{Filter: "a/+", QoS: 1, RetainHandling: 2}
		if again {
			r.one(sub(ref, 5, s))
		}
		s.RetainHandling = handling
		r.one(sub(ref, 5, s))
		equal(t, "owed", r.pull(ref), want)
	}
	all := []string{"one:1 retain #5", "two:1 retain #5"}
	f(0, false, all)
	f(0, true, all)
	f(1, false, all)
	f(1, true, nil)
	f(2, false, nil)
}

func TestRetainedCopiesAreOwedAlsoAfterTheConnectionAndTheMessageAreGone(t *testing.T) {
	r := up(t)
	r.retain("a", 1, "x")
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:1")
	r.one(&command.Disconnect{Ref: ref})
	r.retain("a", 1, "")
	ref = r.connect(nodeA, "c")
	equal(t, "owed", r.pull(ref), []string{"x:1 retain", ":1"})
}

func TestRetainedCopiesComeInChunksAndNewerOnesComeByTheStream(t *testing.T) {
	r := up(t)
	r.unchecked = true
	const n = 2600
	for i := range n {
		r.retain("t/"+itoa(10000+i), 1, itoa(i))
	}
	ref := r.connect(nodeA, "c")
	r.calls = nil
	r.subscribe(ref, "t/#:1")
	if r.heard("wake") == nil {
		t.Fatal("no wake")
	}
	if got := len(r.pull(ref)); got == 0 || got > owedPrivateMax {
		t.Fatalf("%d copied at once", got)
	}
	r.unchecked = false
	r.retain("t/"+itoa(10000+n-1), 1, "newer")
	r.retain("t/"+itoa(10000+n-2), 1, "")
	var got []string
	after := uint64(0)
	for range 10 {
		list, scanned, _ := r.m.Pull(ref, after, 5000, nil)
		for i := range list {
			got = append(got, show(&list[i]))
		}
		after = scanned
		r.one(&command.Progress{Items: []command.ProgressItem{{Ref: ref, Cursor: scanned}}})
		r.tick(1)
	}
	if len(got) != n-2+2 || !slices.Contains(got, "newer:1") || slices.Contains(got, itoa(n-1)+":1 retain") {
		t.Fatalf("%d messages, the last %v", len(got), got[len(got)-3:])
	}
	if s := r.m.Stats(); s.StoredMessages != n-1 || s.Work != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestWhatIsOwedWaitsForTheSessionsProgress(t *testing.T) {
	r := up(t)
	r.unchecked = true
	for i := range 3000 {
		r.retain("t/"+itoa(i), 1, "x")
	}
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "t/#:1")
	r.tick(10)
	if got := len(r.pull(ref)); got != owedPrivateMax {
		t.Fatalf("%d copies for a session that does not progress", got)
	}
	r.one(&command.Unsubscribe{Ref: ref, Filters: []string{"t/#"}})
	r.finish(ref)
	r.tick(10)
	r.unchecked = false
	if got := len(r.pull(ref)); got != 0 {
		t.Fatalf("%d copies after the unsubscribe", got)
	}
}
