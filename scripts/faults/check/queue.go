package check

import (
	"slices"
	"time"
)

// owed is a publish that a subscriber must get: it was begun after the SUBACK
// of a subscription that is held to the end, and it was acknowledged.
func (x *index) owed(p *operation, s *subscription) bool {
	return p.phase == OK && p.QoS > 0 && s.QoS > 0 && s.held() && p.At > s.end && x.match(s.filter(), p.Topic)
}

// received counts what one client got of one value. Retained copies, which
// come because of a SUBSCRIBE, are not counted.
type received struct {
	total, noDup int
	first        Event
}

func receivedBy(deliveries []Event) map[string]*received {
	got := make(map[string]*received, len(deliveries))
	for i := range deliveries {
		d := &deliveries[i]
		if d.Retain {
			continue
		}
		r := got[d.Value]
		if r == nil {
			r = &received{first: *d}
			got[d.Value] = r
		}
		r.total++
		if !d.Dup {
			r.noDup++
		}
	}
	return got
}

// lane is where order is promised, and where the place of a loss says most.
type lane struct {
	publisher, topic string
	qos              byte
}

// queue is the total queue of P1: no acknowledged message of a persistent
// session is lost, none comes from nowhere, and none comes twice unmarked.
func queue(x *index) *Result {
	r := newResult("queue", "P1")
	r.count("acked", 0)
	for _, p := range x.publishes {
		if p.phase == OK {
			r.count("acked", 1)
		}
	}
	for client, subs := range x.subsOf {
		got := receivedBy(x.deliveries[client])
		lanes := map[lane][]*operation{}
		for _, p := range x.publishes {
			if slices.ContainsFunc(subs, func(s *subscription) bool { return s.persistent && !s.shared() && x.owed(p, s) }) {
				k := lane{p.Client, p.Topic, p.QoS}
				lanes[k] = append(lanes[k], p)
			}
		}
		for _, owed := range lanes {
			lost(r, client, owed, got)
		}
	}
	for client, deliveries := range x.deliveries {
		x.unexpected(r, client, deliveries)
		x.duplicates(r, client, deliveries)
	}
	r.need("owed", 1)
	return r
}

// lost reports the missing ones of one lane, by where they are missing: at
// its start (somebody started over), in the middle (never excusable) or at
// its end (perhaps a drain that was too short).
func lost(r *Result, client string, owed []*operation, got map[string]*received) {
	r.count("owed", len(owed))
	there := func(p *operation) bool { return got[p.Value] != nil }
	first := slices.IndexFunc(owed, there)
	last := len(owed) - 1
	for last >= 0 && !there(owed[last]) {
		last--
	}
	for i, p := range owed {
		if there(p) {
			continue
		}
		kind := "lost-middle"
		switch {
		case i > last:
			kind = "lost-postfix"
		case i < first:
			kind = "lost-prefix"
		}
		r.problem(kind, "%q of %s on %s (QoS %d, sent %v to %s, acked %v) never reached %s",
			p.Value, p.Client, p.Topic, p.QoS, p.At, p.Node, p.end, client)
	}
}

func (x *index) unexpected(r *Result, client string, deliveries []Event) {
	for i := range deliveries {
		d := &deliveries[i]
		p := x.byValue[d.Value]
		switch {
		case p == nil && x.wills[d.Value] != nil:
		case p == nil:
			r.problem("unexpected", "%s got %q at %v, which nobody published", client, d.Value, d.At)
		case p.Topic != d.Topic:
			r.problem("unexpected", "%s got %q of %s on %s", client, d.Value, p.Topic, d.Topic)
		case p.phase == Fail:
			r.problem("unexpected", "%s got %q at %v, which was refused with 0x%02x", client, d.Value, d.At, p.done.Reason)
		}
	}
}

func (x *index) duplicates(r *Result, client string, deliveries []Event) {
	for value, got := range receivedBy(deliveries) {
		p := x.byValue[value]
		if p == nil {
			continue
		}
		r.count("duplicates", got.total-1)
		allowed := 1
		if p.QoS == 1 {
			allowed = p.attempts // an attempt that was not acknowledged may be a message of its own
		}
		if got.first.QoS > 0 && got.noDup > allowed {
			r.problem("dup-no-flag", "%s got %q %d times with DUP=0, published %d times", client, value, got.noDup, p.attempts)
		}
	}
}

// order is P8: for each subscriber, publisher, topic and QoS the first
// deliveries come in the order of the publishes [MQTT-4.6.0-5]
// [MQTT-4.6.0-6]. Repeated ones may go back.
func order(x *index) *Result {
	r := newResult("order", "P8")
	r.count("compared", 0)
	for client, deliveries := range x.deliveries {
		if slices.ContainsFunc(x.subsOf[client], (*subscription).shared) {
			continue
		}
		seen := map[string]bool{}
		last := map[lane]*operation{}
		for i := range deliveries {
			d := &deliveries[i]
			p := x.byValue[d.Value]
			if p == nil || d.Retain || seen[d.Value] {
				continue
			}
			seen[d.Value] = true
			k := lane{p.Client, p.Topic, p.QoS}
			if before := last[k]; before != nil {
				r.count("compared", 1)
				if p.order < before.order {
					r.problem("reorder", "%s got %q at %v after %q of %s on %s (QoS %d)",
						client, d.Value, d.At, before.Value, p.Client, p.Topic, p.QoS)
					continue
				}
			}
			last[k] = p
		}
	}
	r.need("compared", 1)
	return r
}

