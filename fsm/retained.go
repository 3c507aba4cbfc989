package fsm

import (
	"slices"
	"strings"

	"quorate/fsm/command"
	"quorate/protocol/topic"
)

// retained is the retained message of a topic.
type retained struct {
	index, gen uint32
	topic      string
	slot       uint32
	// timer removes a message that expires; nil for one that does not. Derived.
	timer *timer
}

// retainable tells whether a message may be retained for the topic.
func (st *state) retainable(name string) bool {
	if _, ok := st.retainedNames.Get(name); ok {
		return true
	}
	return uint64(st.retained.used) < st.limits.MaxRetained
}

// retain makes the message in slot the retained one of its topic, or clears it for an empty payload [MQTT-3.3.1-6].
func (st *state) retain(p *publication, slot uint32) {
	if !p.retain {
		return
	}
	if len(p.payload) == 0 {
		st.unretain(p.topic)
		return
	}
	e, ok := st.retainedNames.Get(p.topic)
	if ok {
		st.touchRetained(e)
		st.release(e.slot)
	} else {
		e = &retained{gen: st.gen, topic: p.topic}
		e.index = st.retained.add(e)
		st.retainedNames.Set(p.topic, e)
	}
	e.slot = slot
	st.hold(slot)
	st.effect(effectRetain, uint64(e.index), p.seq)
	st.setRetainedTimer(e)
}

func (st *state) setRetainedTimer(e *retained) {
	s := st.slab.at(e.slot)
	if e.timer == nil {
		if s.deadline == 0 {
			return
		}
		e.timer = &timer{kind: timerRetained, id: e.index, pos: -1}
	}
	st.setTimer(e.timer, 0)
	e.timer.tie = s.seq
	st.setTimer(e.timer, s.deadline)
}

// unretain clears the retained message of a topic.
func (st *state) unretain(name string) {
	if e, ok := st.retainedNames.Get(name); ok {
		st.dropRetained(e)
	}
}

func (st *state) dropRetained(e *retained) {
	st.touchRetained(e)
	if e.timer != nil {
		st.setTimer(e.timer, 0)
	}
	st.effect(effectUnretain, uint64(e.index), 0)
	st.retainedNames.Delete(e.topic)
	st.retained.remove(e.index)
	st.release(e.slot)
}

func (st *state) expireRetained(index uint32) {
	st.expired++
	st.dropRetained(st.retained.at(index))
}

const (
	// owedPrivateMax is how many private entries a session may have before copying the retained messages it is owed
	// waits for its progress: a subscription to everything must not copy everything at once.
	owedPrivateMax = 1000
)

// owed is a subscription whose retained messages have not all been copied to the session's private list.
type owed struct {
	filter string
	// after is the topic copied last.
	after string
	// from is the sequence of the subscription: newer retained messages come by the stream.
	from uint64
	id   uint32
	opts options
}

// owe notes that the session gets the retained messages of a subscription that was made just now.
//
// A transient session gets them from its node, a shared subscription gets none.
func (st *state) owe(s *session, c *command.Subscription, id uint32) {
	if _, _, shared, _ := topic.ParseShared(c.Filter); shared || !s.persistent {
		return
	}
	s.d.disown(c.Filter)
	s.d.owed = append(s.d.owed, owed{filter: c.Filter, from: st.seq, id: id, opts: packOptions(c)})
	st.effect(effectOwed, s.serial, st.seq)
}

// disown forgets what is owed for a filter.
func (d *durable) disown(name string) {
	d.owed = slices.DeleteFunc(d.owed, func(o owed) bool { return o.filter == name })
}

// copyOwed copies retained messages to the session's private list, and gives the units of work it took: one for each
// copy, and one for every walkNames topics looked at. It stops while the session has enough to do; its progress starts it
// again.
func (st *state) copyOwed(s *session, budget int) int {
	d, used := s.d, 1
	before := len(d.private)
	for len(d.owed) > 0 && len(d.private) < owedPrivateMax && used <= budget {
		o := &d.owed[0]
		done := st.walkRetained(o.filter, &o.after, walkNames, func(e *retained) bool {
			used++
			st.copyRetained(s, o, e)
			return used <= budget && len(d.private) < owedPrivateMax
		})
		used++
		st.effectString(effectOwed, s.serial, o.after)
		if done {
			d.owed = slices.Delete(d.owed, 0, 1)
		}
	}
	if len(d.owed) == 0 {
		d.owed = nil
	} else if len(d.private) < owedPrivateMax {
		st.queueWork(&d.work, workSession, s.slot)
	}
	if len(d.private) > before {
		st.wake(s)
	}
	return used
}

// walkNames is how many topics one step of a walk over the retained messages looks at.
const walkNames = 64

// walkRetained visits the retained messages that match a filter, in the order of their topics, from those after *after
// on, which it moves along. It looks at no more than limit topics, whether they match or not: a filter such as "+/x" may
// match few among millions. It tells whether it came to the end; visit can stop it.
func (st *state) walkRetained(filter string, after *string, limit int, visit func(e *retained) bool) (done bool) {
	done = true
	st.retainedNames.Match(walkFilter(filter), *after, func(name string, e *retained) bool {
		limit--
		*after = e.topic
		done = limit > 0
		if topic.Match(filter, name) && !visit(e) {
			done = false
		}
		return done
	})
	return done
}

// walkFilter is the filter that a walk goes along: the levels before the first wildcard, and everything below them.
func walkFilter(filter string) string {
	i := strings.IndexAny(filter, "+#")
	if i < 0 {
		return filter
	}
	return filter[:i] + "#"
}

// copyRetained gives the session one retained message. One newer than the subscription comes by the stream; one that
// would go with QoS 0 is sent by the node; No Local holds for retained messages as well [MQTT-3.8.3-3].
func (st *state) copyRetained(s *session, o *owed, e *retained) {
	m := st.slab.at(e.slot)
	qos := min(m.qos(), o.opts.qos())
	if m.seq > o.from || qos == 0 || m.expired(st.now) || o.opts.noLocal() && m.publisher == s.serial {
		return
	}
	st.hold(e.slot)
	st.addPrivate(s, privateItem{slot: e.slot, subID: o.id, qos: qos, retain: true})
}
