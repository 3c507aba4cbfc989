package check

import "testing"

// line starts a story with a subscriber on n1 and a publisher on n2.
func line(qos byte) (s *story, sub, pub Event) {
	s = newStory()
	sub = s.connect("sub", "n1", false)
	s.subscribe(sub, "a/#", qos)
	pub = s.connect("pub", "n2", false)
	return s, sub, pub
}

func TestQueueAcceptsWhatWasAcknowledgedAndDelivered(t *testing.T) {
	s, sub, pub := line(1)
	for _, v := range []string{"1", "2", "3"} {
		s.deliver(sub, s.publish(pub, "a/b", v, 1))
	}
	s.expect(t, "queue", Valid, "")
	s.expect(t, "order", Valid, "")
	s.expect(t, "visible", Valid, "")
}

func TestQueueSaysWhereMessagesWereLost(t *testing.T) {
	f := func(delivered string, kind string) {
		t.Helper()
		s, sub, pub := line(1)
		for _, v := range "123" {
			p := s.publish(pub, "a/b", string(v), 1)
			for _, d := range delivered {
				if d == v {
					s.deliver(sub, p)
				}
			}
		}
		s.expect(t, "queue", Invalid, kind)
		s.expect(t, "visible", Invalid, "missed")
	}
	f("23", "lost-prefix")
	f("13", "lost-middle")
	f("12", "lost-postfix")
	f("", "lost-postfix")
}

func TestQueueForgivesWhatWasNotAcknowledged(t *testing.T) {
	s, sub, pub := line(1)
	s.deliver(sub, s.publish(pub, "a/b", "1", 1))
	s.sent(pub, "a/b", "2", 1)
	s.end(s.sent(pub, "a/b", "3", 1), Unknown)
	s.end(s.sent(pub, "a/b", "4", 1), Fail)
	s.expect(t, "queue", Valid, "")
}

func TestQueueRefusesWhatNobodyPublishedAndWhatWasRefused(t *testing.T) {
	s, sub, pub := line(1)
	p := s.publish(pub, "a/b", "1", 1)
	s.deliver(sub, p)
	s.deliver(sub, p, func(e *Event) { e.Value = "other" })
	s.expect(t, "queue", Invalid, "unexpected")

	s, sub, pub = line(1)
	p = s.publish(pub, "a/b", "1", 1)
	s.deliver(sub, p, func(e *Event) { e.Topic = "a/c" })
	s.expect(t, "queue", Invalid, "unexpected")

	s, sub, pub = line(1)
	s.deliver(sub, s.publish(pub, "a/b", "1", 1))
	p = s.sent(pub, "a/b", "2", 1)
	s.end(p, Fail)
	s.deliver(sub, p)
	s.expect(t, "queue", Invalid, "unexpected")
}

func TestQueueDemandsDUPOnRedelivery(t *testing.T) {
	s, sub, pub := line(1)
	p := s.publish(pub, "a/b", "1", 1)
	s.deliver(sub, p)
	s.deliver(sub, p, dup)
	s.expect(t, "queue", Valid, "")
	s.deliver(sub, p)
	s.expect(t, "queue", Invalid, "dup-no-flag")
}

func TestQueueAllowsOneUnmarkedDeliveryForEachAttempt(t *testing.T) {
	s, sub, pub := line(1)
	p := s.sent(pub, "a/b", "1", 1)
	pub2 := s.connect("pub", "n3", true)
	p2 := p
	p2.Phase, p2.Op, p2.Conn = Note, Resend, pub2.Conn
	s.note(p2)
	s.end(p, OK, on(pub2))
	s.deliver(sub, p)
	s.deliver(sub, p)
	s.expect(t, "queue", Valid, "")
	s.deliver(sub, p)
	s.expect(t, "queue", Invalid, "dup-no-flag")
}

func TestRetainedCopiesAreNotRedeliveries(t *testing.T) {
	s, sub, pub := line(1)
	p := s.publish(pub, "a/b", "1", 1)
	s.deliver(sub, p)
	s.deliver(sub, p, func(e *Event) { e.Retain = true })
	s.expect(t, "queue", Valid, "")
}

func TestAnEmptyRunProvesNothing(t *testing.T) {
	r := All(nil, Default())
	if r.Verdict() != Undecided {
		t.Fatalf("verdict %v:\n%v", r.Verdict(), r)
	}
	s, _, _ := line(1)
	s.expect(t, "queue", Undecided, "")
	s.expect(t, "order", Undecided, "")
	s.expect(t, "exactly-once", Undecided, "")
	s.expect(t, "visible", Undecided, "")
	s.expect(t, "retained", Undecided, "")
	s.expect(t, "wills", Undecided, "")
	s.expect(t, "session-present", Undecided, "")
	s.expect(t, "drained", Undecided, "")
}

