package fsm

import (
	"strconv"
	"strings"
	"testing"

	"quorate/fsm/command"
)

func itoa(i int) string { return strconv.Itoa(i) }

func will(topic, payload string, delay uint32) func(*command.Connect) {
	return func(c *command.Connect) {
		c.Will = &command.Will{Message: msg(topic, 1, payload), DelaySeconds: delay}
	}
}

func expiry(seconds uint32) func(*command.Connect) {
	return func(c *command.Connect) { c.ExpirySeconds = seconds }
}

func clean(c *command.Connect) { c.CleanStart = true }

func TestTheWillIsSentUnlessTheClientSaidGoodbye(t *testing.T) {
	// [MQTT-3.1.2-8], [MQTT-3.14.4-3], P05
	f := func(send bool, want []string) {
		t.Helper()
		r := up(t)
		ref := r.connect(nodeA, "c", will("w", "x", 0))
		r.heard("")
		r.one(&command.Disconnect{Ref: ref, SendWill: send})
		r.tick(1000)
		equal(t, "published", r.heard("published"), want)
		if r.m.Stats().StoredMessages != 0 {
			t.Fatal("the will is still stored")
		}
	}
	f(true, []string{"published w=x"})
	f(false, nil)
}

func TestTheWillWaitsForItsDelayOrTheEndOfTheSession(t *testing.T) {
	// [MQTT-3.1.3-9], P03
	f := func(delay, expirySeconds uint32, want uint64) {
		t.Helper()
		r := up(t)
		ref := r.connect(nodeA, "c", will("w", "x", delay), expiry(expirySeconds))
		r.heard("")
		r.one(&command.Disconnect{Ref: ref, SendWill: true})
		for s := range uint64(200) {
			if got := r.heard("published"); len(got) > 0 {
				if s != want {
					t.Fatalf("delay %d, expiry %d: sent after %d s, want %d", delay, expirySeconds, s, want)
				}
				r.tick(1000)
				if got := r.heard("published"); got != nil {
					t.Fatal("sent twice")
				}
				return
			}
			r.tick(1)
		}
		t.Fatal("never sent")
	}
	f(0, 100, 0)
	f(10, 100, 10)
	f(100, 10, 10)
	f(10, 10, 10)
	f(100, 0, 0)
	f(10, command.ExpiryNever, 10)
}

func TestTheWillAtATakeOver(t *testing.T) {
	// [MQTT-3.1.4-3], [MQTT-3.1.3-9], P04
	f := func(what string, delay, expirySeconds uint32, cleanStart, want bool) {
		t.Helper()
		r := up(t, nodeB)
		r.connect(nodeA, "c", will("w", "x", delay), expiry(expirySeconds))
		r.heard("")
		change := []func(*command.Connect){expiry(100)}
		if cleanStart {
			change = append(change, clean)
		}
		r.connect(nodeB, "c", change...)
		r.tick(1000)
		if got := len(r.heard("published")) == 1; got != want {
			t.Fatalf("%s: will sent %t", what, got)
		}
	}
	f("goes on, delayed", 10, 100, false, false)
	f("goes on, no delay", 0, 100, false, true)
	f("expiry 0 ends it", 10, 0, false, true)
	f("clean start ends it", 10, 100, true, true)
}

func TestAReconnectWithinTheDelayTakesTheWillBack(t *testing.T) {
	f := func(cleanStart bool, wait uint64, want int) {
		t.Helper()
		r := up(t)
		ref := r.connect(nodeA, "c", will("w", "x", 10))
		r.heard("")
		r.one(&command.Disconnect{Ref: ref, SendWill: true})
		r.stamp += wait * 1000 // without a Tick
		change := func(c *command.Connect) { c.CleanStart = cleanStart }
		r.connect(nodeA, "c", change)
		r.tick(100)
		if got := len(r.heard("published")); got != want {
			t.Fatalf("clean %t after %d s: %d wills", cleanStart, wait, got)
		}
	}
	f(false, 9, 0)
	f(false, 10, 1)
	f(true, 9, 1)
}

