package fsm

import (
	"quorate/fsm/command"
	"quorate/protocol/packet"
	"quorate/protocol/topic"
)

// publication is a message on its way through the machine.
type publication struct {
	seq                uint64
	body               []byte
	topic              string
	forwarded, payload []byte
	qos                byte
	retain, local      bool
	publisher          uint64
	deadline           uint64
	origin             command.NodeID
}

// publish applies a PUBLISH.
func (st *state) publish(c *command.Publish, l *life, r *Result) {
	p := publication{
		body: c.Body(), topic: c.Topic, forwarded: c.Forwarded, payload: c.Payload, qos: c.QoS, retain: c.Retain,
		local: c.Local, origin: l.node.id,
	}
	var s *session
	if !c.Ref.IsZero() {
		if s = st.owned(c.Ref); s == nil {
			r.Stale = true
			return
		}
		p.publisher = s.serial
		if c.PacketID != 0 && s.holdsIn2(c.PacketID) {
			r.Duplicate = true
			return
		}
	}
	if topic.ValidateName(c.Topic) != nil {
		r.Code = packet.TopicNameInvalid
		return
	}
	var ok bool
	if c.DelaySeconds > 0 {
		ok = st.delay(&p, c)
	} else {
		if c.HasExpiry {
			p.deadline = after(st.now, c.ExpirySeconds)
		}
		ok = st.accept(&p, r)
	}
	if !ok {
		st.refused++
		r.Code = packet.QuotaExceeded
		return
	}
	if s != nil && c.PacketID != 0 {
		st.addIn2(s, c.PacketID)
	}
}

// accept gives a message its place in the order and hands it to whoever must have it later. It refuses, and does
// nothing, when there is no room for a message that must be stored.
func (st *state) accept(p *publication, r *Result) bool {
	filters := st.match(p.topic)
	keep := p.retain && len(p.payload) > 0
	stored, matched := keep, false
	for _, f := range filters {
		if p.qos > 0 && (f.stream != nil && f.stream.open > 0 || len(f.groups) > 0) {
			stored, matched = true, true
		}
		matched = matched || len(f.routes) > 0
	}
	if stored && !st.room(len(p.body)) || keep && !st.retainable(p.topic) {
		return false
	}
	st.seq++
	p.seq = st.seq
	r.Seq, r.Matched = p.seq, matched
	st.effect(effectPublish, p.seq, uint64(len(p.body)))
	st.events.published(p)
	switch {
	case stored:
		slot := st.storeMessage(p, false)
		st.hold(slot) // until all holders are known
		st.spread(slot, filters)
		st.retain(p, slot)
		st.release(slot)
	case p.retain:
		st.unretain(p.topic)
	}
	return true
}

// spread hands a stored message to the streams and groups of the filters it matches.
func (st *state) spread(slot uint32, filters []*filter) {
	if st.slab.at(slot).qos() == 0 {
		return
	}
	for _, f := range filters {
		if f.stream != nil && f.stream.open > 0 {
			st.appendStream(f, slot)
		}
		for _, g := range f.groups {
			st.offer(g, slot)
		}
	}
}

// publishWaiting publishes a will or a delayed message, which is stored already and gives up the holder it had.
// A message that asks to be retained beyond the limit on topics is published and not retained.
func (st *state) publishWaiting(slot uint32) {
	body, err := st.bodies.Get(st.slab.at(slot).body, nil)
	if err != nil {
		st.fail(err)
		return
	}
	topicName, forwarded, payload, err := command.ParseBody(body)
	if err != nil {
		st.fail(err)
		return
	}
	st.seq++
	st.touchChunk(slot / chunkSlots)
	s := st.slab.at(slot)
	s.seq = st.seq
	s.clear(slotWaits)
	if s.deadline != 0 {
		s.deadline = after(st.now, uint32(s.deadline-1))
		st.expiry.add(&st.slab, slot)
	}
	p := publication{
		seq: s.seq, body: body, topic: topicName, forwarded: forwarded, payload: payload, qos: s.qos(), retain: s.is(slotRetain),
		publisher: s.publisher, deadline: s.deadline,
	}
	st.effect(effectPublish, p.seq, uint64(slot))
	st.events.published(&p)
	st.spread(slot, st.match(p.topic))
	if p.retain && (len(payload) == 0 || st.retainable(p.topic)) {
		st.retain(&p, slot)
	}
	st.release(slot)
}

// release ends an inbound QoS 2 exchange.
func (st *state) releaseIn2(c *command.Release, r *Result) {
	s := st.owned(c.Ref)
	switch {
	case s == nil:
		r.Stale = true
	case !st.removeIn2(s, c.PacketID):
		r.Code = packet.PacketIdentifierNotFound
	}
}
