package broker

import (
	"bytes"

	"quorate/fsm"
	"quorate/node/client"
	"quorate/protocol/packet"
)

// message is an Application Message on its way to subscribers. The QoS and flags are those of the publisher.
type message struct {
	seq       uint64 // its place in the log; 0: it is not there
	topic     string
	forwarded []byte
	payload   []byte
	qos       byte
	retain    bool
	publisher uint64 // Serial of the publisher's session, for No Local; 0: none
	deadline  uint64 // stamp in milliseconds at which it expires; 0: never
	owned     bool   // forwarded and payload are nobody else's and stay unchanged
}

// own makes the message independent of the buffer it was decoded from.
func (m *message) own() *message {
	if !m.owned {
		m.forwarded, m.payload, m.owned = bytes.Clone(m.forwarded), bytes.Clone(m.payload), true
	}
	return m
}

// kept returns a copy that may be queued.
func (m *message) kept() *message {
	c := *m
	return c.own()
}

// bytes is what the message counts against bounds of queues.
func (m *message) bytes() int { return len(m.topic) + len(m.forwarded) + len(m.payload) + 64 }

// expired returns whether the message must not be sent any more [MQTT-3.3.2-5].
func (m *message) expired(now uint64) bool { return m.deadline != 0 && now >= m.deadline }

// header is a PUBLISH without its payload, encoded.
type header struct {
	bytes    []byte
	idOffset int
}

// publish returns the packet for one subscriber. The Message Expiry Interval is what is left, never 0 [MQTT-3.3.2-6].
func (m *message) publish(qos byte, retain bool, subIDs []uint32, now uint64) packet.Publish {
	p := packet.Publish{QoS: qos, Retain: retain, Topic: m.topic, Forwarded: m.forwarded, Payload: m.payload, SubscriptionIDs: subIDs}
	if m.deadline > now {
		p.HasExpiry = true
		p.ExpirySeconds = uint32(min(max((m.deadline-now+500)/1000, 1), never))
	}
	return p
}

// appendHeader appends the header of the message for one subscriber to dst.
func (m *message) appendHeader(dst []byte, v packet.Version, qos byte, retain bool, subIDs []uint32, now uint64) (header, []byte) {
	p := m.publish(qos, retain, subIDs, now)
	at := len(dst)
	dst, offset := packet.AppendPublishHeader(dst, &p, v)
	return header{dst[at:len(dst):len(dst)], offset - at}, dst
}

// fanOut hands one message to many connections. The header is encoded once for each version, QoS and RETAIN flag, and
// again only for subscribers with Subscription Identifiers. A fanOut belongs to one goroutine and is used again, so that
// a message costs no allocation.
type fanOut struct {
	b     *Broker
	m     *message
	msg   message // where m may stand: on the stack of who begins it, it would escape: 112 B a QoS 0 message
	now   uint64
	batch client.Batch

	heads   [12]header // by version 5, QoS and RETAIN
	scratch []byte     // what heads point into
	ids     []uint32

	matched [][]*sub
	merged  map[*link]int // index into overlaps
	overlap []target
	queued  *message // copy of m that queues share
	sent    int      // subscribers that the message was meant for

	// Counts since the last flush, by QoS.
	delivered, published [3]uint64
	publishedBytes       uint64

	frame []byte // to other nodes
}

// begin starts with another message.
func (f *fanOut) begin(m *message) {
	f.m, f.queued, f.sent = m, nil, 0
	f.heads = [12]header{}
	f.scratch = f.scratch[:0]
	f.now = 0
	if m.deadline != 0 {
		f.now = f.b.now()
	}
}

// end forgets the message, which may be of a buffer that is used again.
func (f *fanOut) end() {
	f.m, f.queued, f.msg = nil, nil, message{}
	clear(f.matched)
	f.matched = f.matched[:0]
	if cap(f.scratch) > 64<<10 {
		f.scratch = nil
	}
}

// flush has the connections written that got something, by others.
func (f *fanOut) flush() {
	f.batch.Flush()
	f.count()
}

// flushHere is flush for a reader that has handled all that it read.
func (f *fanOut) flushHere() {
	f.batch.FlushHere()
	f.count()
}

// count adds to the node's counters: once for a run of messages, because those are shared by all.
func (f *fanOut) count() {
	m := &f.b.metrics
	for qos := range f.delivered {
		if n := f.delivered[qos]; n > 0 {
			m.Delivered[qos].Add(n)
			f.delivered[qos] = 0
		}
		if n := f.published[qos]; n > 0 {
			m.Published[qos].Add(n)
			f.published[qos] = 0
		}
	}
	if f.publishedBytes > 0 {
		m.PublishedBytes.Add(f.publishedBytes)
		f.publishedBytes = 0
	}
}

// head returns the header for a subscriber. It stays valid until end.
func (f *fanOut) head(v packet.Version, qos byte, retain bool, subIDs []uint32) header {
	slot := int(qos) * 2
	if retain {
		slot++
	}
	if v == packet.V5 {
		slot += 6
	}
	if len(subIDs) > 0 && v == packet.V5 {
		var h header
		h, f.scratch = f.m.appendHeader(f.scratch, v, qos, retain, subIDs, f.now)
		return h
	}
	if h := &f.heads[slot]; h.bytes == nil {
		*h, f.scratch = f.m.appendHeader(f.scratch, v, qos, retain, nil, f.now)
	}
	return f.heads[slot]
}

// outgoing is what a Session's Outbound carries: a message as one subscriber gets it.
type outgoing struct {
	msg    *message
	retain bool
	subIDs []uint32
}

// ofDelivery makes an outgoing of what the machine gave.
func ofDelivery(d *fsm.Delivery) outgoing {
	return outgoing{
		msg: &message{
			topic: d.Topic, forwarded: d.Forwarded, payload: d.Payload, qos: d.QoS, deadline: d.Deadline, owned: true,
		},
		retain: d.Retain, subIDs: d.SubIDs,
	}
}

// ofMachine makes a message of what the machine shows during a call.
func ofMachine(m *fsm.Message) message {
	return message{
		seq: m.Seq, topic: m.Topic, forwarded: m.Forwarded, payload: m.Payload, qos: m.QoS, retain: m.Retain,
		publisher: m.Publisher, deadline: m.Deadline,
	}
}
