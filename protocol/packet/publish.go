package packet

import (
	"encoding/binary"

	"quorate/protocol/wire"
)

// Publish is PUBLISH (section 3.3).
type Publish struct {
	Dup             bool
	QoS             byte
	Retain          bool
	Topic           string // empty only with a TopicAlias
	PacketID        uint16 // 0 with QoS 0
	TopicAlias      uint16 // 0: none
	ExpirySeconds   uint32 // counts with HasExpiry
	HasExpiry       bool
	SubscriptionIDs []uint32 // from a server only; twice the same is legal
	// Forwarded are the properties that a server passes on unaltered, as they stand
	// in the packet and in their order: Payload Format Indicator, Content Type,
	// Response Topic, Correlation Data, User Properties [MQTT-3.3.2-4, -15 to -18,
	// -20]. ParseForwarded reads them, AppendForwarded makes them.
	Forwarded []byte
	Payload   []byte
}

// Type returns TypePublish.
func (p *Publish) Type() Type { return TypePublish }

// Append appends the packet.
func (p *Publish) Append(dst []byte, v Version) []byte {
	dst, _ = AppendPublish(dst, p, v)
	return dst
}

// Size returns how many bytes the whole packet takes, as Maximum Packet Size
// counts them.
func (p *Publish) Size(v Version) int {
	rest, _ := p.lengths(v)
	return 1 + wire.VarIntLen(uint32(rest)) + rest
}

// lengths returns the Remaining Length and the property length.
func (p *Publish) lengths(v Version) (rest, properties int) {
	rest = 2 + len(p.Topic) + len(p.Payload)
	if p.QoS > 0 {
		rest += 2
	}
	if v == V5 {
		properties = len(p.Forwarded)
		if p.TopicAlias != 0 {
			properties += 3
		}
		if p.HasExpiry {
			properties += 5
		}
		for _, id := range p.SubscriptionIDs {
			properties += 1 + wire.VarIntLen(id)
		}
		rest += wire.VarIntLen(uint32(properties)) + properties
	}
	return rest, properties
}

// AppendPublish appends the packet and returns where its packet identifier
// stands in the result, or -1 with QoS 0. So a fan-out encodes a message once for
// each version and QoS, copies the bytes, and sets what differs with SetPacketID
// and SetDup.
func AppendPublish(dst []byte, p *Publish, v Version) (out []byte, idOffset int) {
	dst, idOffset = AppendPublishHeader(dst, p, v)
	return append(dst, p.Payload...), idOffset
}

// AppendPublishHeader is AppendPublish without the payload, which the caller
// sends behind it: a large payload need not be copied for each subscriber.
func AppendPublishHeader(dst []byte, p *Publish, v Version) (out []byte, idOffset int) {
	rest, properties := p.lengths(v)
	dst = append(dst, byte(TypePublish)<<4|flag(p.Dup, 3)|p.QoS<<1|flag(p.Retain, 0))
	dst = wire.AppendVarInt(dst, uint32(rest))
	dst = wire.AppendBytes16(dst, p.Topic)
	idOffset = -1
	if p.QoS > 0 {
		idOffset = len(dst)
		dst = wire.AppendUint16(dst, p.PacketID)
	}
	if v != V5 {
		return dst, idOffset
	}
	dst = wire.AppendVarInt(dst, uint32(properties))
	if p.TopicAlias != 0 {
		dst = wire.AppendUint16(append(dst, propTopicAlias), p.TopicAlias)
	}
	if p.HasExpiry {
		dst = wire.AppendUint32(append(dst, propMessageExpiry), p.ExpirySeconds)
	}
	for _, id := range p.SubscriptionIDs {
		dst = wire.AppendVarInt(append(dst, propSubscriptionID), id)
	}
	return append(dst, p.Forwarded...), idOffset
}

// SetPacketID puts id into an encoded PUBLISH. offset is what AppendPublish
// returned, less where the packet begins if b begins there.
func SetPacketID(b []byte, offset int, id uint16) { binary.BigEndian.PutUint16(b[offset:], id) }

// SetDup sets the DUP flag of the encoded PUBLISH at the start of b
// [MQTT-3.3.1-1].
func SetDup(b []byte) { b[0] |= 1 << 3 }

func flag(set bool, bit int) byte {
	if set {
		return 1 << bit
	}
	return 0
}

// Forwarded is the readable form of Publish.Forwarded and Will.Forwarded.
type Forwarded struct {
	PayloadIsUTF8   bool // Payload Format Indicator is 1
	ContentType     string
	ResponseTopic   string
	CorrelationData []byte // nil: none
	UserProperties  []UserProperty
}

// AppendForwarded appends the properties as Publish.Forwarded has them.
func AppendForwarded(dst []byte, f *Forwarded) []byte {
	if f.PayloadIsUTF8 {
		dst = append(dst, propPayloadFormat, 1)
	}
	if f.ContentType != "" {
		dst = wire.AppendBytes16(append(dst, propContentType), f.ContentType)
	}
	if f.ResponseTopic != "" {
		dst = wire.AppendBytes16(append(dst, propResponseTopic), f.ResponseTopic)
	}
	if f.CorrelationData != nil {
		dst = wire.AppendBytes16(append(dst, propCorrelationData), f.CorrelationData)
	}
	return appendUserProperties(dst, f.UserProperties)
}
