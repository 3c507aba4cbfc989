package check

import (
	"slices"
	"time"
)

// willTimes says when a will may come.
type willTimes struct {
	within   time.Duration // after the end of its connection and its delay: failure detection and slack
	doubt    time.Duration // a DISCONNECT 0x00 this long before a fault of its node may be lost: it has no ack
	inFlight time.Duration // what ended a connection may reach its client this much later than the will its monitor
}

// wills is P6: a will fires exactly once when its connection ends other than
// by DISCONNECT 0x00, also when its node dies; not before, not twice.
func wills(x *index, times willTimes) *Result {
	r := newResult("wills", "P6")
	r.count("due", 0)
	r.count("not-due", 0)
	for client, subs := range x.subsOf {
		got := map[string][]Event{} // by value
		for _, d := range x.deliveries[client] {
			if x.wills[d.Value] != nil {
				got[d.Value] = append(got[d.Value], d)
			}
		}
		for _, c := range x.connOrder {
			if c.Value != "" && slices.ContainsFunc(subs, func(s *subscription) bool {
				return s.persistent && s.held() && s.end < c.At && x.match(s.Topic, c.Topic)
			}) {
				x.will(r, client, c, got[c.Value], times)
			}
		}
	}
	r.need("due", 1)
	return r
}

// will checks what one monitor got of one will.
func (x *index) will(r *Result, monitor string, c *connection, got []Event, times willTimes) {
	least, most := x.willCount(c, times)
	switch {
	case least == 1:
		r.count("due", 1)
	case most == 0:
		r.count("not-due", 1)
	}
	fresh := 0
	for _, d := range got {
		if !d.Dup {
			fresh++
		}
	}
	begin := x.willEnd(c)
	switch {
	case len(got) == 0 && least == 1:
		r.problem("no-will", "%s never got the will %q of %s, whose connection to %s ended at %v", monitor, c.Value, c.Client, c.Node, c.closed)
	case len(got) > 0 && most == 0:
		r.problem("will-not-due", "%s got the will %q of %s at %v, which was not due", monitor, c.Value, c.Client, got[0].At)
	case fresh > 1:
		r.problem("two-wills", "%s got the will %q of %s %d times with DUP=0", monitor, c.Value, c.Client, fresh)
	case len(got) > 0 && got[0].At+times.inFlight < begin:
		r.problem("early-will", "%s got the will %q at %v, before the end of the connection at %v", monitor, c.Value, got[0].At, begin)
	}
	due := time.Duration(c.Delay) * time.Second
	if len(got) > 0 && least == 1 && begin != never && x.willPrompt(c, begin) && got[0].At > begin+due+times.within {
		r.problem("late-will", "%s got the will %q at %v, %v after the end of the connection", monitor, c.Value, got[0].At, got[0].At-begin)
	}
}

// willCount returns how often the will must and may fire.
func (x *index) willCount(c *connection, times willTimes) (least, most int) {
	if !c.maybeOwner() {
		return 0, 0
	}
	if c.phase != OK {
		return 0, 1
	}
	end := x.willEnd(c)
	if end == never {
		return 0, 0
	}
	if c.disconnected && c.disconnect == 0 {
		if x.disconnectDoubted(c, times) {
			return 0, 1
		}
		return 0, 0
	}
	if c.Delay > 0 && c.next < never {
		return 0, 1 // resumed before or after the delay: the log decides
	}
	if x.end < end+time.Duration(c.Delay)*time.Second+times.within {
		return 0, 1 // the run ended too early to demand it
	}
	return 1, 1
}

// disconnectDoubted reports whether a DISCONNECT may have been lost with its
// node, or may have come after a take-over: it has no acknowledgement, and goes
// another way than a CONNECT to another node.
func (x *index) disconnectDoubted(c *connection, times willTimes) bool {
	switch {
	case x.faulty(c.Node, "", c.closed-times.inFlight, c.closed+times.doubt):
		return true
	case c.next < c.closed+times.inFlight:
		return true
	case c.next < c.closed+times.doubt && x.troubled(c.closed-times.doubt, c.next):
		return true
	}
	for _, o := range x.connOrder {
		// An unanswered CONNECT may take the session over at any time.
		if o.Client == c.Client && o != c && o.phase != OK && o.maybeOwner() && o.At < c.closed && c.closed < o.At+2*times.doubt {
			return true
		}
	}
	return false
}

// willEnd is the earliest time at which the connection may have ended: seen
// by its client, by a later CONNECT, or by a fault of its node.
func (x *index) willEnd(c *connection) time.Duration {
	end := min(c.closed, c.next)
	for _, f := range x.faults {
		if f.node == c.Node && f.to > c.At {
			end = min(end, max(f.from, c.At))
		}
	}
	return end
}

// willPrompt reports whether nothing held the will back: no fault anywhere
// from the end of the connection on.
func (x *index) willPrompt(c *connection, begin time.Duration) bool {
	return c.closed != never && !x.troubled(begin, never)
}

// troubled reports whether any node had a fault in [from, to].
func (x *index) troubled(from, to time.Duration) bool {
	for _, f := range x.faults {
		if f.from <= to && from <= f.to {
			return true
		}
	}
	return false
}
