package check

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOwnerRefusesTwoConnectionsThatAreBothAcknowledged(t *testing.T) {
	s := newStory()
	a := s.connect("c", "n1", false)
	s.publish(a, "t", "1", 1)
	b := s.connect("c", "n2", true)
	s.conn(Closed, a, 0x8e)
	s.publish(b, "t", "2", 1)
	s.expect(t, "owner", Valid, "")
	s.publish(a, "t", "3", 1)
	s.expect(t, "owner", Invalid, "two-owners")
}

func TestOwnerAllowsAnAckThatOverlapsTheTakeover(t *testing.T) {
	s := newStory()
	a := s.connect("c", "n1", false)
	p := s.sent(a, "t", "1", 1)
	b := s.begin(Event{Op: Connect, Client: "c", Node: "n2", Keep: true})
	s.end(b, OK)
	s.end(p, OK)
	s.expect(t, "owner", Valid, "")
}

func TestOwnerLetsAnUnansweredConnectTakeOverLater(t *testing.T) {
	s := newStory()
	s.begin(Event{Op: Connect, Client: "c", Node: "n2", Keep: true})
	a := s.connect("c", "n1", false)
	s.publish(a, "t", "1", 1)
	s.expect(t, "owner", Valid, "")
	// But it never gives the lock back to one that lost it.
	b := s.connect("c", "n2", true)
	s.conn(Closed, a, 0)
	s.publish(b, "t", "2", 1)
	s.subscribe(a, "x", 1)
	s.expect(t, "owner", Invalid, "two-owners")
}

func TestOwnerCountsTheConnectionThatCarriedTheAck(t *testing.T) {
	s := newStory()
	a := s.connect("c", "n1", false)
	p := s.sent(a, "t", "1", 1)
	b := s.connect("c", "n2", true)
	s.conn(Drop, a, 0)
	r := p
	r.Op, r.Conn, r.Node = Resend, b.Conn, "n2"
	s.note(r)
	s.end(p, OK, on(b))
	s.expect(t, "owner", Valid, "")
}

func TestOwnerDemandsThatOldConnectionsAreClosed(t *testing.T) {
	s := newStory()
	a := s.connect("c", "n1", false)
	b := s.connect("c", "n2", true)
	s.publish(b, "t", "1", 1)
	s.expect(t, "owner", Valid, "")
	s.wait(time.Minute)
	s.conn(Closed, a, 0)
	s.expect(t, "owner", Invalid, "still-open")
}

func TestSessionPresentIsTheTruth(t *testing.T) {
	s := newStory()
	s.connect("c", "n1", false)
	s.connect("c", "n2", true)
	s.expect(t, "session-present", Valid, "")
	s.connect("c", "n2", false)
	s.expect(t, "session-present", Invalid, "false-absent")

	s = newStory()
	s.connect("c", "n1", false)
	s.connect("c", "n1", true, clean)
	s.expect(t, "session-present", Invalid, "clean-present")

	s = newStory()
	s.connect("c", "n1", true)
	s.expect(t, "session-present", Invalid, "false-present")
}

func TestSessionPresentMayBeEitherAfterAnUnansweredConnect(t *testing.T) {
	for _, found := range []bool{false, true} {
		s := newStory()
		s.begin(Event{Op: Connect, Client: "c", Node: "n1", Keep: true})
		s.connect("c", "n2", found)
		s.connect("c", "n3", true)
		s.expect(t, "session-present", Valid, "")
	}
}

func TestSessionThatEndsWithItsConnectionIsNotDemanded(t *testing.T) {
	s := newStory()
	s.connect("c", "n1", false)
	s.connect("c", "n1", true)
	s.connect("c", "n1", false, transient)
	s.connect("c", "n2", false)
	s.expect(t, "session-present", Valid, "")
}

// willStory has a monitor, and a client with a will on n2.
func willStory(delay uint32) (s *story, monitor, c Event) {
	s = newStory()
	monitor = s.connect("monitor", "n1", false)
	s.subscribe(monitor, "will/#", 1)
	c = s.connect("c", "n2", false, func(e *Event) { e.Topic, e.Value, e.Delay = "will/c", "w1", delay })
	return s, monitor, c
}

