package fsm

import (
	"slices"
	"testing"

	"quorate/fsm/command"
	"quorate/protocol/packet"
)

func TestASharedMessageGoesToExactlyOneMemberInTurn(t *testing.T) {
	// [MQTT-4.8.2-3], P28
	r := up(t, nodeB)
	a, b, c := r.connect(nodeA, "a"), r.connect(nodeB, "b", transient), r.connect(nodeA, "c")
	for _, ref := range []command.Ref{a, b, c} {
		r.subscribe(ref, "$share/g/t/#:1")
	}
	for i := range 6 {
		r.publish("t/x", 1, itoa(i))
	}
	equal(t, "a", r.pull(a), []string{"0:1", "3:1"})
	equal(t, "b", r.pull(b), []string{"1:1", "4:1"})
	equal(t, "c", r.pull(c), []string{"2:1", "5:1"})
	if s := r.m.Stats(); s.StoredMessages != 6 {
		t.Fatalf("%+v", s)
	}
}

func TestTheMemberWithTheFewestOutstandingIsNext(t *testing.T) {
	r := up(t)
	a, b := r.connect(nodeA, "a"), r.connect(nodeA, "b")
	r.subscribe(a, "$share/g/t:1")
	r.subscribe(b, "$share/g/t:1")
	for i := range 4 {
		r.publish("t", 1, itoa(i))
	}
	r.finish(b)
	for i := 4; i < 6; i++ {
		r.publish("t", 1, itoa(i))
	}
	equal(t, "a", r.pull(a), []string{"0:1", "2:1"})
	equal(t, "b", r.pull(b), []string{"4:1", "5:1"})
}

func TestASharedMessageWaitsForAWindowAndForAConnection(t *testing.T) {
	r := up(t)
	a := r.connect(nodeA, "a", window(2))
	r.subscribe(a, "$share/g/t:1")
	for i := range 5 {
		r.publish("t", 1, itoa(i))
	}
	equal(t, "window of two", r.pull(a), []string{"0:1", "1:1"})
	r.calls = nil
	r.finish(a)
	if r.heard("wake") == nil {
		t.Fatal("no wake")
	}
	equal(t, "next two", r.pull(a), []string{"2:1", "3:1"})
	r.one(&command.Disconnect{Ref: a})
	r.publish("t", 1, "5")
	a = r.connect(nodeA, "a", window(10))
	equal(t, "after a reconnect", r.pull(a), []string{"2:1", "3:1", "4:1", "5:1"})
}

func TestABacklogIsHandedOutByTicks(t *testing.T) {
	r := up(t)
	r.unchecked = true
	a := r.connect(nodeA, "a")
	r.subscribe(a, "$share/g/t:1")
	l := DefaultLimits()
	l.MaxReceiveWindow = 5000
	r.one(&command.Configure{Limits: l})
	r.one(&command.Disconnect{Ref: a})
	for range 3000 {
		r.publish("t", 1, "x")
	}
	a = r.connect(nodeA, "a")
	if n := len(r.pull(a)); n == 0 || n > trimUnits {
		t.Fatalf("%d at once", n)
	}
	r.unchecked = false
	r.tick(1)
	if n := len(r.pull(a)); n != 3000 {
		t.Fatalf("%d in the end", n)
	}
}

func TestUnfinishedQoS1GoesToAnotherMemberWhenTheSessionEnds(t *testing.T) {
	// P30
	r := up(t)
	a, b := r.connect(nodeA, "a"), r.connect(nodeA, "b")
	r.subscribe(a, "$share/g/t:1")
	r.publish("t", 1, "0")
	r.publish("t", 1, "1")
	r.subscribe(b, "$share/g/t:1")
	r.one(&command.Disconnect{Ref: a})
	equal(t, "while the session lasts", r.pull(b), nil)
	r.publish("t", 1, "2")
	r.connect(nodeA, "a", clean)
	equal(t, "after it", r.pull(b), []string{"2:1", "0:1", "1:1"})
}

