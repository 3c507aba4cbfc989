package broker

import (
	"quorate/fsm"
	"quorate/fsm/command"
)

// decision is where the messages of one topic go, as of a moment.
type decision struct {
	topic      string
	generation uint64 // of the live tree
	applied    uint64 // log index
	matched    [][]*sub
	route      fsm.Route
}

// decisionsMax is how many topics a publisher's decisions are remembered for. Most publishers have one or a few.
const decisionsMax = 4

// decisions are the newest decisions of one publisher. A decision holds while neither the live tree nor the replicated
// state has changed, so that a stream of messages takes no lock at all. BenchmarkPublishQoS0.
type decisions struct {
	slots [decisionsMax]decision
	next  int
}

// decision returns where a topic goes now. It is valid until the next call.
func (l *link) decision(topic string) *decision {
	if l.decisions == nil {
		l.decisions = &decisions{}
	}
	c := l.decisions
	var d *decision
	for i := range c.slots {
		if c.slots[i].topic == topic {
			d = &c.slots[i]
			break
		}
	}
	if d == nil {
		d = &c.slots[c.next]
		c.next = (c.next + 1) % decisionsMax
		*d = decision{topic: topic, matched: d.matched, route: d.route}
	}
	// Both are read before what they stand for: a change in between makes the decision look old, never new.
	if generation := l.b.live.generation.Load(); d.generation != generation {
		clear(d.matched)
		d.generation, d.matched = generation, l.b.live.match(topic, d.matched[:0])
	}
	if applied := l.b.machine.Applied(); d.applied != applied || applied == 0 {
		d.applied = applied
		l.b.machine.Route(topic, &d.route)
	}
	return d
}

// local returns whether only live connections of this node want the topic.
func (d *decision) local(self command.NodeID) bool { return onlyHere(&d.route, self) }

func onlyHere(r *fsm.Route, self command.NodeID) bool {
	if r.Stored || len(r.Groups) > 0 {
		return false
	}
	for _, peer := range r.Peers {
		if peer != self {
			return false
		}
	}
	return true
}
