package fsm

import (
	"testing"

	"quorate/fsm/command"
	"quorate/protocol/packet"
)

// A Connect that comes late, because its node waited for a leader, takes nothing from a connection made meanwhile.
func TestAConnectionThatTheProposerDidNotKnowKeepsTheSession(t *testing.T) {
	r := up(t, nodeB)
	r.connect(nodeB, "c")
	before := r.m.NextEpoch()
	second := r.connect(nodeB, "c")
	late := r.one(&command.Connect{ClientID: "c", Identity: "u", Version: 5, Before: before})
	if !late.Newer || !late.Code.Failed() {
		t.Errorf("late connect: %+v", late)
	}
	if ref, node, connected := r.m.Owner("c"); ref != second || node != nodeB || !connected {
		t.Errorf("owner is %v on %s, want %v", ref, node, second)
	}
	again := r.one(&command.Connect{ClientID: "c", Identity: "u", Version: 5, Before: r.m.NextEpoch()})
	if again.Newer || again.Ref == second {
		t.Errorf("connect that knows: %+v", again)
	}
}

func TestSessionPresentIsDecidedByTheLog(t *testing.T) {
	// P7, [MQTT-3.1.2-4..6], [MQTT-3.2.2-2]
	r := up(t)
	c := &command.Connect{ClientID: "c", Identity: "u", Version: 5, ExpirySeconds: 100}
	first := r.one(c)
	if first.Present || !first.Persistent || first.ExpirySeconds != 100 {
		t.Fatalf("first connect: %+v", first)
	}
	r.one(&command.Disconnect{Ref: first.Ref})
	second := r.one(c)
	if !second.Present || second.Serial != first.Serial || second.Ref.Epoch == first.Ref.Epoch {
		t.Fatalf("second connect: %+v after %+v", second, first)
	}
	clean := *c
	clean.CleanStart = true
	third := r.one(&clean)
	if third.Present || third.Serial == first.Serial {
		t.Fatalf("clean start: %+v", third)
	}
}

func TestASecondConnectionEndsTheEpochOfTheFirst(t *testing.T) {
	// P4, [MQTT-3.1.4-3]
	r := up(t, nodeB)
	old := r.connect(nodeA, "c")
	r.heard("")
	now := r.connect(nodeB, "c")
	equal(t, "calls", r.heard("ended"), []string{"ended 0/1 0x8e"})
	if now.Slot != old.Slot || now.Epoch == old.Epoch {
		t.Fatalf("ref %v after %v", now, old)
	}
	for _, c := range []command.Command{
		&command.Publish{Ref: old, Message: msg("t", 1, "x")},
		&command.Publish{Ref: old, PacketID: 1, Message: msg("t", 2, "x")},
		&command.Release{Ref: old, PacketID: 1},
		&command.Subscribe{Ref: old, Subscriptions: []command.Subscription{{Filter: "t", QoS: 1}}},
		&command.Unsubscribe{Ref: old, Filters: []string{"t"}},
		&command.Disconnect{Ref: old},
		&command.SendMark{Ref: old, Seqs: []uint64{1}},
		&command.Progress{Items: []command.ProgressItem{{Ref: old, Cursor: 1}}},
	} {
		if res := r.one(c); !res.Stale {
			t.Fatalf("%T of an ended epoch: %+v", c, res)
		}
	}
	if got := r.heard("published"); got != nil {
		t.Fatalf("a stale publish was published: %v", got)
	}
}

func TestAnotherIdentityIsRefusedAndChangesNothing(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c")
	_, before := r.m.Digest()
	res := r.one(&command.Connect{ClientID: "c", Identity: "mallory", Version: 5, CleanStart: true})
	if _, after := r.m.Digest(); res.Code != packet.NotAuthorized || after != before {
		t.Fatalf("result %+v, digest changed %t", res, after != before)
	}
	if _, ok := r.m.Session(ref); !ok {
		t.Fatal("the owner lost its session")
	}
}

func TestATransientSessionEndsWithItsConnection(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c", transient)
	r.one(&command.Disconnect{Ref: ref})
	if _, _, connected := r.m.Owner("c"); connected || r.m.Stats().Sessions != 0 {
		t.Fatal("the session is still there")
	}
}