// A CONNECT that was refused, or whose client was gone before the answer, has changed nothing for the will of the
// connection before it: whoever waits for it gets it, and at its time (P6). Its own will is never sent.
func TestAWillOutlivesAConnectionThatTheClientNeverHeardOf(t *testing.T) {
	f := func(what string, end func(r *rig, ref command.Ref), at uint64, want string) {
		t.Helper()
		r := up(t, nodeB)
		ref := r.connect(nodeA, "c", will("w", "first", 10))
		r.heard("")
		r.one(&command.Disconnect{Ref: ref, SendWill: true})
		r.tick(5)
		late := r.connect(nodeB, "c", will("w", "late", 10))
		r.tick(1)
		end(r, late)
		r.heard("")
		for range at {
			r.tick(1)
		}
		got := ""
		for _, line := range r.heard("published") {
			got += line + "\n"
		}
		if strings.Contains(got, "first") != (want == "first") || strings.Contains(got, "late") != (want == "late") {
			t.Errorf("%s: after %d s: %q, want %q", what, at, got, want)
		}
	}
	abandon := func(r *rig, ref command.Ref) { r.do(nodeB, &command.Disconnect{Ref: ref, Abandoned: true}) }
	f("abandoned", abandon, 3, "")
	f("abandoned", abandon, 5, "first")
	f("abandoned with a will", func(r *rig, ref command.Ref) {
		r.do(nodeB, &command.Disconnect{Ref: ref, SendWill: true, Abandoned: true})
	}, 30, "first")
	f("accepted", func(r *rig, ref command.Ref) { r.do(nodeB, &command.Disconnect{Ref: ref}) }, 30, "")
	f("accepted and broken", func(r *rig, ref command.Ref) {
		r.do(nodeB, &command.Disconnect{Ref: ref, SendWill: true})
	}, 30, "late")
	f("abandoned twice", func(r *rig, ref command.Ref) {
		abandon(r, ref)
		abandon(r, r.connect(nodeB, "c", will("w", "late", 10)))
	}, 5, "first")
}

func TestAWillIsRetainedQueuedAndExpiresFromItsPublication(t *testing.T) {
	// P06
	r := up(t)
	sub := r.connect(nodeA, "s")
	r.subscribe(sub, "w/#:1")
	ref := r.connect(nodeA, "c", func(c *command.Connect) {
		c.Will = &command.Will{Message: command.Message{
			Topic: "w/c", QoS: 2, Retain: true, HasExpiry: true, ExpirySeconds: 50, Forwarded: []byte{1, 2}, Payload: []byte("bye"),
		}, DelaySeconds: 100}
	})
	r.one(&command.Disconnect{Ref: ref, SendWill: true})
	r.tick(100)
	equal(t, "queued", r.pull(sub), []string{"bye:1"})
	var got []string
	r.m.Retained("#", "", 10, func(m *Message) bool {
		got = append(got, m.Topic+" "+string(m.Forwarded)+" "+itoa(int(m.Deadline-r.m.Now())))
		return true
	})
	equal(t, "retained", got, []string{"w/c \x01\x02 50000"})
	r.tick(50)
	if s := r.m.Stats(); s.Retained != 0 || s.StoredBytes != 0 {
		t.Fatalf("%+v", s)
	}
	equal(t, "queued after expiry", r.pull(sub), nil)
}

func TestDelayedMessagesArePublishedInOrderWhenTheyAreDue(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "s")
	r.subscribe(ref, "d:1")
	for i, delay := range []uint32{5, 3, 5, 4} {
		p := &command.Publish{DelaySeconds: delay, Message: msg("d", 1, itoa(i))}
		if res := r.one(p); res.Seq != 0 {
			t.Fatal("a delayed message has a sequence")
		}
	}
	r.tick(2)
	equal(t, "early", r.pull(ref), nil)
	r.tick(3)
	equal(t, "due", r.pull(ref), []string{"1:1", "3:1", "0:1", "2:1"})
}

func TestADelayedQoS2MessageHoldsItsIdentifierAtOnce(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c")
	p := &command.Publish{Ref: ref, PacketID: 3, DelaySeconds: 5, Message: msg("d", 2, "x")}
	r.one(p)
	if res := r.one(p); !res.Duplicate || r.m.Stats().Delayed != 1 {
		t.Fatalf("%+v", res)
	}
}
