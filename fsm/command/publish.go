package command

import (
	"fmt"

	"quorate/fsm/internal/codec"
)

// Message is an Application Message as it is published.
type Message struct {
	Topic         string
	QoS           byte
	Retain        bool
	HasExpiry     bool
	ExpirySeconds uint32
	// Forwarded are the version 5 properties that pass unaltered and in order, in their wire form [MQTT-3.3.2-17].
	Forwarded []byte
	Payload   []byte
	// body is the encoded topic, properties and payload as they were read; nil for a message that was built.
	body []byte
}

// Body is the form in which a message is stored and forwarded: topic, forwarded properties and payload, the first two
// with their lengths. A message that was decoded gives the bytes it was decoded from, without a copy.
func (m *Message) Body() []byte {
	if m.body != nil {
		return m.body
	}
	return m.AppendBody(make([]byte, 0, m.bodyBytes()))
}

// AppendBody appends the Body to dst.
func (m *Message) AppendBody(dst []byte) []byte {
	dst = codec.AppendString(dst, m.Topic)
	dst = codec.AppendString(dst, m.Forwarded)
	return append(dst, m.Payload...)
}

func (m *Message) bodyBytes() int {
	return uvarintBytes(len(m.Topic)) + len(m.Topic) + uvarintBytes(len(m.Forwarded)) + len(m.Forwarded) + len(m.Payload)
}

func uvarintBytes(v int) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// ParseBody takes a Body apart. Properties and payload alias b.
func ParseBody(b []byte) (topic string, forwarded, payload []byte, err error) {
	c := codec.NewCursor(b)
	topic = c.String()
	forwarded = c.Bytes()
	if err := c.Err(); err != nil {
		return "", nil, nil, fmt.Errorf("parse message body: %w", err)
	}
	return topic, forwarded, c.Rest(), nil
}

const (
	messageQoSMask   = 0x03
	messageRetain    = 0x04
	messageHasExpiry = 0x08
)

// append writes the message: flags, expiry if there is one, and the length-prefixed body.
func (m *Message) append(dst []byte) []byte {
	f := m.QoS & messageQoSMask
	if m.Retain {
		f |= messageRetain
	}
	if m.HasExpiry {
		f |= messageHasExpiry
	}
	dst = append(dst, f)
	if m.HasExpiry {
		dst = codec.AppendUvarint(dst, m.ExpirySeconds)
	}
	dst = codec.AppendUvarint(dst, m.bodyBytes())
	return m.AppendBody(dst)
}

func (m *Message) decode(c *codec.Cursor) {
	f := decodeFlags(c, 4)
	*m = Message{QoS: f & messageQoSMask, Retain: f&messageRetain != 0, HasExpiry: f&messageHasExpiry != 0}
	if m.QoS == 3 {
		c.Fail(fmt.Errorf("quality of service 3: %w", codec.ErrValue))
	}
	if m.HasExpiry {
		m.ExpirySeconds = c.Uint32()
	}
	m.body = c.Bytes()
	b := codec.NewCursor(m.body)
	m.Topic = b.String()
	m.Forwarded = b.Bytes()
	m.Payload = b.Rest()
	if b.Err() != nil {
		c.Fail(b.Err())
	}
}

// Publish puts a message into the order of the log.
type Publish struct {
	// Ref is the publisher's connection; zero for an internal publisher.
	Ref Ref
	// PacketID of a QoS 2 message, which the session then holds until Release; else 0.
	PacketID uint16
	// DelaySeconds above 0 stores the message, which is published that much later.
	DelaySeconds uint32
	// Local says that the origin node has already handed the message to its own live subscribers.
	Local bool
	Message
}

// Kind implements Command.
func (*Publish) Kind() Kind { return KindPublish }

// Append implements Command.
func (p *Publish) Append(dst []byte) []byte {
	dst = appendKind(dst, KindPublish)
	dst = append(dst, flags(p.Local, p.PacketID != 0, p.DelaySeconds != 0))
	dst = appendRef(dst, p.Ref)
	if p.PacketID != 0 {
		dst = codec.AppendUvarint(dst, p.PacketID)
	}
	if p.DelaySeconds != 0 {
		dst = codec.AppendUvarint(dst, p.DelaySeconds)
	}
	return p.append(dst)
}

func (p *Publish) decode(c *codec.Cursor) {
	f := decodeFlags(c, 3)
	p.Local = f&1 != 0
	p.Ref = decodeRef(c)
	p.PacketID, p.DelaySeconds = 0, 0
	if f&2 != 0 {
		p.PacketID = uint16(nonZero(c, 1<<16-1))
	}
	if f&4 != 0 {
		p.DelaySeconds = uint32(nonZero(c, 1<<32-1))
	}
	p.Message.decode(c)
}

func nonZero(c *codec.Cursor, limit uint64) uint64 {
	v := c.Max(limit)
	if v == 0 {
		c.Fail(fmt.Errorf("zero where a flag promised a value: %w", codec.ErrValue))
	}
	return v
}

// Release ends an inbound QoS 2 exchange: its PUBREL came.
type Release struct {
	Ref      Ref
	PacketID uint16
}

// Kind implements Command.
func (*Release) Kind() Kind { return KindRelease }

// Append implements Command.
func (r *Release) Append(dst []byte) []byte {
	dst = appendRef(appendKind(dst, KindRelease), r.Ref)
	return codec.AppendUvarint(dst, r.PacketID)
}

func (r *Release) decode(c *codec.Cursor) { *r = Release{Ref: decodeRef(c), PacketID: c.Uint16()} }
