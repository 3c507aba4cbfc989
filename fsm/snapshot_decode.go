package fsm

import (
	"errors"
	"fmt"

	"quorate/fsm/command"
	"quorate/fsm/internal/codec"
)

var (
	errTwice   = errors.New("index is there twice")
	errMissing = errors.New("refers to something that is not there")
	errKind    = errors.New("unknown kind of record")
)

func newBuilder(self command.NodeID, bodies Bodies) *builder {
	return &builder{
		st: newState(self, bodies), nodes: map[uint32]*rawNode{}, lives: map[uint32]*rawLife{}, filters: map[uint32]*filter{},
		groups: map[uint32]*rawGroup{}, sessions: map[uint32]*rawSession{}, retained: map[uint32]*retained{},
		delayed: map[uint32]*delayed{}, chunks: map[uint32]*chunk{}, bodies: map[uint32]struct{}{},
	}
}

// put adds v under index i of a table.
func put[T any](c *codec.Cursor, table map[uint32]*T, i uint32, v *T) {
	if _, ok := table[i]; ok {
		c.Fail(errTwice)
		return
	}
	if c.Err() == nil {
		table[i] = v
	}
}

// add decodes one record.
func (b *builder) add(kind byte, body []byte) error {
	c := codec.NewCursor(body)
	switch kind {
	case recordHeader:
		b.header(&c)
	case recordNode:
		b.node(&c)
	case recordLife:
		b.life(&c)
	case recordFilter:
		b.filter(&c)
	case recordFilterSlots:
		f := b.filters[c.Uint32()]
		if f == nil || f.stream == nil {
			return errMissing
		}
		slots(&c, &f.stream.slots)
	case recordGroup:
		b.group(&c)
	case recordGroupSlots:
		g := b.groups[c.Uint32()]
		if g == nil {
			return errMissing
		}
		slots(&c, &g.waiting)
	case recordSession:
		b.session(&c)
	case recordRetained:
		e := &retained{index: c.Uint32(), topic: c.String(), slot: c.Uint32()}
		put(&c, b.retained, e.index, e)
	case recordDelayed:
		e := &delayed{index: c.Uint32(), slot: c.Uint32(), due: c.Uvarint(), order: c.Uvarint()}
		put(&c, b.delayed, e.index, e)
	case recordChunk:
		b.chunk(&c)
	case recordBody:
		return b.body(&c)
	default:
		return errKind
	}
	if c.Err() == nil && c.Len() != 0 {
		return fmt.Errorf("%d bytes too many: %w", c.Len(), codec.ErrValue)
	}
	return c.Err()
}

func slots(c *codec.Cursor, l *list) {
	for c.Len() > 0 {
		l.push(c.Uint32())
	}
}

func (b *builder) header(c *codec.Cursor) {
	for _, v := range []*uint64{
		&b.st.applied, &b.st.now, &b.st.digest, &b.st.seq, &b.st.serial, &b.st.epoch, &b.st.groupSerial, &b.st.delayOrder,
		&b.st.workOrder, &b.st.dropped, &b.st.expired, &b.st.refused,
	} {
		*v = c.Uvarint()
	}
	b.st.limits = command.DecodeLimits(c)
}

func (b *builder) node(c *codec.Cursor) {
	n := &rawNode{node: node{
		index: c.Uint32(), id: command.NodeID(c.String()), name: c.String(), addr: c.String(), format: byte(c.Max(255)),
		incarnation: c.Uvarint(), lastBatch: c.Uvarint(),
	}}
	n.life = c.Uint32()
	put(c, b.nodes, n.index, n)
}

func (b *builder) life(c *codec.Cursor) {
	l := &rawLife{life: life{index: c.Uint32()}}
	l.node = c.Uint32()
	l.incarnation, l.downAt = c.Uvarint(), c.Uvarint()
	l.sessionCursor, l.filterCursor = c.Uint32(), c.Uint32()
	l.work.order = c.Uvarint()
	l.up = c.Byte()&1 != 0
	put(c, b.lives, l.index, l)
}

func (b *builder) filter(c *codec.Cursor) {
	f := &filter{index: c.Uint32(), name: c.String()}
	f.work.order = c.Uvarint()
	for range c.Count(1) {
		f.routes = append(f.routes, c.Uint32())
	}
	if c.Byte() != 0 {
		f.stream = &stream{last: c.Uvarint(), base: c.Uvarint()}
	}
	put(c, b.filters, f.index, f)
}

func (b *builder) group(c *codec.Cursor) {
	g := &rawGroup{group: group{index: c.Uint32(), id: c.Uvarint(), share: c.String()}}
	g.filter = c.Uint32()
	g.dead = g.filter == 0
	g.work.order = c.Uvarint()
	put(c, b.groups, g.index, g)
}

