package fsm

import (
	"quorate/fsm/command"
	"quorate/fsm/internal/codec"
)

// A snapshot is:
//
//	"QFSM" version(1)
//	records: kind byte, length, that many bytes
//	the end record: kind 0, length, the number of records before it, CRC32C (4 bytes, little endian) of all bytes before the CRC
//
// The header record is the first, a chunk record precedes the body records of its slots, the list records of a filter
// or group follow it in order; otherwise records are in any order. Numbers are varints. Kinds are only ever added; a
// change of a record's layout is a new version of the whole. Derived state is not in it.
const (
	snapshotMagic   = "QFSM"
	snapshotVersion = 1

	recordEnd         = 0
	recordHeader      = 1
	recordNode        = 2
	recordLife        = 3
	recordFilter      = 4
	recordFilterSlots = 5
	recordGroup       = 6
	recordGroupSlots  = 7
	recordSession     = 8
	recordRetained    = 9
	recordDelayed     = 10
	recordChunk       = 11
	recordBody        = 12

	// recordBytesMax bounds what a reader takes for one record. A session with a full Receive Window is far below.
	recordBytesMax = 64 << 20
	// listSlotsMax is how many slots one list record holds.
	listSlotsMax = 16 * 1024
)

// optional writes an index that may be absent: 0 for none.
func optional(dst []byte, index uint32, present bool) []byte {
	if !present {
		return append(dst, 0)
	}
	return codec.AppendUvarint(dst, uint64(index)+1)
}

func appendNumbers(dst []byte, numbers ...uint64) []byte {
	for _, v := range numbers {
		dst = codec.AppendUvarint(dst, v)
	}
	return dst
}

func bit(b bool, n int) byte {
	if b {
		return 1 << n
	}
	return 0
}

func (st *state) appendHeader(dst []byte) []byte {
	dst = appendNumbers(dst, st.applied, st.now, st.digest, st.seq, st.serial, st.epoch, st.groupSerial, st.delayOrder,
		st.workOrder, st.dropped, st.expired, st.refused)
	return command.AppendLimits(dst, &st.limits)
}

func (st *state) nodeRecord(n *node) record {
	b := appendNumbers(nil, uint64(n.index))
	b = codec.AppendString(b, string(n.id))
	b = codec.AppendString(b, n.name)
	b = codec.AppendString(b, n.addr)
	b = appendNumbers(b, uint64(n.format), n.incarnation, n.lastBatch)
	if n.life == nil {
		return record{kind: recordNode, body: append(b, 0)}
	}
	return record{kind: recordNode, body: optional(b, n.life.index, true)}
}

func (st *state) lifeRecord(l *life) record {
	b := appendNumbers(nil, uint64(l.index), uint64(l.node.index), l.incarnation, l.downAt,
		uint64(l.sessionCursor), uint64(l.filterCursor), l.work.order)
	return record{kind: recordLife, body: append(b, bit(l.up, 0))}
}

func (st *state) filterRecord(f *filter) record {
	b := appendNumbers(nil, uint64(f.index))
	b = codec.AppendString(b, f.name)
	b = appendNumbers(b, f.work.order, uint64(len(f.routes)))
	for _, life := range f.routes {
		b = codec.AppendUvarint(b, life)
	}
	r := record{kind: recordFilter, index: f.index}
	if f.stream == nil {
		r.body = append(b, 0)
		return r
	}
	r.body = appendNumbers(append(b, 1), f.stream.last, f.stream.base)
	r.list = f.stream.slots.view()
	return r
}

func (st *state) groupRecord(g *group) record {
	b := appendNumbers(nil, uint64(g.index), g.id)
	b = codec.AppendString(b, g.share)
	b = optional(b, g.filter.index, !g.dead)
	b = appendNumbers(b, g.work.order)
	return record{kind: recordGroup, body: b, index: g.index, list: g.waiting.view()}
}