func willOf(c Event) Event { return Event{Topic: c.Topic, Value: c.Value, QoS: 1} }

func TestWillFiresOnceWhenTheConnectionIsDropped(t *testing.T) {
	s, _, c := willStory(0)
	s.conn(Drop, c, 0)
	s.wait(time.Minute)
	s.note(Event{Op: Drained})
	s.expect(t, "wills", Invalid, "no-will")

	s, monitor, c := willStory(0)
	s.conn(Drop, c, 0)
	s.deliver(monitor, willOf(c))
	s.wait(time.Minute)
	s.note(Event{Op: Drained})
	s.expect(t, "wills", Valid, "")
	s.deliver(monitor, willOf(c), dup)
	s.expect(t, "wills", Valid, "")
	s.deliver(monitor, willOf(c))
	s.expect(t, "wills", Invalid, "two-wills")
}

func TestWillDoesNotFireAfterDisconnectNorBeforeTheEnd(t *testing.T) {
	s, monitor, c := willStory(0)
	s.conn(Disconnect, c, 0)
	s.deliver(monitor, willOf(c))
	s.expect(t, "wills", Invalid, "will-not-due")

	s, monitor, c = willStory(0)
	s.conn(Disconnect, c, 4)
	s.deliver(monitor, willOf(c))
	s.wait(time.Minute)
	s.note(Event{Op: Drained})
	s.expect(t, "wills", Valid, "")

	s, monitor, c = willStory(0)
	s.deliver(monitor, willOf(c))
	s.expect(t, "wills", Invalid, "will-not-due")

	s, monitor, c = willStory(0)
	s.deliver(monitor, willOf(c))
	s.wait(10 * time.Second)
	s.conn(Closed, c, 0)
	s.wait(time.Minute)
	s.note(Event{Op: Drained})
	s.expect(t, "wills", Invalid, "early-will")
}

func TestWillFiresWhenTheNodeDies(t *testing.T) {
	s, _, c := willStory(0)
	s.fault("n2", FaultCrash)
	s.conn(Closed, c, 0)
	s.wait(time.Minute)
	s.note(Event{Op: Drained})
	s.expect(t, "wills", Invalid, "no-will")

	s, monitor, c := willStory(0)
	s.fault("n2", FaultCrash)
	s.wait(15 * time.Second)
	s.deliver(monitor, willOf(c))
	s.fault("n2", FaultUp)
	s.wait(time.Minute)
	s.note(Event{Op: Drained})
	s.expect(t, "wills", Valid, "")
}

func TestWillIsNotLateWithoutFaults(t *testing.T) {
	s, monitor, c := willStory(5)
	s.conn(Drop, c, 0)
	s.wait(2 * time.Minute)
	s.deliver(monitor, willOf(c))
	s.expect(t, "wills", Invalid, "late-will")
}

func TestWillMayBeLostOrNotWhenTheNodeDiesAfterDisconnect(t *testing.T) {
	for _, fires := range []bool{false, true} {
		s, monitor, c := willStory(0)
		sure := s.connect("d", "n1", false, func(e *Event) { e.Topic, e.Value = "will/d", "w2" })
		s.conn(Disconnect, sure, 4)
		s.deliver(monitor, willOf(sure))
		s.conn(Disconnect, c, 0)
		s.fault("n2", FaultCrash)
		if fires {
			s.deliver(monitor, willOf(c))
		}
		s.wait(time.Minute)
		s.note(Event{Op: Drained})
		s.expect(t, "wills", Valid, "")
	}
}

func TestANodeWithoutAQuorumAcknowledgesNothing(t *testing.T) {
	s := newStory()
	c := s.connect("c", "n1", false)
	s.publish(c, "t", "1", 1)
	s.fault("n1", FaultNoQuorum)
	s.wait(5 * time.Second)
	p := s.sent(c, "t", "2", 1)
	s.expect(t, "refusal", Valid, "")
	s.end(p, OK)
	s.expect(t, "refusal", Invalid, "lie")
}