func TestUnfinishedQoS1GoesToAnotherMemberWithTheConnectionWhenSaidSo(t *testing.T) {
	r := up(t)
	l := DefaultLimits()
	l.ReassignOnDisconnect = true
	r.one(&command.Configure{Limits: l})
	a, b := r.connect(nodeA, "a"), r.connect(nodeA, "b", window(1))
	r.subscribe(a, "$share/g/t:1")
	for i := range 3 {
		r.publish("t", 1, itoa(i))
	}
	r.subscribe(b, "$share/g/t:1")
	r.one(&command.Disconnect{Ref: a})
	equal(t, "b has a window of one", r.pull(b), []string{"0:1"})
	r.finish(b)
	r.finish(b)
	equal(t, "in order", r.pull(b), []string{"2:1"})
	a = r.connect(nodeA, "a")
	equal(t, "a", r.pull(a), nil)
}

func TestMarkedQoS2StaysWithItsMemberAndIsDroppedWithItsSession(t *testing.T) {
	// [MQTT-4.8.2-4], [MQTT-4.8.2-5]
	for _, ends := range []bool{false, true} {
		r := up(t)
		l := DefaultLimits()
		l.ReassignOnDisconnect = true
		r.one(&command.Configure{Limits: l})
		a := r.connect(nodeA, "a")
		r.one(sub(a, 7, command.Subscription{Filter: "$share/g/t", QoS: 2}))
		r.publish("t", 2, "sent")
		r.publish("t", 2, "not sent")
		r.one(&command.SendMark{Ref: a, Seqs: r.seqs(a)[:1]})
		b := r.connect(nodeA, "b")
		r.subscribe(b, "$share/g/t:2")
		r.one(&command.Disconnect{Ref: a})
		equal(t, "unsent goes on", r.pull(b), []string{"not sent:2"})
		if ends {
			r.one(&command.Kick{ClientID: "a", EndSession: true})
			equal(t, "dropped", r.pull(b), []string{"not sent:2"})
			if s := r.m.Stats(); s.StoredMessages != 1 {
				t.Fatalf("%+v", s)
			}
			continue
		}
		a = r.connect(nodeA, "a")
		equal(t, "resumed", r.pull(a), []string{"sent:2 marked #7"})
		r.finish(a)
		if s := r.m.Stats(); s.StoredMessages != 1 {
			t.Fatalf("%+v", s)
		}
	}
}

func TestAMemberOfADeadNodeGetsNothingFromTheMomentItIsDeclaredDead(t *testing.T) {
	r := up(t, nodeB)
	b, a := r.connect(nodeB, "b"), r.connect(nodeA, "a")
	r.subscribe(b, "$share/g/t:1")
	r.subscribe(a, "$share/g/t:1")
	r.do(nodeA, &command.NodeDown{ID: nodeB, Incarnation: 1}, &command.Publish{Message: msg("t", 1, "x")})
	equal(t, "a", r.pull(a), []string{"x:1"})
}