func (st *state) sessionRecord(s *session) record {
	b := appendNumbers(nil, uint64(s.slot), s.serial, s.epoch)
	b = codec.AppendString(b, s.clientID)
	b = codec.AppendString(b, s.identity)
	b = append(b, s.version, bit(s.connected, 0)|bit(s.persistent, 1)|bit(s.d != nil, 2))
	if s.connected {
		b = codec.AppendUvarint(b, s.life.index)
	}
	b = appendNumbers(b, uint64(s.lastNode), uint64(s.expiry), uint64(s.receiveMax), uint64(s.willDelay))
	b = optional(b, s.will, s.will != noSlot)
	if s.d != nil {
		b = appendDurable(b, s.d)
	}
	return record{kind: recordSession, body: b}
}

func appendDurable(b []byte, d *durable) []byte {
	b = appendNumbers(b, d.cursor, d.sent, d.dropped, d.willDue, d.expireAt, d.work.order, uint64(d.heldWill), d.heldDue,
		uint64(len(d.done)))
	b = appendNumbers(b, d.done...)
	b = codec.AppendUvarint(b, len(d.in2))
	for _, id := range d.in2 {
		b = codec.AppendUvarint(b, id)
	}
	b = codec.AppendUvarint(b, len(d.subs))
	for i := range d.subs {
		sub := &d.subs[i]
		b = appendNumbers(b, uint64(sub.filter.index), sub.seen, uint64(len(sub.spans)))
		for _, sp := range sub.spans {
			b = appendNumbers(b, sp.from, sp.until, uint64(sp.id), uint64(sp.opts))
		}
	}
	b = codec.AppendUvarint(b, len(d.shares))
	for _, m := range d.shares {
		b = appendNumbers(b, uint64(m.group.index), m.last, uint64(m.id), uint64(m.opts))
	}
	b = codec.AppendUvarint(b, len(d.private))
	for _, it := range d.private {
		b = appendNumbers(b, it.seq, it.group, uint64(it.slot), uint64(it.subID))
		b = append(b, it.qos|bit(it.retain, 2))
	}
	b = codec.AppendUvarint(b, len(d.out2))
	for i := range d.out2 {
		it := &d.out2[i]
		b = appendNumbers(b, it.seq, it.group, uint64(it.slot))
		b = append(b, bit(it.retain, 0)|bit(it.received, 1)|bit(it.alone, 2))
		b = codec.AppendUvarint(b, len(it.subIDs))
		for _, id := range it.subIDs {
			b = codec.AppendUvarint(b, id)
		}
	}
	b = codec.AppendUvarint(b, len(d.owed))
	for _, o := range d.owed {
		b = codec.AppendString(b, o.filter)
		b = codec.AppendString(b, o.after)
		b = appendNumbers(b, o.from, uint64(o.id), uint64(o.opts))
	}
	return b
}

func (st *state) retainedRecord(e *retained) record {
	b := codec.AppendUvarint(nil, e.index)
	b = codec.AppendString(b, e.topic)
	return record{kind: recordRetained, body: codec.AppendUvarint(b, e.slot)}
}

func (st *state) delayedRecord(e *delayed) record {
	return record{kind: recordDelayed, body: appendNumbers(nil, uint64(e.index), uint64(e.slot), e.due, e.order)}
}

// chunkRecord copies a chunk: it is encoded, and its bodies are read, outside the machine's lock.
func chunkRecord(n uint32, c *chunk) record {
	slots := *c.slots
	return record{kind: recordChunk, index: n, chunk: &chunk{slots: &slots}}
}

// appendChunk encodes the slots in use of a chunk.
func appendChunk(b []byte, n uint32, c *chunk) []byte {
	b = codec.AppendUvarint(b, n)
	for i := range c.slots {
		s := &c.slots[i]
		if s.refs == 0 {
			continue
		}
		flags := s.flags() &^ slotListed
		b = appendNumbers(b, uint64(i), s.seq, s.deadline, s.publisher, s.bytes())
		b = append(b, flags)
	}
	return b
}