// once is P3: between clients with persistent sessions a QoS 2 message is
// delivered exactly once if its PUBREC was received, and never more.
func once(x *index) *Result {
	r := newResult("exactly-once", "P3")
	r.count("owed", 0)
	for client, subs := range x.subsOf {
		got := receivedBy(x.deliveries[client])
		for _, p := range x.publishes {
			if p.QoS != 2 {
				continue
			}
			full := slices.ContainsFunc(subs, func(s *subscription) bool {
				return s.QoS == 2 && s.persistent && !s.shared() && x.match(s.filter(), p.Topic)
			})
			owed := full && slices.ContainsFunc(subs, func(s *subscription) bool { return s.QoS == 2 && s.persistent && x.owed(p, s) })
			n := 0
			if g := got[p.Value]; g != nil {
				n = g.total
			}
			switch {
			case !full:
			case n > 1:
				r.problem("twice", "%s got %q of %s %d times", client, p.Value, p.Client, n)
			case owed && n == 0:
				r.problem("lost", "%q of %s (sent %v, PUBREC %v) never reached %s", p.Value, p.Client, p.At, p.end, client)
			}
			if owed {
				r.count("owed", 1)
			}
		}
	}
	r.need("owed", 1)
	return r
}

// visible is P2: what is published after a SUBACK reaches that subscriber,
// also a transient one while it lives; and what was acknowledged before the
// SUBSCRIBE, or begun after the UNSUBACK, does not come as a live message.
func visible(x *index) *Result {
	r := newResult("visible", "P2")
	r.count("owed", 0)
	for client, subs := range x.subsOf {
		got := receivedBy(x.deliveries[client])
		for _, p := range x.publishes {
			if !slices.ContainsFunc(subs, func(s *subscription) bool { return !s.shared() && x.owed(p, s) }) {
				continue
			}
			r.count("owed", 1)
			if got[p.Value] == nil {
				r.problem("missed", "%q of %s on %s (sent %v to %s, acked %v) was never seen by %s", p.Value, p.Client, p.Topic, p.At, p.Node, p.end, client)
			}
		}
		for value, g := range got {
			if p := x.byValue[value]; p != nil {
				x.allowed(r, client, p, g, subs)
			}
		}
	}
	r.need("owed", 1)
	return r
}

// allowed demands a subscription that explains the delivery of p.
func (x *index) allowed(r *Result, client string, p *operation, got *received, subs []*subscription) {
	past, after := false, false
	var subAt, goneAt time.Duration
	for _, s := range subs {
		switch {
		case !x.match(s.filter(), p.Topic):
		case p.attempts == 1 && p.end < s.At:
			past, subAt = true, s.At
		case p.At > s.gone:
			after, goneAt = true, s.gone
		default:
			return
		}
	}
	switch {
	case after:
		r.problem("after-unsuback", "%s got %q, begun %v, live at %v, but its subscription had ended at %v", client, p.Value, p.At, got.first.At, goneAt)
	case past:
		r.problem("from-the-past", "%s got %q, acked %v, live at %v, but subscribed at %v", client, p.Value, p.end, got.first.At, subAt)
	default:
		r.problem("not-subscribed", "%s got %q on %s at %v without a subscription", client, p.Value, p.Topic, got.first.At)
	}
}

// shared checks the groups of Shared Subscriptions: an acknowledged message
// reaches at least one member, and only one while no member's connection ends.
func shared(x *index) *Result {
	r := newResult("shared", "P1,P3")
	groups := map[string][]*subscription{}
	for _, s := range x.subs {
		if s.shared() && s.phase == OK {
			groups[s.Topic] = append(groups[s.Topic], s)
		}
	}
	r.count("owed", 0)
	for group, members := range groups {
		quiet := true // no member's connection ended
		var got []map[string]*received
		for _, m := range members {
			got = append(got, receivedBy(x.deliveries[m.Client]))
			quiet = quiet && x.conns[m.Conn].closed == never
		}
		for _, p := range x.publishes {
			if !slices.ContainsFunc(members, func(s *subscription) bool { return s.persistent && x.owed(p, s) }) {
				continue
			}
			r.count("owed", 1)
			n := 0
			for _, g := range got {
				if g[p.Value] != nil {
					n++
				}
			}
			switch {
			case n == 0:
				r.problem("lost", "%q of %s (acked %v) reached no member of %s", p.Value, p.Client, p.end, group)
			case n > 1 && (quiet || p.QoS == 2):
				r.problem("several", "%q of %s reached %d members of %s", p.Value, p.Client, n, group)
			}
		}
	}
	if len(groups) > 0 {
		r.need("owed", 1)
	}
	return r
}
