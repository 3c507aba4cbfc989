package fsm

import (
	"cmp"
	"slices"
)

// offer gives a message to a group: to a member now, or to its backlog.
func (st *state) offer(g *group, slot uint32) {
	if g.waiting.count == 0 {
		if m := st.next(g); m != nil {
			st.assign(m, slot)
			return
		}
	}
	st.touchGroup(g)
	st.wait(g, slot)
	st.drainGroup(g, 1)
	for n := 0; n < trimUnits && st.groupOver(g); n++ {
		if !st.slab.at(g.waiting.front()).is(slotDead) {
			st.dropped++
		}
		st.release(st.takeWaiting(g))
	}
}

func (st *state) groupOver(g *group) bool {
	return g.waiting.count > 1 && (uint64(g.waiting.count) > st.limits.MaxQueuedMessages || g.bytes > st.limits.MaxQueuedBytes)
}

// wait adds a message to the end of the backlog.
func (st *state) wait(g *group, slot uint32) {
	g.waiting.push(slot)
	g.bytes += st.slab.at(slot).bytes()
	st.hold(slot)
	st.effect(effectGroupWait, g.id, uint64(slot))
}

// takeWaiting takes the oldest message from the backlog, with its holder.
func (st *state) takeWaiting(g *group) uint32 {
	slot := g.waiting.front()
	g.waiting.pop()
	g.bytes -= st.slab.at(slot).bytes()
	st.effect(effectGroupTake, g.id, uint64(slot))
	return slot
}

// assign gives a message to a member, under a fresh sequence of its session's private list.
func (st *state) assign(m *member, slot uint32) {
	s := m.session
	st.touchSession(s)
	msg := st.slab.at(slot)
	st.hold(slot)
	st.addPrivate(s, privateItem{
		slot: slot, group: m.group.id, subID: m.id, qos: min(msg.qos(), m.opts.qos()), retain: msg.is(slotRetain) && m.opts.rap(),
	})
	m.last = st.seq
	s.d.outstanding++
	st.refreshMember(s)
	st.wake(s)
}

// drainGroup hands out the backlog while members can take it, or gives up that of a dead group: at most budget
// messages. The rest is work for ticks. It gives the units of work it took.
func (st *state) drainGroup(g *group, budget int) int {
	used := 1
	for g.waiting.count > 0 {
		m := st.next(g)
		if m == nil && !g.dead {
			return used
		}
		if used > budget {
			st.touchGroup(g)
			st.queueWork(&g.work, workGroup, g.index)
			return used
		}
		used++
		st.touchGroup(g)
		slot := st.takeWaiting(g)
		if !g.dead && !st.slab.at(slot).expired(st.now) {
			st.assign(m, slot)
		}
		st.release(slot)
	}
	if g.dead {
		st.touchGroup(g)
		st.dropWork(&g.work)
		st.groups.remove(g.index)
	}
	return used
}

// addPrivate adds an item to the session's private list, under a fresh sequence. The item takes over a holder.
func (st *state) addPrivate(s *session, it privateItem) {
	st.seq++
	it.seq = st.seq
	s.d.private = append(s.d.private, it)
	st.effect(effectPrivateAdd, s.serial, it.seq)
	st.effect(effectPrivateAdd, uint64(it.slot)<<32|uint64(it.subID), it.group<<3|uint64(it.qos))
}

// returnShared takes the shared messages from a session whose connection or session has ended, and gives them to their
// groups: what was never marked for sending, and QoS 1, goes to another member. A QoS 2 message marked for sending stays
// with its member: it is kept while the session lasts and dropped with it [MQTT-4.8.2-4, MQTT-4.8.2-5].
func (st *state) returnShared(s *session, ending bool) {
	d := s.d
	if d.outstanding == 0 {
		return
	}
	back := make([]privateItem, 0, len(d.private))
	d.private = slices.DeleteFunc(d.private, func(it privateItem) bool {
		if it.group == 0 {
			return false
		}
		back = append(back, it)
		return true
	})
	d.outstanding -= len(back)
	if !ending {
		st.refreshMember(s)
	}
	// By group, and in a group by sequence: sequences are in order already.
	slices.SortStableFunc(back, func(a, b privateItem) int { return cmp.Compare(a.group, b.group) })
	for len(back) > 0 {
		n := 1
		for n < len(back) && back[n].group == back[0].group {
			n++
		}
		st.returnTo(st.groupByID[back[0].group], s, back[:n])
		back = back[n:]
	}
}

// returnTo puts messages back in front of a group's backlog, and hands them out again. A group that is gone gets nothing.
func (st *state) returnTo(g *group, s *session, items []privateItem) {
	slots := make([]uint32, len(items))
	for i := range items {
		slots[i] = items[i].slot
		st.effect(effectPrivateRemove, s.serial, items[i].seq)
	}
	if g == nil {
		for _, slot := range slots {
			st.release(slot)
		}
		return
	}
	st.touchGroup(g)
	g.waiting.pushFront(slots)
	for _, slot := range slots {
		g.bytes += st.slab.at(slot).bytes()
		st.effect(effectGroupWait, g.id, uint64(slot))
	}
	st.drainGroup(g, trimUnits)
}