func (b *builder) session(c *codec.Cursor) {
	s := &rawSession{session: session{
		slot: c.Uint32(), serial: c.Uvarint(), epoch: c.Uvarint(), clientID: c.String(), identity: c.String(), version: c.Byte(),
		will: noSlot,
	}}
	flags := c.Byte()
	s.connected, s.persistent = flags&1 != 0, flags&2 != 0
	if s.connected {
		s.life = c.Uint32()
	}
	s.lastNode, s.expiry, s.receiveMax, s.willDelay = c.Uint32(), c.Uint32(), c.Uint16(), c.Uint32()
	if will := c.Uint32(); will != 0 {
		s.will = will - 1
	}
	if flags&4 != 0 {
		b.durable(c, s)
	} else if s.persistent || !s.connected {
		c.Fail(errMissing)
	}
	put(c, b.sessions, s.slot, s)
}

func (b *builder) durable(c *codec.Cursor, s *rawSession) {
	d := &durable{timer: timer{kind: timerSession, id: s.slot, tie: s.serial, pos: -1}}
	s.d = d
	d.cursor, d.sent, d.dropped, d.willDue, d.expireAt = c.Uvarint(), c.Uvarint(), c.Uvarint(), c.Uvarint(), c.Uvarint()
	d.work.order, d.heldWill, d.heldDue = c.Uvarint(), c.Uint32(), c.Uvarint()
	for range c.Count(1) {
		d.done = append(d.done, c.Uvarint())
	}
	for range c.Count(1) {
		d.in2 = append(d.in2, c.Uint16())
	}
	for range c.Count(3) {
		sub := rawSub{filter: c.Uint32(), seen: c.Uvarint()}
		for range c.Count(4) {
			sub.spans = append(sub.spans, span{from: c.Uvarint(), until: c.Uvarint(), id: c.Uint32(), opts: options(c.Max(63))})
		}
		if len(sub.spans) == 0 {
			c.Fail(errMissing)
		}
		s.subs = append(s.subs, sub)
	}
	for range c.Count(4) {
		s.shares = append(s.shares, rawShare{group: c.Uint32(), last: c.Uvarint(), id: c.Uint32(), opts: options(c.Max(63))})
	}
	for range c.Count(5) {
		it := privateItem{seq: c.Uvarint(), group: c.Uvarint(), slot: c.Uint32(), subID: c.Uint32()}
		flags := c.Byte()
		it.qos, it.retain = flags&3, flags&4 != 0
		d.private = append(d.private, it)
	}
	for range c.Count(5) {
		it := outItem{seq: c.Uvarint(), group: c.Uvarint(), slot: c.Uint32()}
		flags := c.Byte()
		it.retain, it.received, it.alone = flags&1 != 0, flags&2 != 0, flags&4 != 0
		for range c.Count(1) {
			it.subIDs = append(it.subIDs, c.Uint32())
		}
		d.out2 = append(d.out2, it)
	}
	for range c.Count(5) {
		d.owed = append(d.owed, owed{filter: c.String(), after: c.String(), from: c.Uvarint(), id: c.Uint32(), opts: options(c.Max(63))})
	}
}

func (b *builder) chunk(c *codec.Cursor) {
	n := uint32(c.Max((1<<32 - 1) / chunkSlots))
	k := &chunk{slots: new([chunkSlots]slot)}
	for c.Len() > 0 {
		i := c.Max(chunkSlots - 1)
		s := slot{seq: c.Uvarint(), deadline: c.Uvarint(), publisher: c.Uvarint(), next: noSlot, prev: noSlot}
		s.size = uint32(c.Max(bodyBytesMax))
		s.set(c.Byte() &^ slotListed)
		// refs is counted when everything is linked; until then 1 says that the slot is in use.
		s.refs = 1
		if c.Err() == nil && k.slots[i].refs != 0 {
			c.Fail(errTwice)
		}
		k.slots[i] = s
		k.used++
	}
	put(c, b.chunks, n, k)
}

// body stores the body of a slot whose chunk has been read.
func (b *builder) body(c *codec.Cursor) error {
	i := c.Uint32()
	body := c.Rest()
	k := b.chunks[i/chunkSlots]
	if c.Err() != nil || k == nil || k.slots[i%chunkSlots].refs == 0 {
		return errors.Join(c.Err(), errMissing)
	}
	s := &k.slots[i%chunkSlots]
	if _, ok := b.bodies[i]; ok || s.is(slotGone) || s.bytes() != uint64(len(body)) {
		return fmt.Errorf("body of %d bytes for slot %d: %w", len(body), i, errTwice)
	}
	s.body = b.st.bodies.Put(body, s.is(slotLong))
	b.bodies[i] = struct{}{}
	return nil
}
