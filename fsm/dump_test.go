package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// dump writes the whole state as text: with derived state too, and without what depends on the borders of entries and
// batches when log is false.
func dump(st *state, log bool) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if log {
		p("applied %d", st.applied)
	}
	p("now %d digest %x seq %d serial %d epoch %d groups %d delays %d work %d lost %d %d %d", st.now, st.digest, st.seq, st.serial,
		st.epoch, st.groupSerial, st.delayOrder, st.workOrder, st.dropped, st.expired, st.refused)
	p("limits %+v", st.limits)
	p("counts %d %d %d %d slab %d %d", st.connected, st.persisted, st.routes, st.streams, st.slab.used, st.slab.bytes)
	for _, n := range st.nodes.cells {
		if n == nil {
			continue
		}
		last := n.lastBatch
		if !log {
			last = 0
		}
		p("node %d %s %s %s %d inc %d last %d up %t", n.index, n.id, n.name, n.addr, n.format, n.incarnation, last, n.life != nil)
	}
	for _, l := range st.lives.cells {
		if l != nil {
			p("life %d of %s inc %d up %t at %d cursors %d %d work %d: %d sessions %d routes", l.index, l.node.id, l.incarnation,
				l.up, l.downAt, l.sessionCursor, l.filterCursor, l.work.order, l.sessions, l.routes)
		}
	}
	for _, f := range st.filters.cells {
		if f == nil {
			continue
		}
		g, ok := st.tree.Get(f.name)
		p("filter %d %q routes %v subs %d groups %d work %d in tree %t", f.index, f.name, f.routes, f.subs, len(f.groups), f.work.order, ok && g == f)
		if m := f.stream; m != nil {
			p("  stream bytes %d last %d base %d open %d positions %+v slots %v", m.bytes, m.last, m.base, m.open, m.positions, slotsOf(&m.slots))
		}
	}
	for _, g := range st.groups.cells {
		if g == nil {
			continue
		}
		p("group %d id %d %q dead %t work %d bytes %d waiting %v", g.index, g.id, g.share, g.dead, g.work.order, g.bytes, slotsOf(&g.waiting))
		members := slices.Clone(g.members)
		// Not by their keys: that of a member whose node is dead is put right when it is looked at.
		slices.SortFunc(members, func(a, b *member) int { return cmp.Compare(a.session.serial, b.session.serial) })
		for _, m := range members {
			p("  member %s last %d id %d opts %d load %d ready %t", m.session.clientID, m.last, m.id, m.opts, m.load, m.ready && m.session.alive())
		}
	}
	for _, s := range st.sessions.cells {
		if s != nil {
			dumpSession(p, st, s)
		}
	}
	for _, e := range st.retained.cells {
		if e != nil {
			p("retained %d %q slot %d timer %t", e.index, e.topic, e.slot, e.timer != nil && e.timer.pos >= 0)
		}
	}
	for _, e := range st.delayed.cells {
		if e != nil {
			p("delayed %d slot %d due %d order %d", e.index, e.slot, e.due, e.order)
		}
	}
	for i := range st.slab.index.all() {
		s := st.slab.at(i)
		p("slot %d seq %d deadline %d publisher %d size %x refs %d marked %d", i, s.seq, s.deadline, s.publisher, s.size, s.refs, st.marked[i])
	}
	dumpQueues(p, st)
	return b.String()
}

func slotsOf(l *list) []uint32 {
	var out []uint32
	l.all(func(s uint32) { out = append(out, s) })
	if len(out) != l.count {
		panic("list count is wrong")
	}
	return out
}

func dumpSession(p func(string, ...any), st *state, s *session) {
	node := "-"
	if s.connected {
		node = fmt.Sprint(s.life.index)
	}
	p("session %d %q %q serial %d epoch %d life %s last %d expiry %d will %d+%d window %d v%d connected %t persistent %t by client %d",
		s.slot, s.clientID, s.identity, s.serial, s.epoch, node, s.lastNode, s.expiry, s.will, s.willDelay, s.receiveMax, s.version,
		s.connected, s.persistent, st.byClient[s.clientID])
	d := s.d
	if d == nil {
		return
	}
	p("  cursor %d done %v in2 %v sent %d dropped %d will due %d expire %d held %d at %d outstanding %d work %d", d.cursor, d.done, d.in2, d.sent,
		d.dropped, d.willDue, d.expireAt, d.heldWill, d.heldDue, d.outstanding, d.work.order)
	for i := range d.subs {
		p("  sub %q seen %d spans %v", d.subs[i].filter.name, d.subs[i].seen, d.subs[i].spans)
	}
	for _, m := range d.shares {
		p("  share %d", m.group.id)
	}
	p("  private %v out2 %v owed %v", d.private, d.out2, d.owed)
}

// dumpQueues shows heaps in the order in which they empty, and the lists of what waits.
func dumpQueues(p func(string, ...any), st *state) {
	timers := slices.Clone(st.deadlines.heap)
	slices.SortFunc(timers, (*timer).compare)
	for _, t := range timers {
		p("timer %d kind %d id %d tie %d", t.at, t.kind, t.id, t.tie)
	}
	var keys []uint64
	for key := range st.expiry.lists {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		var slots []uint32
		for i := st.expiry.lists[key].head; i != noSlot; i = st.slab.at(i).next {
			slots = append(slots, i)
		}
		p("expiry %d %v in heap %t", key, slots, slices.Contains(st.expiry.heap, key))
	}
	n := 0
	for _, it := range st.work {
		if live(st, it) {
			p("work %+v", it)
			n++
		}
	}
	p("work count %d of %d", st.workCount, n)
}

// live tells whether a work item is still meant.
func live(st *state, it workItem) bool {
	switch it.kind {
	case workLife:
		l := st.lives.at(it.id)
		return l != nil && l.work.order == it.order
	case workFilter:
		f := st.filters.at(it.id)
		return f != nil && f.work.order == it.order
	case workGroup:
		g := st.groups.at(it.id)
		return g != nil && g.work.order == it.order
	default:
		s := st.sessions.at(it.id)
		return s != nil && s.d != nil && s.d.work.order == it.order
	}
}
