package fsm

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
)

var errHolders = errors.New("message without a holder or a body")

// link puts what was read together and derives the rest: counts, holders, heaps, positions, the work queue. The checksum
// is right by now; what still does not fit was written by a broken machine.
func (b *builder) link() error {
	for _, step := range []func() error{
		b.linkNodes, b.linkFilters, b.linkGroups, b.linkMessages, b.linkSessions, b.linkHolders, b.linkTimers,
	} {
		if err := step(); err != nil {
			return fmt.Errorf("link: %w", errors.Join(err, ErrSnapshot))
		}
	}
	return nil
}

// sorted gives the indexes of a table in order: what is derived must not depend on the order of a map.
func sorted[V any](table map[uint32]V) []uint32 { return slices.Sorted(maps.Keys(table)) }

func (b *builder) linkNodes() error {
	st := b.st
	for _, i := range sorted(b.nodes) {
		n := &b.nodes[i].node
		st.nodes.put(i, n)
		st.nodeByID[n.id] = i
	}
	for _, i := range sorted(b.lives) {
		raw := b.lives[i]
		l := &raw.life
		if l.node = st.nodes.at(raw.node); l.node == nil {
			return errMissing
		}
		st.lives.put(i, l)
	}
	for _, raw := range b.nodes {
		if raw.life == 0 {
			continue
		}
		if raw.node.life = st.lives.at(raw.life - 1); raw.node.life == nil {
			return errMissing
		}
	}
	return nil
}

func (b *builder) linkFilters() error {
	st := b.st
	for _, i := range sorted(b.filters) {
		f := b.filters[i]
		st.filters.put(i, f)
		st.tree.Set(f.name, f)
		for _, n := range f.routes {
			l := st.lives.at(n)
			if l == nil {
				return errMissing
			}
			l.routes++
			st.routes++
		}
		if f.stream != nil {
			st.streams++
		}
	}
	return nil
}

func (b *builder) linkGroups() error {
	st := b.st
	for _, i := range sorted(b.groups) {
		raw := b.groups[i]
		g := &raw.group
		st.groups.put(i, g)
		if g.dead {
			continue
		}
		if g.filter = st.filters.at(raw.filter - 1); g.filter == nil {
			return errMissing
		}
		at, found := g.filter.findGroup(g.share)
		if found {
			return errTwice
		}
		g.filter.groups = slices.Insert(g.filter.groups, at, g)
		st.groupByID[g.id] = g
	}
	return nil
}

func (b *builder) linkMessages() error {
	st := b.st
	for _, n := range sorted(b.chunks) {
		k := b.chunks[n]
		for i := range k.slots {
			s := &k.slots[i]
			if s.refs == 0 {
				continue
			}
			at := n*chunkSlots + uint32(i)
			if _, ok := b.bodies[at]; ok == s.is(slotGone) {
				return errHolders
			}
			s.refs = 0
			st.slab.index.use(at)
			st.slab.used++
			if !s.is(slotGone) {
				st.slab.bytes += s.bytes()
			}
		}
		st.slab.place(n*chunkSlots, 0)
		st.slab.chunks[n] = k
	}
	for _, i := range sorted(b.retained) {
		e := b.retained[i]
		st.retained.put(i, e)
		st.retainedNames.Set(e.topic, e)
	}
	for _, i := range sorted(b.delayed) {
		st.delayed.put(i, b.delayed[i])
	}
	return nil
}

func (b *builder) linkSessions() error {
	st := b.st
	for _, i := range sorted(b.sessions) {
		raw := b.sessions[i]
		s := &raw.session
		st.sessions.put(i, s)
		st.byClient[s.clientID] = i
		if s.persistent {
			st.persisted++
		}
		if s.connected {
			if s.life = st.lives.at(raw.life); s.life == nil {
				return errMissing
			}
			s.life.sessions++
			st.connected++
		}
		if s.d == nil {
			continue
		}
		s.d.outstanding = s.d.countShared()
		if err := b.linkSubs(s, raw); err != nil {
			return err
		}
		if err := b.linkShares(s, raw); err != nil {
			return err
		}
	}
	return nil
}

// countShared counts the shared messages that a session has not finished.
func (d *durable) countShared() int {
	n := 0
	for i := range d.private {
		if d.private[i].group != 0 {
			n++
		}
	}
	for i := range d.out2 {
		if d.out2[i].group != 0 {
			n++
		}
	}
	return n
}

