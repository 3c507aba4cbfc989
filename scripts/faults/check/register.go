package check

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// registerOp is a write or a read of one register.
type registerOp struct {
	value    string
	write    bool
	from, to time.Duration // to is never for a write that may take effect at any later time
	who      string        // for messages
}

// zone is what Gibbons and Korach ("Testing shared memories", 1997) call the
// zone of a value: the time between the first end and the last start of all
// operations with that value. It is forward if the end comes first: then the
// register must hold the value during all of it. Otherwise all operations
// overlap, and some instant of the zone is enough.
type zone struct {
	value   string
	forward bool
	lo, hi  time.Duration
}

// linearizable decides whether operations of one register, whose written
// values are all different, are linearizable, in O(n log n). The register
// starts with the value "". It returns why not, or "".
func linearizable(ops []registerOp) string {
	zones, why := zonesOf(ops)
	if why != "" {
		return why
	}
	var forward, backward []zone
	for _, z := range zones {
		if z.forward {
			forward = append(forward, z)
		} else {
			backward = append(backward, z)
		}
	}
	slices.SortFunc(forward, func(a, b zone) int {
		return cmp.Or(cmp.Compare(a.lo, b.lo), cmp.Compare(a.hi, b.hi), cmp.Compare(a.value, b.value))
	})
	for i := 1; i < len(forward); i++ {
		if a, b := forward[i-1], forward[i]; b.lo < a.hi {
			return fmt.Sprintf("%q must be the value during all of [%v, %v], and %q during all of [%v, %v]", a.value, a.lo, a.hi, b.value, b.lo, b.hi)
		}
	}
	// The forward zones do not overlap, so that their ends are sorted too.
	for _, z := range backward {
		i, _ := slices.BinarySearchFunc(forward, z.hi, func(f zone, hi time.Duration) int { return cmp.Compare(f.hi, hi) })
		for ; i < len(forward) && forward[i].lo < z.lo; i++ {
			if f := forward[i]; z.hi < f.hi {
				return fmt.Sprintf("%q must be the value at some time in [%v, %v], but all of [%v, %v] is taken by %q", z.value, z.lo, z.hi, f.lo, f.hi, f.value)
			}
		}
	}
	return ""
}

// zonesOf groups the operations by value. A write that may still happen and
// that nobody has seen is left out: it can be put at the end.
func zonesOf(ops []registerOp) ([]zone, string) {
	type cluster struct {
		write    *registerOp
		firstEnd time.Duration
		last     time.Duration // start
		reads    int
	}
	start := registerOp{write: true, from: -1, to: -1, who: "the start"}
	clusters := map[string]*cluster{"": {write: &start, firstEnd: -1, last: -1}}
	for i := range ops {
		o := &ops[i]
		if !o.write {
			continue
		}
		if clusters[o.value] != nil {
			return nil, fmt.Sprintf("value %q is written twice, which this check cannot decide", o.value)
		}
		clusters[o.value] = &cluster{write: o, firstEnd: o.to, last: o.from}
	}
	for i := range ops {
		o := &ops[i]
		if o.write {
			continue
		}
		c := clusters[o.value]
		if c == nil {
			return nil, fmt.Sprintf("%s read %q in [%v, %v], which nobody wrote", o.who, o.value, o.from, o.to)
		}
		if o.to < c.write.from {
			return nil, fmt.Sprintf("%s read %q until %v, before it was written at %v", o.who, o.value, o.to, c.write.from)
		}
		c.reads++
		c.firstEnd, c.last = min(c.firstEnd, o.to), max(c.last, o.from)
	}
	var zones []zone
	for value, c := range clusters {
		if c.reads == 0 && c.write.to == never {
			continue
		}
		zones = append(zones, zone{value, c.firstEnd < c.last, min(c.firstEnd, c.last), max(c.firstEnd, c.last)})
	}
	return zones, ""
}

// retained is P5: a retained message is a linearizable register per topic. A
// write is an acknowledged retained PUBLISH, a read is a SUBSCRIBE and the
// retained copy it brings.
//
// A QoS 1 PUBLISH that was sent again may be written twice, with something
// else between: that is what QoS 1 allows. Only its first attempt counts then,
// and of its reads those that ended before the second one; the others are left
// out, which never makes a good history bad.
func retained(x *index) *Result {
	r := newResult("retained", "P5")
	topics := map[string][]registerOp{}
	repeated := map[string]time.Duration{} // by value: when it was sent again
	r.count("writes", 0)
	for _, p := range x.publishes {
		if !p.Retain || p.phase == Fail {
			continue
		}
		r.count("writes", 1)
		op := registerOp{value: p.Value, write: true, from: p.At, to: p.end, who: p.Client + " at " + p.Node}
		if p.QoS == 1 && p.attempts > 1 {
			again := p.sends[1].At
			repeated[p.Value] = again
			op.to = never // dropped, unless a read has seen it
			if p.end < again {
				op.to = p.end
			}
		}
		topics[p.Topic] = append(topics[p.Topic], op)
	}
	for _, o := range x.reads {
		again, twice := repeated[o.done.Value]
		switch {
		case o.phase != OK:
			r.count("unanswered", 1)
			continue
		case twice && o.end >= again:
			r.count("ambiguous", 1)
			continue
		}
		r.count("reads", 1)
		op := registerOp{value: o.done.Value, from: o.At, to: o.end, who: o.Client + " at " + o.Node}
		topics[o.Topic] = append(topics[o.Topic], op)
	}
	for name, ops := range topics {
		if why := linearizable(ops); why != "" {
			r.problem("stale", "topic %s: %s", name, why)
		}
	}
	r.need("reads", 1)
	r.need("writes", 1)
	if r.Counts["unanswered"] > r.Counts["reads"] && r.Verdict == Valid {
		r.Verdict, r.Vacuous = Undecided, "vacuous: most reads got no answer"
	}
	return r
}