func TestANodeWithoutAQuorumRefusesAndClosesConnections(t *testing.T) {
	s := newStory()
	c := s.connect("c", "n1", false)
	s.publish(c, "t", "1", 1)
	s.fault("n1", FaultNoQuorum)
	s.wait(30 * time.Second)
	s.conn(Closed, c, 0x9c)
	s.wait(time.Second)
	s.fault("n1", FaultQuorum)
	s.expect(t, "refusal", Invalid, "kept")

	s = newStory()
	c = s.connect("c", "n1", false)
	s.publish(c, "t", "1", 1)
	s.fault("n1", FaultNoQuorum)
	s.wait(5 * time.Second)
	s.conn(Closed, c, 0x9c)
	d := s.begin(Event{Op: Connect, Client: "d", Node: "n1", Keep: true})
	s.wait(time.Second)
	s.end(d, Fail, func(e *Event) { e.Reason = 0x88 })
	s.wait(10 * time.Second)
	s.fault("n1", FaultQuorum)
	s.expect(t, "refusal", Valid, "")

	s.fault("n1", FaultNoQuorum)
	s.wait(5 * time.Second)
	s.begin(Event{Op: Connect, Client: "d", Node: "n1", Keep: true})
	s.wait(time.Minute)
	s.note(Event{Op: Drained})
	s.expect(t, "refusal", Invalid, "silent")
}

func TestAMajorityServesOn(t *testing.T) {
	s := newStory()
	c := s.connect("c", "n1", false)
	s.connect("d", "n2", false)
	s.connect("e", "n3", false)
	s.publish(c, "t", "1", 1)
	s.fault("n2", FaultCrash)
	p := s.sent(c, "t", "2", 1)
	s.wait(time.Minute)
	s.end(p, OK)
	s.expect(t, "refusal", Invalid, "unavailable")

	s = newStory()
	c = s.connect("c", "n1", false)
	s.connect("d", "n2", false)
	s.connect("e", "n3", false)
	s.publish(c, "t", "1", 1)
	s.fault("n2", FaultCrash)
	s.fault("n3", FaultCrash)
	p = s.sent(c, "t", "2", 1)
	s.wait(time.Minute)
	s.fault("n3", FaultUp)
	s.wait(5 * time.Second)
	s.end(p, OK)
	s.expect(t, "refusal", Valid, "")
}

func TestDigestsAreEqualAtEqualIndex(t *testing.T) {
	s := newStory()
	digest := func(node string, index uint64, value string) {
		s.note(Event{Op: Digest, Node: node, Seq: index, Value: value})
	}
	digest("n1", 7, "aa")
	s.expect(t, "digests", Undecided, "")
	digest("n2", 7, "aa")
	digest("n2", 8, "bb")
	s.expect(t, "digests", Valid, "")
	digest("n3", 8, "cc")
	s.expect(t, "digests", Invalid, "diverged")
}

func TestARunThatDoesNotDrainIsInvalid(t *testing.T) {
	s := newStory()
	s.note(Event{Op: Drained})
	s.expect(t, "drained", Valid, "")
	s.note(Event{Op: Drained, Client: "c", Value: "17 messages"})
	s.expect(t, "drained", Invalid, "not-drained")
}

func TestAHistoryThatMakesNoSenseIsInvalid(t *testing.T) {
	s := newStory()
	s.note(Event{Op: Drained})
	s.end(Event{Op: Publish, ID: 99}, OK)
	s.expect(t, "drained", Invalid, "bad-history")
}

func TestHistorySurvivesItsFile(t *testing.T) {
	h := NewHistory()
	h.Add(Event{Phase: Invoke, Op: Publish, ID: h.NextID(), Client: "c", Value: "x\n\"y", QoS: 2, Dup: true})
	h.Add(Event{Phase: Note, Op: Drained})
	var buf bytes.Buffer
	if err := Write(&buf, h.Events()); err != nil {
		t.Fatal(err)
	}
	got, err := Parse(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(h.Events(), got); diff != "" {
		t.Fatal(diff)
	}
	if got[0].At >= got[1].At {
		t.Fatal("two events have the same time")
	}
	if _, err := Parse(strings.NewReader(`{"op":"publish","colour":1}`)); err == nil {
		t.Fatal("an unknown field was accepted")
	}
}
