package check

import (
	"slices"
	"time"
)

// refuseTimes says how quickly a cluster must refuse and recover.
type refuseTimes struct {
	inFlight time.Duration // an acknowledgement may be on its way this long
	answer   time.Duration // a CONNECT without a quorum is refused within this
	close    time.Duration // connections without a quorum are closed within this
	recover  time.Duration // with a quorum, something is acknowledged within this
}

// refusal is P9: a node without a quorum acknowledges nothing, says so and
// lets its connections go; the nodes that have one serve on.
func refusal(x *index, times refuseTimes) *Result {
	r := newResult("refusal", "P9")
	r.count("acks", 0)
	for _, u := range x.uses() {
		r.count("acks", 1)
		x.notAlone(r, u, times)
	}
	for _, c := range x.connOrder {
		x.refused(r, c, times)
	}
	x.available(r, times)
	r.need("acks", 1)
	return r
}

// notAlone demands that an acknowledgement did not come from a node that was
// without a quorum all the time.
func (x *index) notAlone(r *Result, u use, times refuseTimes) {
	c := x.conns[u.conn]
	if c == nil {
		return
	}
	for _, f := range x.faults {
		if f.kind == FaultNoQuorum && f.node == c.Node && f.from+times.inFlight < u.from && u.to < f.to {
			r.problem("lie", "%s got an acknowledgement at %v from %s, which was without a quorum from %v to %v", u.client, u.to, c.Node, f.from, f.to)
		}
	}
}

// refused checks how a node without a quorum treats a connection.
func (x *index) refused(r *Result, c *connection, times refuseTimes) {
	for _, f := range x.faults {
		if f.kind != FaultNoQuorum || f.node != c.Node {
			continue
		}
		to := min(f.to, x.end)
		alone := c.At > f.from+times.inFlight && c.At+times.answer < to
		switch {
		case alone && c.phase == OK && c.end < to:
			r.problem("lie", "%s accepted %s at %v without a quorum", c.Node, c.Client, c.end)
		case alone && c.phase == Fail && c.end < to:
			r.count("refused", 1)
		case alone && c.closed > c.At+times.answer && c.phase != OK:
			r.problem("silent", "%s neither refused nor closed %s, which connected at %v without a quorum", c.Node, c.Client, c.At)
		case c.phase == OK && c.end < f.from && c.closed > f.from:
			if f.from+times.close < min(to, c.closed) {
				r.problem("kept", "%s kept the connection of %s from %v to %v without a quorum", c.Node, c.Client, f.from, min(to, c.closed))
			} else if c.closed < to {
				r.count("closed", 1)
			}
		}
	}
}

// available demands an acknowledgement within times.recover after every try
// that follows another one, while a majority of the nodes is whole.
func (x *index) available(r *Result, times refuseTimes) {
	nodes := x.nodes()
	acks, tries := x.acksAndTries()
	if len(acks) == 0 {
		return
	}
	// Moments at which the set of whole nodes changes.
	marks := []time.Duration{acks[0], acks[len(acks)-1]}
	for _, f := range x.faults {
		marks = append(marks, f.from, f.to)
	}
	slices.Sort(marks)
	worst := time.Duration(0)
	for i := 1; i < len(marks); i++ {
		from, to := max(marks[i-1], acks[0]), min(marks[i], acks[len(acks)-1])
		if from >= to || 2*x.whole(nodes, from, to) <= len(nodes) {
			continue
		}
		worst = max(worst, gap(r, acks, tries, from, to, times.recover))
	}
	r.count("worst-gap-ms", int(worst.Milliseconds()))
}

// acksAndTries returns when anything was acknowledged, and when anything was
// sent that asks for it, each in order.
func (x *index) acksAndTries() (acks, tries []time.Duration) {
	for _, u := range x.uses() {
		acks = append(acks, u.to)
	}
	for _, p := range x.publishes {
		for _, s := range p.sends {
			tries = append(tries, s.At)
		}
	}
	for _, c := range x.connOrder {
		tries = append(tries, c.At)
		if c.phase == OK {
			acks = append(acks, c.end)
		}
	}
	slices.Sort(acks)
	slices.Sort(tries)
	return acks, tries
}

// gap returns the longest time from a try in [from, to] to the next
// acknowledgement, or to the end of the time.
func gap(r *Result, acks, tries []time.Duration, from, to, limit time.Duration) time.Duration {
	worst, last := time.Duration(0), from
	for last < to {
		t, _ := slices.BinarySearch(tries, last)
		if t == len(tries) || tries[t] >= to {
			break
		}
		next := to
		if i, _ := slices.BinarySearch(acks, tries[t]); i < len(acks) {
			next = min(acks[i], to)
		}
		if next-tries[t] > limit {
			r.problem("unavailable", "nothing was acknowledged from %v to %v, while a majority was whole", tries[t], next)
		}
		worst, last = max(worst, next-tries[t]), next+1
	}
	return worst
}

// whole counts the nodes without a fault in [from, to].
func (x *index) whole(nodes []string, from, to time.Duration) int {
	n := 0
	for _, node := range nodes {
		if !x.faulty(node, "", from+1, to-1) {
			n++
		}
	}
	return n
}

// nodes lists every node that a client or a fault named.
func (x *index) nodes() []string {
	var all []string
	for _, c := range x.connOrder {
		all = append(all, c.Node)
	}
	for _, f := range x.faults {
		all = append(all, f.node)
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(s string) bool { return s == "" })
}

// digests checks that all nodes have the same state at the same log index.
func digests(x *index) *Result {
	r := newResult("digests", "P1-P8")
	seen := map[uint64]Event{}
	r.count("compared", 0)
	for _, d := range x.digests {
		other, ok := seen[d.Seq]
		switch {
		case !ok:
			seen[d.Seq] = d
		case other.Node == d.Node:
		default:
			r.count("compared", 1)
			if other.Value != d.Value {
				r.problem("diverged", "at index %d node %s has digest %s, node %s has %s", d.Seq, other.Node, other.Value, d.Node, d.Value)
			}
		}
	}
	if len(x.digests) > 0 {
		r.need("compared", 1)
	}
	return r
}

// drain checks that the run ended with nothing left to wait for, and that
// the history itself makes sense.
func drain(x *index) *Result {
	r := newResult("drained", "P1-P9")
	for _, p := range x.problems {
		r.problem("bad-history", "%s", p)
	}
	r.count("drained", len(x.drained))
	for _, d := range x.drained {
		if d.Value != "" {
			r.problem("not-drained", "%s waits for %s", d.Client, d.Value)
		}
	}
	r.need("drained", 1)
	return r
}