func (b *builder) linkSubs(s *session, raw *rawSession) error {
	for _, sub := range raw.subs {
		f := b.st.filters.at(sub.filter)
		if f == nil {
			return errMissing
		}
		f.subs++
		s.d.subs = append(s.d.subs, subscription{filter: f, seen: sub.seen, spans: sub.spans})
		n := &s.d.subs[len(s.d.subs)-1]
		if !n.queued() {
			continue
		}
		if f.stream == nil {
			return errMissing
		}
		f.stream.positions.add(n.position(s.d.cursor), f.stream.last)
		if n.live() {
			f.stream.open++
		}
	}
	return nil
}

func (b *builder) linkShares(s *session, raw *rawSession) error {
	for _, share := range raw.shares {
		g := b.st.groups.at(share.group)
		if g == nil || g.dead {
			return errMissing
		}
		m := &member{group: g, session: s, last: share.last, id: share.id, opts: share.opts}
		s.d.shares = append(s.d.shares, m)
		g.add(m)
		m.refresh(b.st.limits.MaxReceiveWindow)
	}
	return nil
}

// linkHolders counts who holds each message.
func (b *builder) linkHolders() error {
	st := b.st
	wild := false
	held := func(i uint32) *slot {
		n := int(i / chunkSlots)
		if n >= len(st.slab.chunks) || st.slab.chunks[n] == nil || st.slab.at(i).size == 0 {
			wild = true
			return new(slot)
		}
		s := st.slab.at(i)
		s.refs++
		return s
	}
	for _, f := range b.filters {
		if f.stream != nil {
			f.stream.slots.all(func(i uint32) { f.stream.bytes += held(i).bytes() })
		}
	}
	for _, g := range b.groups {
		g.waiting.all(func(i uint32) { g.bytes += held(i).bytes() })
	}
	for _, s := range b.sessions {
		if s.will != noSlot {
			held(s.will)
		}
		if s.d == nil {
			continue
		}
		if s.d.heldWill != 0 {
			held(s.d.heldWill - 1)
		}
		for i := range s.d.private {
			held(s.d.private[i].slot)
		}
		for i := range s.d.out2 {
			held(s.d.out2[i].slot)
			st.mark(s.d.out2[i].slot)
		}
	}
	for _, e := range b.retained {
		held(e.slot)
	}
	for _, e := range b.delayed {
		held(e.slot)
	}
	for _, k := range st.slab.chunks {
		for i := range chunkSlots {
			wild = wild || k != nil && k.slots[i].size != 0 && k.slots[i].refs == 0
		}
	}
	if wild {
		return errHolders
	}
	return nil
}

// linkTimers rebuilds the heaps, the expiry lists and the work queue.
func (b *builder) linkTimers() error {
	st := b.st
	var listed []uint32
	for i := range st.slab.index.all() {
		if s := st.slab.at(i); s.deadline != 0 && !s.is(slotDead) && !s.is(slotWaits) {
			listed = append(listed, i)
		}
	}
	slices.SortFunc(listed, func(x, y uint32) int { return cmp.Compare(st.slab.at(x).seq, st.slab.at(y).seq) })
	for _, i := range listed {
		st.expiry.add(&st.slab, i)
	}
	for _, e := range b.retained {
		st.setRetainedTimer(e)
	}
	for _, e := range b.delayed {
		st.startDelayed(e)
	}
	b.linkWork()
	digest := st.digest // setting a session's timer counts as an effect; this is none
	for _, s := range b.sessions {
		if s.d != nil && !s.connected {
			st.setSessionTimer(&s.session)
		}
	}
	st.digest = digest
	return nil
}

func (b *builder) linkWork() {
	st := b.st
	add := func(q queued, kind uint8, id uint32) {
		if q.order != 0 {
			st.work = append(st.work, workItem{order: q.order, kind: kind, id: id})
			st.workCount++
		}
	}
	for i, l := range b.lives {
		add(l.work, workLife, i)
	}
	for i, f := range b.filters {
		add(f.work, workFilter, i)
	}
	for i, g := range b.groups {
		add(g.work, workGroup, i)
	}
	for i, s := range b.sessions {
		if s.d != nil {
			add(s.d.work, workSession, i)
		}
	}
	slices.SortFunc(st.work, func(x, y workItem) int { return cmp.Compare(x.order, y.order) })
}
