package fsm

import (
	"cmp"
	"slices"

	"quorate/fsm/command"
	"quorate/protocol/packet"
)

// progress applies what the clients of a node have finished. Items of ended epochs are skipped.
func (st *state) progress(c *command.Progress, r *Result) {
	stale := 0
	for i := range c.Items {
		it := &c.Items[i]
		s := st.owned(it.Ref)
		if s == nil {
			stale++
			continue
		}
		st.touchSession(s)
		st.advance(s, it)
	}
	r.Stale = stale > 0 && stale == len(c.Items)
}

// advance applies one session's progress.
func (st *state) advance(s *session, it *command.ProgressItem) {
	d := st.durable(s)
	before := d.outstanding
	for _, seq := range it.Received {
		if i, found := d.findOut(seq); found && !d.out2[i].received {
			d.out2[i].received = true
			st.effect(effectReceived, s.serial, seq)
		}
	}
	for _, seq := range it.Done {
		st.finish(s, seq)
	}
	st.moveCursor(s, min(it.Cursor, st.seq))
	if d.outstanding != before {
		st.refreshMember(s)
		st.drainShares(s)
	}
	if len(d.owed) > 0 && len(d.private) < owedPrivateMax {
		st.queueWork(&d.work, workSession, s.slot)
	}
}

func (d *durable) findOut(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(d.out2, seq, func(it outItem, seq uint64) int { return cmp.Compare(it.seq, seq) })
}

func (d *durable) findPrivate(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(d.private, seq, func(it privateItem, seq uint64) int { return cmp.Compare(it.seq, seq) })
}

// finish ends the exchange of one sequence.
func (st *state) finish(s *session, seq uint64) {
	d := s.d
	if seq > st.seq {
		return
	}
	if i, found := d.findOut(seq); found {
		it := d.out2[i]
		d.out2 = slices.Delete(d.out2, i, i+1)
		if it.group != 0 {
			d.outstanding--
		}
		st.effect(effectOutDone, s.serial, seq)
		st.dropOut(&it)
	}
	if i, found := d.findPrivate(seq); found {
		it := d.private[i]
		d.private = slices.Delete(d.private, i, i+1)
		st.dropPrivate(s, &it)
	}
	if seq <= d.cursor {
		return
	}
	if i, found := slices.BinarySearch(d.done, seq); !found {
		d.done = slices.Insert(d.done, i, seq)
		st.effect(effectDone, s.serial, seq)
	}
}

// dropOut gives up what a marked message holds.
func (st *state) dropOut(it *outItem) {
	st.unmark(it.slot)
	st.release(it.slot)
}

// dropPrivate gives up a private item that has left the list.
func (st *state) dropPrivate(s *session, it *privateItem) {
	if it.group != 0 {
		s.d.outstanding--
	}
	st.effect(effectPrivateRemove, s.serial, it.seq)
	st.release(it.slot)
}

// moveCursor passes everything up to a sequence: done marks, private items, spans, and the session's positions in its
// streams. What the streams had lost before the session got it is counted.
func (st *state) moveCursor(s *session, to uint64) {
	d := s.d
	from := d.cursor
	if to <= from {
		return
	}
	st.effect(effectCursor, s.serial, to)
	i, found := slices.BinarySearch(d.done, to)
	if found {
		i++
	}
	d.done = shrink(slices.Delete(d.done, 0, i))
	n, found := d.findPrivate(to)
	if found {
		n++
	}
	for i := range n {
		st.dropPrivate(s, &d.private[i])
	}
	d.private = shrink(slices.Delete(d.private, 0, n))
	// The positions of all subscriptions follow from the cursor, so they move together, before anything is trimmed.
	for i := range d.subs {
		st.movePosition(d, &d.subs[i], from, to)
	}
	d.cursor = to
	gone := false
	for i := range d.subs {
		st.settle(s, &d.subs[i])
		gone = gone || len(d.subs[i].spans) == 0
	}
	for i := len(d.subs) - 1; gone && i >= 0; i-- {
		if len(d.subs[i].spans) == 0 {
			st.removeSub(s, i)
		}
	}
}