func TestASessionExpiresItsIntervalAfterItsConnectionAndNotBefore(t *testing.T) {
	// [MQTT-3.1.2-23], P02
	r := up(t)
	ref := r.connect(nodeA, "c", func(c *command.Connect) { c.ExpirySeconds = 60 })
	r.tick(1000)
	r.one(&command.Disconnect{Ref: ref})
	r.tick(59)
	if r.m.Stats().Sessions != 1 {
		t.Fatal("expired early")
	}
	r.tick(1)
	if r.m.Stats().Sessions != 0 {
		t.Fatal("did not expire")
	}
}

func TestASessionPastItsExpiryIsNotPresentAlsoBeforeATick(t *testing.T) {
	r := up(t)
	c := &command.Connect{ClientID: "c", Identity: "u", Version: 5, ExpirySeconds: 60}
	r.one(&command.Disconnect{Ref: r.one(c).Ref})
	r.stamp += 60_000
	if res := r.one(c); res.Present {
		t.Fatal("an expired session was resumed")
	}
	r.one(&command.Disconnect{Ref: r.one(c).Ref})
	r.stamp += 60_000
	other := *c
	other.Identity = "v"
	if res := r.one(&other); res.Code != packet.Success || res.Present {
		t.Fatalf("another identity after the session's end: %+v", res)
	}
}

func TestDisconnectChangesTheSessionExpiryInterval(t *testing.T) {
	// P01
	f := func(connect, disconnect uint32, wait uint64, want int, code packet.ReasonCode) {
		t.Helper()
		r := up(t)
		ref := r.connect(nodeA, "c", func(c *command.Connect) {
			c.ExpirySeconds = connect
			c.Will = &command.Will{Message: msg("will", 0, "w")}
		})
		res := r.one(&command.Disconnect{Ref: ref, HasExpiry: true, ExpirySeconds: disconnect})
		wills := len(r.heard("published"))
		r.tick(wait)
		if got := r.m.Stats().Sessions; got != want || res.Code != code {
			t.Fatalf("%d then %d after %d s: %d sessions, code %v", connect, disconnect, wait, got, res.Code)
		}
		if (code != packet.Success) != (wills == 1) {
			t.Fatalf("%d wills with code %v", wills, code)
		}
	}
	f(60, 10, 9, 1, packet.Success)
	f(60, 10, 10, 0, packet.Success)
	f(60, 100, 99, 1, packet.Success)
	f(60, 0, 0, 0, packet.Success)
	f(0, 0, 0, 0, packet.Success)
	f(0, 10, 0, 0, packet.ProtocolError) // [MQTT-3.14.2-2]: the will is sent and the session ends
}

func TestTheSessionExpiryIntervalIsCapped(t *testing.T) {
	r := up(t)
	l := DefaultLimits()
	l.MaxSessionExpirySeconds = 30
	r.one(&command.Configure{Limits: l})
	res := r.one(&command.Connect{ClientID: "c", Version: 4, ExpirySeconds: command.ExpiryNever})
	if res.ExpirySeconds != 30 {
		t.Fatalf("expiry %d", res.ExpirySeconds)
	}
	r.one(&command.Disconnect{Ref: res.Ref})
	r.tick(30)
	if r.m.Stats().Sessions != 0 {
		t.Fatal("the session outlived the cap")
	}
}

func TestNodeDownEndsConnectionsByAndByAndTheirWillsAreSent(t *testing.T) {
	// P6
	r := up(t, nodeB)
	r.unchecked = true
	const n = 2500
	for i := range n {
		r.connect(nodeB, "c"+itoa(i), func(c *command.Connect) {
			c.ExpirySeconds = 100
			c.Will = &command.Will{Message: msg("will/"+itoa(i), 1, "w")}
		})
	}
	r.unchecked = false
	r.do(nodeA, &command.NodeDown{ID: nodeB, Incarnation: 1})
	r.heard("")
	if _, _, connected := r.m.Owner("c0"); connected {
		t.Fatal("connected to a dead node")
	}
	ticks, wills := 0, 0
	for at, ok := r.m.NextDeadline(); ok && at <= r.m.Now(); at, ok = r.m.NextDeadline() {
		r.do(nodeA, &command.Tick{})
		got := len(r.heard("published"))
		if got > tickUnits {
			t.Fatalf("%d wills in one tick", got)
		}
		wills += got
		ticks++
	}
	if wills != n || ticks < 3 {
		t.Fatalf("%d wills in %d ticks", wills, ticks)
	}
	r.tick(100)
	if s := r.m.Stats(); s.Sessions != 0 {
		t.Fatalf("%d sessions left", s.Sessions)
	}
}

