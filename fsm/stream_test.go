package fsm

import (
	"testing"

	"quorate/fsm/command"
	"quorate/protocol/packet"
)

// sub is a SUBSCRIBE to one filter.
func sub(ref command.Ref, id uint32, s command.Subscription) *command.Subscribe {
	return &command.Subscribe{Ref: ref, ID: id, Subscriptions: []command.Subscription{s}}
}

func TestAPersistentSubscriptionGetsWhatIsPublishedAfterItAndNothingBefore(t *testing.T) {
	// P2
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.publish("a/1", 1, "before")
	r.subscribe(ref, "a/+:1")
	r.publish("a/1", 1, "one")
	r.publish("b", 1, "other")
	r.publish("a/2", 2, "two")
	r.publish("a/2", 0, "zero")
	equal(t, "queued", r.pull(ref), []string{"one:1", "two:1"})
	r.finish(ref)
	equal(t, "finished", r.pull(ref), nil)
	if s := r.m.Stats(); s.StoredMessages != 0 || s.StoredBytes != 0 {
		t.Fatalf("finished messages are stored: %+v", s)
	}
}

func TestMessagesWaitForASessionThatIsAway(t *testing.T) {
	r := up(t, nodeB)
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:1")
	r.one(&command.Disconnect{Ref: ref})
	r.publish("a", 1, "x")
	ref = r.connect(nodeB, "c")
	equal(t, "queued", r.pull(ref), []string{"x:1"})
}