func TestAGroupWithoutMembersGivesItsBacklogUp(t *testing.T) {
	r := up(t)
	r.unchecked = true
	a := r.connect(nodeA, "a")
	r.subscribe(a, "$share/g/t:1")
	r.one(&command.Disconnect{Ref: a})
	for range 1000 {
		r.publish("t", 1, "x")
	}
	r.unchecked = false
	a = r.connect(nodeA, "a", window(1))
	if res := r.one(&command.Unsubscribe{Ref: a, Filters: []string{"$share/g/t"}}); res.Codes[0] != packet.Success {
		t.Fatalf("%v", res.Codes)
	}
	r.subscribe(a, "$share/g/t:1")
	if got := len(r.pull(a)); got != 1 {
		t.Fatalf("%d messages: the assigned one is completed, the past is not for the new subscription", got)
	}
	r.finish(a)
	r.tick(1)
	if s := r.m.Stats(); s.StoredMessages != 0 || s.Groups != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestAGroupKeepsItsLastMessages(t *testing.T) {
	r := up(t)
	l := DefaultLimits()
	l.MaxQueuedMessages = 3
	r.one(&command.Configure{Limits: l})
	a := r.connect(nodeA, "a")
	r.subscribe(a, "$share/g/t:1")
	r.one(&command.Disconnect{Ref: a})
	for i := range 5 {
		r.publish("t", 1, itoa(i))
	}
	a = r.connect(nodeA, "a")
	equal(t, "kept", r.pull(a), []string{"2:1", "3:1", "4:1"})
	if r.m.Stats().Dropped != 2 {
		t.Fatal("the dropped ones are not counted")
	}
}

func TestSharedSubscriptionsGetNoRetainedMessages(t *testing.T) {
	// P29
	r := up(t)
	r.retain("t", 1, "x")
	a := r.connect(nodeA, "a")
	r.subscribe(a, "$share/g/t:1")
	r.tick(1)
	equal(t, "queued", r.pull(a), nil)
}

func TestASharedAndAPlainSubscriptionGetACopyEach(t *testing.T) {
	// P28, and different share names and filters are different subscriptions
	r := up(t)
	a := r.connect(nodeA, "a")
	r.subscribe(a, "$share/g/t:1", "$share/h/t:1", "$share/g/+:1", "t:1")
	r.publish("t", 1, "x")
	equal(t, "queued", r.pull(a), []string{"x:1", "x:1", "x:1", "x:1"})
	if s := r.m.Stats(); s.StoredMessages != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestNoLocalOnASharedSubscriptionIsRefused(t *testing.T) {
	// [MQTT-3.8.3-4]
	r := up(t)
	a := r.connect(nodeA, "a")
	res := r.one(sub(a, 0, command.Subscription{Filter: "$share/g/t", QoS: 1, NoLocal: true}))
	if res.Codes[0] != packet.ProtocolError {
		t.Fatalf("%v", res.Codes)
	}
}

func TestRouteNamesTheMembersOfGroups(t *testing.T) {
	r := up(t, nodeB)
	a, b := r.connect(nodeA, "a"), r.connect(nodeB, "b")
	r.one(sub(a, 4, command.Subscription{Filter: "$share/g/t/+", QoS: 0}))
	r.subscribe(b, "$share/g/t/+:2", "$share/f/#:1")
	r.do(nodeB, &command.Disconnect{Ref: b})
	var route Route
	for range 2 { // the second time the lists are used again
		r.m.Route("t/x", &route)
		if len(route.Groups) != 2 || route.Groups[0].Share != "f" || route.Groups[1].Filter != "t/+" {
			t.Fatalf("%+v", route.Groups)
		}
		want := []Member{
			{Ref: a, Node: nodeA, Serial: 1, SubID: 4, Connected: true},
			{Ref: b, Node: nodeB, Serial: 2, QoS: 2},
		}
		if !slices.Equal(route.Groups[1].Members, want) {
			t.Fatalf("%+v", route.Groups[1].Members)
		}
	}
	r.m.Route("$t/x", &route)
	if len(route.Groups) != 0 {
		t.Fatalf("%+v", route.Groups) // [MQTT-4.7.2-1]
	}
}

func TestExpiredMessagesOfABacklogAreNotAssigned(t *testing.T) {
	r := up(t)
	a := r.connect(nodeA, "a")
	r.subscribe(a, "$share/g/t:1")
	r.one(&command.Disconnect{Ref: a})
	m := msg("t", 1, "old")
	m.HasExpiry, m.ExpirySeconds = true, 5
	r.one(&command.Publish{Message: m})
	r.publish("t", 1, "new")
	r.tick(5)
	a = r.connect(nodeA, "a")
	equal(t, "queued", r.pull(a), []string{"new:1"})
}