// shrink lets go of the memory of a list that has become empty.
func shrink[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}

// movePosition moves one subscription's position in its stream, and counts what it lost.
func (st *state) movePosition(d *durable, b *subscription, from, to uint64) {
	if !b.queued() {
		return
	}
	m := b.filter.stream
	if m.base > b.seen {
		d.dropped += m.base - b.seen
		b.seen = m.base
	}
	before, after := b.position(from), b.position(to)
	if before == after {
		return
	}
	m.positions.move(before, after, m.last)
	b.seen = m.base + uint64(st.search(m, after))
}

// sendMark hands QoS 2 messages to the session itself: from now on nothing but the session ends them (P3).
func (st *state) sendMark(c *command.SendMark, r *Result) {
	s := st.owned(c.Ref)
	if s == nil {
		r.Stale = true
		return
	}
	st.touchSession(s)
	d := st.durable(s)
	for _, seq := range c.Seqs {
		code := packet.Success
		if _, found := d.findOut(seq); !found && !st.markSeq(s, seq) {
			code = packet.PacketIdentifierNotFound
		}
		r.Codes = append(r.Codes, code)
	}
}

// markSeq moves one message to the session's own list; false when the session has no such QoS 2 message to send: it is
// done, expired, was dropped by a quota, or never was the session's.
func (st *state) markSeq(s *session, seq uint64) bool {
	d := s.d
	if _, done := slices.BinarySearch(d.done, seq); done || seq > st.seq {
		return false
	}
	out, ok := outItem{}, false
	if i, found := d.findPrivate(seq); found {
		it := &d.private[i]
		out, ok = outItem{seq: seq, group: it.group, slot: it.slot, retain: it.retain, alone: true}, it.qos == 2
		if ok && it.subID != 0 {
			out.subIDs = []uint32{it.subID}
		}
		if ok && !st.slab.at(it.slot).expired(st.now) {
			d.private = slices.Delete(d.private, i, i+1)
			st.addOut(s, out)
			return true
		}
		return false
	}
	if seq <= d.cursor {
		return false
	}
	out, qos, ok := st.gather(s, seq)
	if !ok || qos != 2 || st.slab.at(out.slot).expired(st.now) {
		return false
	}
	st.hold(out.slot)
	st.addOut(s, out)
	return true
}

func (st *state) addOut(s *session, out outItem) {
	d := s.d
	i, _ := d.findOut(out.seq)
	d.out2 = slices.Insert(d.out2, i, out)
	st.mark(out.slot)
	st.effect(effectMark, s.serial, out.seq)
}

// gather finds a sequence in the session's streams, with the highest QoS and all identifiers of the subscriptions whose
// spans hold it [MQTT-3.3.4-2, MQTT-3.3.4-3].
func (st *state) gather(s *session, seq uint64) (out outItem, qos byte, ok bool) {
	for i := range s.d.subs {
		b := &s.d.subs[i]
		m := b.filter.stream
		if !b.queued() || m.slots.count == 0 || m.last < seq || st.seqAt(m, 0) > seq {
			continue
		}
		sp := b.spanOf(seq)
		at := st.search(m, seq-1)
		if sp == nil || at == m.slots.count || st.seqAt(m, at) != seq {
			continue
		}
		slot := m.slots.at(at)
		msg := st.slab.at(slot)
		if sp.opts.noLocal() && msg.publisher == s.serial {
			continue
		}
		out.seq, out.slot, ok = seq, slot, true
		qos = max(qos, min(msg.qos(), sp.opts.qos()))
		out.retain = out.retain || msg.is(slotRetain) && sp.opts.rap()
		if sp.id != 0 {
			out.subIDs = append(out.subIDs, sp.id)
		}
	}
	return out, qos, ok
}
