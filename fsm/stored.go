package fsm

import "quorate/fsm/command"

// place names a stored message from outside the machine's lock.
type place struct {
	slot uint32
	seq  uint64
	body BodyRef
}

func (st *state) placeOf(slot uint32) place {
	s := st.slab.at(slot)
	return place{slot: slot, seq: s.seq, body: s.body}
}

// present gives where the body of a message is now; false when the message has gone.
func (st *state) present(p place) (BodyRef, bool) {
	n := int(p.slot / chunkSlots)
	if n >= len(st.slab.chunks) || st.slab.chunks[n] == nil {
		return 0, false
	}
	s := st.slab.at(p.slot)
	if s.refs == 0 || s.seq != p.seq || s.is(slotGone) {
		return 0, false
	}
	return s.body, true
}

// readBody reads a stored message without the machine's lock; false when it has gone meanwhile. One that was only moved
// (MoveBodies) is looked up again.
func (m *Machine) readBody(p place) ([]byte, bool) {
	for {
		body, err := m.bodies.Get(p.body, nil)
		if err == nil {
			return body, true
		}
		m.mu.RLock()
		now, ok := m.st.present(p)
		m.mu.RUnlock()
		if !ok || now == p.body {
			return nil, false
		}
		p.body = now
	}
}

// message reads a stored message.
func (m *Machine) message(p place, out *Message) bool {
	body, ok := m.readBody(p)
	if !ok {
		return false
	}
	topicName, forwarded, payload, err := command.ParseBody(body)
	if err != nil {
		return false // no machine stores such a body
	}
	out.Body, out.Topic, out.Forwarded, out.Payload = body, topicName, forwarded, payload
	return true
}

// Retained visits the retained messages that match filter, in the order of their topics (topic.Names), those after the
// topic after ("" from the start), at most max of them, until visit returns false. Expired ones are left out. Called
// on the apply goroutine it gives the state at that index (P5). visit is called with the machine unlocked.
func (m *Machine) Retained(filter, after string, max int, visit func(m *Message) bool) {
	const block, names = 256, 4096
	type found struct {
		place
		topic string
		Message
	}
	list := make([]found, 0, min(max, block))
	for done := false; max > 0 && !done; {
		list = list[:0]
		m.mu.RLock()
		st := m.st
		done = st.walkRetained(filter, &after, names, func(e *retained) bool {
			if s := st.slab.at(e.slot); !s.expired(st.now) {
				list = append(list, found{place: st.placeOf(e.slot), topic: e.topic, Message: Message{
					Seq: s.seq, QoS: s.qos(), Retain: true, Publisher: s.publisher, Deadline: s.deadline,
				}})
			}
			return len(list) < min(max, block)
		})
		m.mu.RUnlock()
		for i := range list {
			f := &list[i]
			if !m.message(f.place, &f.Message) && !m.retainedAgain(f.topic, &f.Message) {
				continue
			}
			max--
			if !visit(&f.Message) {
				return
			}
		}
	}
}

// retainedAgain looks a topic up whose message was replaced between finding and reading it.
func (m *Machine) retainedAgain(name string, out *Message) bool {
	for {
		m.mu.RLock()
		e, ok := m.st.retainedNames.Get(name)
		if !ok || m.st.slab.at(e.slot).expired(m.st.now) {
			m.mu.RUnlock()
			return false
		}
		s := m.st.slab.at(e.slot)
		p := m.st.placeOf(e.slot)
		*out = Message{Seq: s.seq, QoS: s.qos(), Retain: true, Publisher: s.publisher, Deadline: s.deadline}
		m.mu.RUnlock()
		if m.message(p, out) {
			return true
		}
	}
}

// MoveBodies stores the bodies anew of which victim says yes, in up to max message slots from slot from on, so that
// their segment can be dropped. next is where to go on, 0 at the end. It is for any one goroutine but the one that
// applies. While a snapshot is written, which relies on where bodies are, it does nothing and gives 0: try again later.
func (m *Machine) MoveBodies(from uint32, max int, victim func(BodyRef) bool) (next uint32, moved int) {
	const block = 64
	type found struct {
		place
		long bool
	}
	for max > 0 {
		var list []found
		m.mu.RLock()
		st := m.st
		if st.snap != nil {
			m.mu.RUnlock()
			return 0, moved
		}
		// A pin keeps a freed place from being used again, so that the same place means the same body.
		unpin := m.bodies.Pin()
		end := uint32(min(int(from)+chunkSlots, len(st.slab.chunks)*chunkSlots))
		for ; from < end && len(list) < block && max > 0; from++ {
			max--
			if c := st.slab.chunks[from/chunkSlots]; c == nil {
				continue
			}
			if s := st.slab.at(from); s.refs > 0 && !s.is(slotGone) && victim(s.body) {
				list = append(list, found{place: st.placeOf(from), long: s.is(slotLong)})
			}
		}
		last := int(from) >= len(st.slab.chunks)*chunkSlots
		m.mu.RUnlock()
		for i := range list {
			if m.moveBody(list[i].place, list[i].long) {
				moved++
			}
		}
		unpin()
		if last {
			return 0, moved
		}
	}
	return from, moved
}

func (m *Machine) moveBody(p place, long bool) bool {
	body, err := m.bodies.Get(p.body, nil)
	if err != nil {
		return false
	}
	ref := m.bodies.Put(body, long)
	m.mu.Lock()
	now, ok := m.st.present(p)
	ok = ok && now == p.body && m.st.snap == nil
	if ok {
		m.st.slab.at(p.slot).body = ref
	}
	m.mu.Unlock()
	if ok {
		m.bodies.Free(p.body)
	} else {
		m.bodies.Free(ref)
	}
	return ok
}