func TestAMessageIsStoredOnceForAllSessions(t *testing.T) {
	// P11
	r := up(t)
	for i := range 50 {
		r.subscribe(r.connect(nodeA, itoa(i)), "a:1", "+:1")
	}
	r.publish("a", 1, "x")
	if s := r.m.Stats(); s.StoredMessages != 1 || r.bodies.len() != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestOverlappingSubscriptionsFallTogether(t *testing.T) {
	// [MQTT-3.3.4-2], [MQTT-3.3.4-3], P17, P19
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.one(sub(ref, 1, command.Subscription{Filter: "a/+", QoS: 1}))
	r.one(sub(ref, 2, command.Subscription{Filter: "a/#", QoS: 2}))
	r.one(sub(ref, 3, command.Subscription{Filter: "+/b", QoS: 0}))
	r.one(sub(ref, 4, command.Subscription{Filter: "other", QoS: 2}))
	r.publish("a/b", 2, "x")
	r.publish("a/b", 1, "y")
	r.publish("a/c", 1, "z")
	equal(t, "queued", r.pull(ref), []string{"x:2 #2 #1 #3", "y:1 #2 #1 #3", "z:1 #2 #1"})
}

func TestOnlyQoS0SubscriptionsQueueNothing(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:0")
	r.publish("a", 2, "x")
	var route Route
	r.m.Route("a", &route)
	if route.Stored || r.m.Stats().StoredMessages != 0 || r.pull(ref) != nil {
		t.Fatal("a message is stored for a QoS 0 subscription")
	}
}

func TestUnsubscribeCompletesWhatWasQueued(t *testing.T) {
	// [MQTT-3.10.4-3]
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:1")
	r.publish("a", 1, "x")
	res := r.one(&command.Unsubscribe{Ref: ref, Filters: []string{"a", "b"}})
	equal(t, "codes", res.Codes, []packet.ReasonCode{packet.Success, packet.NoSubscriptionExisted})
	r.publish("a", 1, "y")
	equal(t, "queued", r.pull(ref), []string{"x:1"})
	state, _ := r.m.Session(ref)
	if len(state.Subscriptions) != 0 {
		t.Fatalf("subscriptions %v", state.Subscriptions)
	}
	r.finish(ref)
	if s := r.m.Stats(); s.Filters != 0 || s.Streams != 0 || s.StoredMessages != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestChangedOptionsDoNotRewriteWhatIsPending(t *testing.T) {
	// P23, [MQTT-3.8.4-3]
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.one(sub(ref, 1, command.Subscription{Filter: "a", QoS: 2}))
	r.publish("a", 2, "x")
	res := r.one(sub(ref, 2, command.Subscription{Filter: "a", QoS: 1}))
	if !res.Existed[0] {
		t.Fatal("the subscription did not exist")
	}
	r.publish("a", 2, "y")
	r.one(sub(ref, 0, command.Subscription{Filter: "a", QoS: 0}))
	r.publish("a", 2, "z")
	equal(t, "queued", r.pull(ref), []string{"x:2 #1", "y:1 #2"})
	state, _ := r.m.Session(ref)
	if len(state.Subscriptions) != 1 || state.Subscriptions[0].QoS != 0 {
		t.Fatalf("%+v", state.Subscriptions)
	}
}

func TestASubscriptionHasAtMostSixteenSpans(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c")
	for i := range uint32(17) {
		res := r.one(sub(ref, i+1, command.Subscription{Filter: "a", QoS: 1}))
		want := packet.GrantedQoS1
		if i == 16 {
			want = packet.QuotaExceeded
		}
		if res.Codes[0] != want {
			t.Fatalf("span %d: %v", i, res.Codes[0])
		}
		r.publish("a", 1, "x")
	}
	if got := r.pull(ref); len(got) != 17 || got[16] != "x:1 #16" {
		t.Fatalf("the old options do not hold after a refusal: %v", got)
	}
	r.finish(ref)
	if res := r.one(sub(ref, 99, command.Subscription{Filter: "a", QoS: 1})); res.Codes[0] != packet.GrantedQoS1 {
		t.Fatalf("after progress: %v", res.Codes[0])
	}
}

func TestNoLocalIsByTheSession(t *testing.T) {
	// [MQTT-3.8.3-3], P20: also for what was published on an earlier connection
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.one(sub(ref, 0, command.Subscription{Filter: "a", QoS: 1, NoLocal: true}))
	r.one(&command.Publish{Ref: ref, Message: msg("a", 1, "own")})
	other := r.connect(nodeA, "d")
	r.one(&command.Publish{Ref: other, Message: msg("a", 1, "other")})
	ref = r.connect(nodeA, "c")
	equal(t, "queued", r.pull(ref), []string{"other:1"})
}

func TestRetainAsPublishedIsKeptWithAQueuedMessage(t *testing.T) {
	// [MQTT-3.3.1-12], [MQTT-3.3.1-13], P21
	r := up(t)
	plain, rap := r.connect(nodeA, "c"), r.connect(nodeA, "d")
	r.one(sub(plain, 0, command.Subscription{Filter: "a", QoS: 1}))
	r.one(sub(rap, 0, command.Subscription{Filter: "a", QoS: 1, RetainAsPublished: true}))
	r.retain("a", 1, "x")
	r.publish("a", 1, "y")
	equal(t, "plain", r.pull(plain), []string{"x:1", "y:1"})
	equal(t, "as published", r.pull(rap), []string{"x:1 retain", "y:1"})
}

func TestAStreamKeepsItsLastMessagesAndSessionsCountWhatTheyLost(t *testing.T) {
	// P10
	f := func(change func(*Limits)) {
		t.Helper()
		r := up(t)
		l := DefaultLimits()
		change(&l)
		r.one(&command.Configure{Limits: l})
		behind, ahead := r.connect(nodeA, "behind"), r.connect(nodeA, "ahead")
		r.subscribe(behind, "a:1")
		r.subscribe(ahead, "a:1")
		for i := range 3 {
			r.publish("a", 1, itoa(i))
		}
		r.finish(ahead)
		for i := 3; i < 8; i++ {
			r.publish("a", 1, itoa(i))
		}
		equal(t, "behind", r.pull(behind), []string{"4:1", "5:1", "6:1", "7:1"})
		lost := func(ref command.Ref) uint64 { s, _ := r.m.Session(ref); return s.Dropped }
		if lost(behind) != 4 || lost(ahead) != 1 || r.m.Stats().Dropped != 4 {
			t.Fatalf("behind lost %d, ahead %d, all %d", lost(behind), lost(ahead), r.m.Stats().Dropped)
		}
		r.finish(behind)
		r.publish("a", 1, "8")
		if lost(behind) != 4 || lost(ahead) != 2 {
			t.Fatalf("after progress: behind lost %d, ahead %d", lost(behind), lost(ahead))
		}
	}
	f(func(l *Limits) { l.MaxQueuedMessages = 4 })
	f(func(l *Limits) { l.MaxQueuedBytes = 4 * (1 + 1 + 1 + 1) }) // lengths of topic and properties, topic, payload
}

func TestPastTheGlobalBoundAStoringPublishIsRefused(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:1")
	l := DefaultLimits()
	l.MaxStoredBytes = 10
	r.one(&command.Configure{Limits: l})
	r.publish("a", 1, "12")
	if res := r.one(&command.Publish{Ref: ref, PacketID: 5, Message: msg("a", 2, "123")}); res.Code != packet.QuotaExceeded || res.Seq != 0 {
		t.Fatalf("%+v", res)
	}
	if s, _ := r.m.Session(ref); len(s.In2) != 0 {
		t.Fatal("a refused message holds its identifier")
	}
	if res := r.one(&command.Publish{Message: msg("nobody", 1, "123456789")}); res.Code != packet.Success {
		t.Fatalf("a message that need not be stored: %v", res.Code)
	}
	r.finish(ref)
	if r.publish("a", 1, "12") == 0 {
		t.Fatal("refused although there is room again")
	}
	if got := r.m.Stats().Refused; got != 1 {
		t.Fatalf("refused %d", got)
	}
}

func TestExpiredMessagesAreNotPulledAndLeaveTheStore(t *testing.T) {
	// [MQTT-3.3.2-5], P32
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:1")
	for i, seconds := range []uint32{10, 5, 0, 20} {
		m := msg("a", 1, itoa(i))
		m.HasExpiry, m.ExpirySeconds = seconds != 0, seconds
		r.one(&command.Publish{Message: m})
	}
	r.stamp += 5000
	r.do(nodeA, &command.Routes{})
	equal(t, "before a tick", r.pull(ref), []string{"0:1", "2:1", "3:1"})
	r.tick(15)
	equal(t, "after", r.pull(ref), []string{"2:1"})
	if s := r.m.Stats(); r.bodies.len() != 1 || s.Expired != 3 {
		t.Fatalf("%d bodies, %+v", r.bodies.len(), s)
	}
	r.publish("a", 1, "last")
	if n := r.m.Stats().StoredMessages; n != 3 {
		t.Fatalf("%d messages: the expired ones at the front stay", n)
	}
}

func TestOneSubscriberThatIsBehindKeepsWhatItNeedsAndNoMore(t *testing.T) {
	r := up(t)
	r.unchecked = true
	var refs []command.Ref
	for i := range 20 {
		refs = append(refs, r.connect(nodeA, itoa(i)))
		r.subscribe(refs[i], "a:1")
	}
	for range 5000 {
		r.publish("a", 1, "x")
	}
	for _, ref := range refs[1:] {
		r.finish(ref)
	}
	if n := r.m.Stats().StoredMessages; n != 5000 {
		t.Fatalf("%d messages for the one behind", n)
	}
	list, scanned, _ := r.m.Pull(refs[0], 0, 3000, nil)
	r.do(nodeA, &command.Progress{Items: []command.ProgressItem{{Ref: refs[0], Cursor: scanned}}})
	if len(list) != 3000 || scanned != list[2999].Seq {
		t.Fatalf("%d pulled up to %d", len(list), scanned)
	}
	r.tick(1)
	r.unchecked = false
	if n := r.m.Stats().StoredMessages; n < 2000 || n > 2000+1024 {
		t.Fatalf("%d messages where 2,000 are needed", n)
	}
	r.one(&command.Kick{ClientID: "0", EndSession: true})
	r.tick(1)
	if n := r.m.Stats().StoredMessages; n != 0 {
		t.Fatalf("%d messages for nobody", n)
	}
}

func TestProgressOutOfOrderIsKeptAboveTheCursor(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:1")
	var seqs []uint64
	for i := range 5 {
		seqs = append(seqs, r.publish("a", 1, itoa(i)))
	}
	r.one(&command.Progress{Items: []command.ProgressItem{{Ref: ref, Cursor: seqs[0], Done: []uint64{seqs[3], seqs[2], seqs[3]}}}})
	equal(t, "queued", r.pull(ref), []string{"1:1", "4:1"})
	ref = r.connect(nodeA, "c")
	equal(t, "after a reconnect", r.pull(ref), []string{"1:1", "4:1"})
	r.one(&command.Progress{Items: []command.ProgressItem{{Ref: ref, Cursor: seqs[3]}, {Ref: ref, Cursor: seqs[1]}, {Ref: ref, Cursor: 1 << 60}}})
	state, _ := r.m.Session(ref)
	if state.Cursor < seqs[4] || state.Cursor > 1<<20 || len(state.Done) != 0 {
		t.Fatalf("cursor %d, done %v", state.Cursor, state.Done)
	}
}

func TestASentMarkedMessageIsTheSessionsUntilItIsDone(t *testing.T) {
	// P3, [MQTT-4.3.3-7]: not trimmed, expired, unsubscribed, and keeps its QoS
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.one(sub(ref, 9, command.Subscription{Filter: "a", QoS: 2, RetainAsPublished: true}))
	m := msg("a", 2, "x")
	m.HasExpiry, m.ExpirySeconds, m.Retain = true, 10, true
	seq := r.one(&command.Publish{Message: m}).Seq
	one := r.publish("a", 1, "y")
	res := r.one(&command.SendMark{Ref: ref, Seqs: []uint64{seq, one, 999}})
	equal(t, "codes", res.Codes, []packet.ReasonCode{packet.Success, packet.PacketIdentifierNotFound, packet.PacketIdentifierNotFound})
	r.one(&command.Progress{Items: []command.ProgressItem{{Ref: ref, Cursor: one}}})
	r.retain("a", 0, "")
	r.one(sub(ref, 0, command.Subscription{Filter: "a", QoS: 0}))
	r.one(&command.Unsubscribe{Ref: ref, Filters: []string{"a"}})
	r.tick(100)
	equal(t, "held", r.pull(ref), []string{"x:2 retain marked #9"})
	ref = r.connect(nodeA, "c")
	r.one(&command.Progress{Items: []command.ProgressItem{{Ref: ref, Received: []uint64{seq}}}})
	equal(t, "received", r.pull(ref), []string{":2 retain marked received #9"})
	state, _ := r.m.Session(ref)
	equal(t, "out2", state.Out2, []OutState{{Seq: seq, Received: true}})
	r.one(&command.Progress{Items: []command.ProgressItem{{Ref: ref, Done: []uint64{seq}}}})
	equal(t, "done", r.pull(ref), nil)
	if s := r.m.Stats(); s.StoredMessages != 0 || s.StoredBytes != 0 {
		t.Fatalf("%+v", s)
	}
	if res := r.one(&command.SendMark{Ref: ref, Seqs: []uint64{seq}}); res.Codes[0] != packet.PacketIdentifierNotFound {
		t.Fatal("a finished message was marked again")
	}
}

func TestAnExpiredMessageIsNotMarked(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:2")
	m := msg("a", 2, "x")
	m.HasExpiry, m.ExpirySeconds = true, 1
	seq := r.one(&command.Publish{Message: m}).Seq
	r.stamp += 1000
	if res := r.one(&command.SendMark{Ref: ref, Seqs: []uint64{seq}}); res.Codes[0] != packet.PacketIdentifierNotFound {
		t.Fatalf("%v", res.Codes)
	}
}

func TestMarkingTwiceIsMarkingOnce(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:2")
	seq := r.publish("a", 2, "x")
	res := r.one(&command.SendMark{Ref: ref, Seqs: []uint64{seq, seq}})
	equal(t, "codes", res.Codes, []packet.ReasonCode{packet.Success, packet.Success})
	equal(t, "queued", r.pull(ref), []string{"x:2 marked"})
}

func TestTheResendBoundSaysWhatMayHaveBeenSent(t *testing.T) {
	// [MQTT-3.3.1-1]
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:1")
	first := r.publish("a", 1, "x")
	r.publish("a", 1, "y")
	bound := func() uint64 { s, _ := r.m.Session(ref); return s.ResendBound }
	if bound() != 0 {
		t.Fatal("something was sent before")
	}
	r.one(&command.Disconnect{Ref: ref, Sent: first})
	r.publish("a", 1, "z")
	ref = r.connect(nodeA, "c")
	if bound() != first {
		t.Fatalf("bound %d, want %d", bound(), first)
	}
	last := r.publish("a", 1, "w")
	ref = r.connect(nodeA, "c")
	if bound() != last {
		t.Fatalf("bound after a take-over %d, want %d", bound(), last)
	}
}

func TestPullGoesOnWhereItScanned(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:1", "b:1", "#:1")
	for i := range 10 {
		r.publish([]string{"a", "b", "c"}[i%3], 1, itoa(i))
	}
	var got []string
	after := uint64(0)
	for {
		list, scanned, ok := r.m.Pull(ref, after, 3, nil)
		if !ok {
			t.Fatal("stale")
		}
		for i := range list {
			got = append(got, string(list[i].Payload))
		}
		if len(list) < 3 {
			break
		}
		after = scanned
	}
	equal(t, "pulled", got, []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"})
	if _, _, ok := r.m.Pull(command.Ref{Slot: ref.Slot, Epoch: 99}, 0, 1, nil); ok {
		t.Fatal("pulled for a stale ref")
	}
}

func TestBadFiltersAndTopicsAreAnsweredNotApplied(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c")
	res := r.one(&command.Subscribe{Ref: ref, Subscriptions: []command.Subscription{
		{Filter: "a/#/b", QoS: 1}, {Filter: "", QoS: 1}, {Filter: "$share//x", QoS: 1}, {Filter: "ok", QoS: 2},
	}})
	bad := packet.TopicFilterInvalid
	equal(t, "codes", res.Codes, []packet.ReasonCode{bad, bad, bad, packet.GrantedQoS2})
	if res := r.one(&command.Publish{Message: msg("a/+", 1, "x")}); res.Code != packet.TopicNameInvalid {
		t.Fatalf("%v", res.Code)
	}
	if res := r.one(&command.Connect{ClientID: ""}); res.Code != packet.ClientIdentifierNotValid {
		t.Fatalf("%v", res.Code)
	}
}

func TestSubscriptionsOfASessionAreBounded(t *testing.T) {
	r := up(t)
	l := DefaultLimits()
	l.MaxSubscriptionsPerSession = 2
	r.one(&command.Configure{Limits: l})
	ref := r.connect(nodeA, "c")
	res := r.one(&command.Subscribe{Ref: ref, Subscriptions: []command.Subscription{
		{Filter: "a", QoS: 1}, {Filter: "$share/g/a", QoS: 1}, {Filter: "b", QoS: 1}, {Filter: "$share/g/b", QoS: 1}, {Filter: "a", QoS: 2},
	}})
	q := packet.QuotaExceeded
	equal(t, "codes", res.Codes, []packet.ReasonCode{packet.GrantedQoS1, packet.GrantedQoS1, q, q, packet.GrantedQoS2})
}

func TestRoutesAreThoseOfLiveNodes(t *testing.T) {
	r := up(t, nodeB, nodeC)
	ref := r.connect(nodeA, "c", transient)
	r.one(&command.Subscribe{Ref: ref, Subscriptions: []command.Subscription{{Filter: "a/+", QoS: 1}}, Routes: []string{"a/+"}})
	r.do(nodeB, &command.Routes{Add: []string{"a/b", "x"}})
	r.do(nodeC, &command.Routes{Add: []string{"#"}})
	var route Route
	peers := func() []command.NodeID { r.m.Route("a/b", &route); return route.Peers }
	equal(t, "peers", peers(), []command.NodeID{nodeA, nodeB, nodeC})
	r.do(nodeA, &command.NodeDown{ID: nodeC, Incarnation: 1})
	equal(t, "without the dead one", peers(), []command.NodeID{nodeA, nodeB})
	r.do(nodeB, &command.Routes{Remove: []string{"a/b"}})
	r.one(&command.Unsubscribe{Ref: ref, Filters: []string{"a/+"}, Routes: []string{"a/+"}})
	equal(t, "after removal", peers(), nil)
	r.tick(1)
	if s := r.m.Stats(); s.Routes != 1 || s.Filters != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestPublishedComesInLogOrderBeforeItsBatchsResult(t *testing.T) {
	r := up(t)
	r.calls = nil
	r.do(nodeA, &command.Publish{Message: msg("a", 0, "1")}, &command.Publish{Message: msg("b", 1, "2")})
	equal(t, "calls", r.calls, []string{"published a=1", "published b=2", "applied 1/2 2"})
}