func TestAConnectToASessionOfADeadNodeEndsTheEarlierEpoch(t *testing.T) {
	r := up(t, nodeB)
	old := r.connect(nodeB, "c")
	r.do(nodeA, &command.NodeDown{ID: nodeB, Incarnation: 1})
	res := r.one(&command.Connect{ClientID: "c", Identity: "u", Version: 5, ExpirySeconds: 5})
	if !res.Present || res.Ref.Epoch == old.Epoch {
		t.Fatalf("%+v", res)
	}
	r.tick(1)
	if _, ok := r.m.Session(res.Ref); !ok {
		t.Fatal("the sweep of the dead node took the new connection")
	}
}

func TestANewIncarnationEndsTheOneBefore(t *testing.T) {
	r := up(t, nodeB)
	r.connect(nodeB, "c", transient)
	r.do(nodeB, &command.Routes{Add: []string{"a/b"}})
	r.start(nodeB)
	var route Route
	r.m.Route("a/b", &route)
	if len(route.Peers) != 0 {
		t.Fatalf("a new incarnation starts with routes %v", route.Peers)
	}
	r.tick(1)
	if s := r.m.Stats(); s.Sessions != 0 || s.Routes != 0 || s.Filters != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestAStaleNodeDownIsIgnored(t *testing.T) {
	r := up(t, nodeB)
	r.start(nodeB)
	if res := r.one(&command.NodeDown{ID: nodeB, Incarnation: 1}); res.Existed[0] {
		t.Fatal("took down the new incarnation")
	}
	if n, _ := r.m.Node(nodeB); !n.Up {
		t.Fatal("node is down")
	}
}

func TestKickEndsTheConnectionOrTheSession(t *testing.T) {
	r := up(t)
	r.connect(nodeA, "c", func(c *command.Connect) { c.Will = &command.Will{Message: msg("w", 0, "x")} })
	r.heard("")
	res := r.one(&command.Kick{ClientID: "c", Reason: byte(packet.AdministrativeAction)})
	if !res.Existed[0] || r.m.Stats().Sessions != 1 {
		t.Fatalf("%+v", res)
	}
	equal(t, "calls", r.calls, []string{"ended 0/1 0x98", "published w=x", "applied 1/3 1"})
	r.one(&command.Kick{ClientID: "c", EndSession: true})
	if r.m.Stats().Sessions != 0 {
		t.Fatal("session not ended")
	}
	if res := r.one(&command.Kick{ClientID: "c"}); res.Existed[0] {
		t.Fatal("kicked nobody")
	}
}

func TestInboundQoS2IsPublishedOncePerIdentifier(t *testing.T) {
	// P3, [MQTT-4.3.3-10]
	r := up(t)
	ref := r.connect(nodeA, "c")
	p := &command.Publish{Ref: ref, PacketID: 7, Message: msg("t", 2, "x")}
	if res := r.one(p); res.Duplicate {
		t.Fatal("first is a duplicate")
	}
	if res := r.one(p); !res.Duplicate || len(r.heard("published")) != 1 {
		t.Fatal("published twice")
	}
	ref = r.connect(nodeA, "c") // a new connection of the same session
	p.Ref = ref
	if res := r.one(p); !res.Duplicate {
		t.Fatal("the identifier was forgotten with the connection")
	}
	state, _ := r.m.Session(ref)
	equal(t, "in2", state.In2, []uint16{7})
	if res := r.one(&command.Release{Ref: ref, PacketID: 7}); res.Code != packet.Success {
		t.Fatalf("release: %v", res.Code)
	}
	if res := r.one(&command.Release{Ref: ref, PacketID: 7}); res.Code != packet.PacketIdentifierNotFound {
		t.Fatalf("second release: %v", res.Code)
	}
	if res := r.one(p); res.Duplicate {
		t.Fatal("a released identifier is held")
	}
}