func TestOrderIsThatOfFirstDeliveries(t *testing.T) {
	s, sub, pub := line(1)
	p1, p2, p3 := s.publish(pub, "a/b", "1", 1), s.publish(pub, "a/b", "2", 1), s.publish(pub, "a/b", "3", 1)
	s.deliver(sub, p1)
	s.deliver(sub, p2)
	s.deliver(sub, p1, dup)
	s.deliver(sub, p2, dup)
	s.deliver(sub, p3)
	s.expect(t, "order", Valid, "")

	s, sub, pub = line(1)
	p1, p2 = s.publish(pub, "a/b", "1", 1), s.publish(pub, "a/b", "2", 1)
	s.deliver(sub, p2)
	s.deliver(sub, p1)
	s.expect(t, "order", Invalid, "reorder")
}

func TestOrderIsNotComparedAcrossTopicsPublishersAndQoS(t *testing.T) {
	s, sub, pub := line(2)
	other := s.connect("pub2", "n3", false)
	ps := []Event{
		s.publish(pub, "a/1", "1", 1), s.publish(pub, "a/2", "2", 1),
		s.publish(other, "a/2", "3", 1), s.publish(pub, "a/2", "4", 2),
	}
	last := s.publish(pub, "a/2", "5", 2)
	for _, i := range []int{3, 2, 1, 0} {
		s.deliver(sub, ps[i])
	}
	s.deliver(sub, last)
	s.expect(t, "order", Valid, "")
}

func TestQoS2IsDeliveredExactlyOnce(t *testing.T) {
	s, sub, pub := line(2)
	p := s.publish(pub, "a/b", "1", 2)
	s.expect(t, "exactly-once", Invalid, "lost")
	s.deliver(sub, p)
	s.expect(t, "exactly-once", Valid, "")
	s.deliver(sub, p, dup)
	s.expect(t, "exactly-once", Invalid, "twice")
}

func TestQoS2NotAcknowledgedComesAtMostOnce(t *testing.T) {
	s, sub, pub := line(2)
	s.deliver(sub, s.publish(pub, "a/b", "1", 2))
	p := s.sent(pub, "a/b", "2", 2)
	s.expect(t, "exactly-once", Valid, "")
	s.deliver(sub, p)
	s.expect(t, "exactly-once", Valid, "")
	s.deliver(sub, p)
	s.expect(t, "exactly-once", Invalid, "twice")
}

func TestVisibleHoldsForTransientSessionsWhileTheyLive(t *testing.T) {
	s := newStory()
	sub := s.connect("sub", "n1", false, transient)
	s.subscribe(sub, "a/#", 1)
	pub := s.connect("pub", "n2", false)
	s.deliver(sub, s.publish(pub, "a/b", "0", 1))
	s.publish(pub, "a/b", "1", 1)
	s.expect(t, "visible", Invalid, "missed")
	s.conn(Closed, sub, 0)
	s.expect(t, "visible", Undecided, "") // it did not live until the end: nothing was owed
}

func TestVisibleRefusesThePastAndWhatComesAfterUnsuback(t *testing.T) {
	s := newStory()
	pub := s.connect("pub", "n2", false)
	before := s.publish(pub, "a/b", "1", 1)
	sub := s.connect("sub", "n1", false)
	s.subscribe(sub, "a/#", 1)
	s.deliver(sub, s.publish(pub, "a/b", "2", 1))
	s.expect(t, "visible", Valid, "")
	s.deliver(sub, before)
	s.expect(t, "visible", Invalid, "from-the-past")

	s, sub, pub = line(1)
	s.subscribe(sub, "b", 1)
	s.deliver(sub, s.publish(pub, "b", "0", 1))
	u := s.begin(Event{Op: Unsubscribe, Client: "sub", Node: "n1", Conn: sub.Conn, Topic: "a/#"})
	during := s.publish(pub, "a/b", "1", 1)
	s.end(u, OK)
	s.deliver(sub, during)
	s.expect(t, "visible", Valid, "")
	s.deliver(sub, s.publish(pub, "a/b", "2", 1))
	s.expect(t, "visible", Invalid, "after-unsuback")

	s, sub, pub = line(1)
	p := s.publish(pub, "a/b", "1", 1)
	s.deliver(sub, p)
	s.deliver(sub, s.publish(pub, "z", "2", 1))
	s.expect(t, "visible", Invalid, "not-subscribed")
}

func TestCleanStartEndsWhatIsOwed(t *testing.T) {
	s, sub, pub := line(1)
	s.deliver(sub, s.publish(pub, "a/b", "0", 1))
	s.publish(pub, "a/b", "1", 1)
	s.connect("sub", "n1", false, clean)
	s.expect(t, "queue", Undecided, "")
}

func TestSharedGroupGetsEachMessageOnce(t *testing.T) {
	s := newStory()
	a, b := s.connect("a", "n1", false), s.connect("b", "n2", false)
	s.subscribe(a, "$share/g/t/#", 1)
	s.subscribe(b, "$share/g/t/#", 1)
	pub := s.connect("pub", "n3", false)
	p1, p2 := s.publish(pub, "t/1", "1", 1), s.publish(pub, "t/1", "2", 1)
	s.deliver(a, p1)
	s.expect(t, "shared", Invalid, "lost")
	s.deliver(b, p2)
	s.expect(t, "shared", Valid, "")
	s.deliver(b, p1)
	s.expect(t, "shared", Invalid, "several")
}
