package packet

import "quorate/protocol/wire"

// Subscription is one Topic Filter of a SUBSCRIBE with its options (section
// 3.8.3.1). Before 5.0 there is only the QoS.
type Subscription struct {
	Filter            string // well-formed UTF-8; its syntax is not checked here
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte // 0 always, 1 for a new subscription, 2 never
}

// options returns the Subscription Options byte.
func (s *Subscription) options(v Version) byte {
	if v != V5 {
		return s.QoS
	}
	return s.QoS | flag(s.NoLocal, 2) | flag(s.RetainAsPublished, 3) | s.RetainHandling<<4
}

// Subscribe is SUBSCRIBE (section 3.8).
type Subscribe struct {
	PacketID       uint16
	SubscriptionID uint32 // 0: none
	UserProperties []UserProperty
	Subscriptions  []Subscription // at least one
}

// Type returns TypeSubscribe.
func (p *Subscribe) Type() Type { return TypeSubscribe }

// Append appends the packet.
func (p *Subscribe) Append(dst []byte, v Version) []byte {
	dst, mark := openLength(append(dst, byte(TypeSubscribe)<<4|flagsRequired))
	dst = wire.AppendUint16(dst, p.PacketID)
	if v == V5 {
		var properties int
		dst, properties = openLength(dst)
		if p.SubscriptionID != 0 {
			dst = wire.AppendVarInt(append(dst, propSubscriptionID), p.SubscriptionID)
		}
		dst = closeLength(appendUserProperties(dst, p.UserProperties), properties)
	}
	for i := range p.Subscriptions {
		s := &p.Subscriptions[i]
		dst = append(wire.AppendBytes16(dst, s.Filter), s.options(v))
	}
	return closeLength(dst, mark)
}

// Suback is SUBACK (section 3.9).
type Suback struct {
	PacketID    uint16
	ReasonCodes []ReasonCode // one for each filter, in order [MQTT-3.8.4-6]
	Properties  Properties   // Reason String and User Properties
}

// Type returns TypeSuback.
func (p *Suback) Type() Type { return TypeSuback }

// Append appends the packet. In 3.1.1 every failure is 0x80 [MQTT-3.9.3-2 of
// 3.1.1]; 3.1 has no failure code and gets QoS 0 instead: who answers such a
// client says there which QoS it asked for.
func (p *Suback) Append(dst []byte, v Version) []byte { return p.append(dst, v, 0) }

func (p *Suback) append(dst []byte, v Version, o omit) []byte {
	dst, mark := openLength(append(dst, byte(TypeSuback)<<4))
	dst = wire.AppendUint16(dst, p.PacketID)
	if v == V5 {
		dst = p.Properties.append(dst, ackProperties, o)
	}
	for _, code := range p.ReasonCodes {
		if code.Failed() && v == V311 {
			code = UnspecifiedError
		} else if code.Failed() && v == V31 {
			code = GrantedQoS0
		}
		dst = append(dst, byte(code))
	}
	return closeLength(dst, mark)
}

// Unsubscribe is UNSUBSCRIBE (section 3.10).
type Unsubscribe struct {
	PacketID       uint16
	UserProperties []UserProperty
	Filters        []string // at least one; syntax not checked here
}

// Type returns TypeUnsubscribe.
func (p *Unsubscribe) Type() Type { return TypeUnsubscribe }

// Append appends the packet.
func (p *Unsubscribe) Append(dst []byte, v Version) []byte {
	dst, mark := openLength(append(dst, byte(TypeUnsubscribe)<<4|flagsRequired))
	dst = wire.AppendUint16(dst, p.PacketID)
	if v == V5 {
		var properties int
		dst, properties = openLength(dst)
		dst = closeLength(appendUserProperties(dst, p.UserProperties), properties)
	}
	for _, f := range p.Filters {
		dst = wire.AppendBytes16(dst, f)
	}
	return closeLength(dst, mark)
}

// Unsuback is UNSUBACK (section 3.11).
type Unsuback struct {
	PacketID    uint16
	ReasonCodes []ReasonCode // one for each filter, in order; not sent before 5.0
	Properties  Properties   // Reason String and User Properties
}

// Type returns TypeUnsuback.
func (p *Unsuback) Type() Type { return TypeUnsuback }

// Append appends the packet.
func (p *Unsuback) Append(dst []byte, v Version) []byte { return p.append(dst, v, 0) }

func (p *Unsuback) append(dst []byte, v Version, o omit) []byte {
	dst, mark := openLength(append(dst, byte(TypeUnsuback)<<4))
	dst = wire.AppendUint16(dst, p.PacketID)
	if v == V5 {
		dst = p.Properties.append(dst, ackProperties, o)
		for _, code := range p.ReasonCodes {
			dst = append(dst, byte(code))
		}
	}
	return closeLength(dst, mark)
}
