package packet

import "quorate/protocol/wire"

// Puback is PUBACK, the answer to a QoS 1 PUBLISH (section 3.4). Like the other
// three it has a Reason Code and properties in 5.0 only.
type Puback struct {
	PacketID   uint16
	ReasonCode ReasonCode
	Properties Properties // Reason String and User Properties
}

// Pubrec is PUBREC, the first answer to a QoS 2 PUBLISH (section 3.5).
type Pubrec struct {
	PacketID   uint16
	ReasonCode ReasonCode
	Properties Properties // Reason String and User Properties
}

// Pubrel is PUBREL, the answer to PUBREC (section 3.6).
type Pubrel struct {
	PacketID   uint16
	ReasonCode ReasonCode
	Properties Properties // Reason String and User Properties
}

// Pubcomp is PUBCOMP, the end of a QoS 2 exchange (section 3.7).
type Pubcomp struct {
	PacketID   uint16
	ReasonCode ReasonCode
	Properties Properties // Reason String and User Properties
}

// Type returns TypePuback.
func (p *Puback) Type() Type { return TypePuback }

// Type returns TypePubrec.
func (p *Pubrec) Type() Type { return TypePubrec }

// Type returns TypePubrel.
func (p *Pubrel) Type() Type { return TypePubrel }

// Type returns TypePubcomp.
func (p *Pubcomp) Type() Type { return TypePubcomp }

// Append appends the packet in its shortest form.
func (p *Puback) Append(dst []byte, v Version) []byte { return p.append(dst, v, 0) }

// Append appends the packet in its shortest form.
func (p *Pubrec) Append(dst []byte, v Version) []byte { return p.append(dst, v, 0) }

// Append appends the packet in its shortest form.
func (p *Pubrel) Append(dst []byte, v Version) []byte { return p.append(dst, v, 0) }

// Append appends the packet in its shortest form.
func (p *Pubcomp) Append(dst []byte, v Version) []byte { return p.append(dst, v, 0) }

func (p *Puback) append(dst []byte, v Version, o omit) []byte {
	return appendAck(dst, byte(TypePuback)<<4, (*ack)(p), v, o)
}

func (p *Pubrec) append(dst []byte, v Version, o omit) []byte {
	return appendAck(dst, byte(TypePubrec)<<4, (*ack)(p), v, o)
}

func (p *Pubrel) append(dst []byte, v Version, o omit) []byte {
	return appendAck(dst, byte(TypePubrel)<<4|flagsRequired, (*ack)(p), v, o)
}

func (p *Pubcomp) append(dst []byte, v Version, o omit) []byte {
	return appendAck(dst, byte(TypePubcomp)<<4, (*ack)(p), v, o)
}

// flagsRequired are the header flags of PUBREL, SUBSCRIBE and UNSUBSCRIBE.
const flagsRequired = 0x02

// ack is what the four have in common; the pointers convert.
type ack struct {
	PacketID   uint16
	ReasonCode ReasonCode
	Properties Properties
}

// appendAck leaves out what may be: Reason Code 0 and an empty property list
// (sections 3.4.2.1 and 3.4.2.2.1).
func appendAck(dst []byte, first byte, a *ack, v Version, o omit) []byte {
	if v != V5 || !a.Properties.any(ackProperties, o) {
		if v != V5 || a.ReasonCode == Success {
			return append(dst, first, 2, byte(a.PacketID>>8), byte(a.PacketID))
		}
		return append(dst, first, 3, byte(a.PacketID>>8), byte(a.PacketID), byte(a.ReasonCode))
	}
	dst, mark := openLength(append(dst, first))
	dst = append(wire.AppendUint16(dst, a.PacketID), byte(a.ReasonCode))
	return closeLength(a.Properties.append(dst, ackProperties, o), mark)
}

// Disconnect is DISCONNECT (section 3.14). Before 5.0 it has no content, and only
// a client sends it.
type Disconnect struct {
	ReasonCode ReasonCode
	Properties Properties // Session Expiry (client), Server Reference (server), Reason String, User Properties
}

// Type returns TypeDisconnect.
func (p *Disconnect) Type() Type { return TypeDisconnect }

// Append appends the packet in its shortest form.
func (p *Disconnect) Append(dst []byte, v Version) []byte { return p.append(dst, v, 0) }

func (p *Disconnect) append(dst []byte, v Version, o omit) []byte {
	const first = byte(TypeDisconnect) << 4
	if v != V5 {
		return append(dst, first, 0)
	}
	return appendReason(dst, first, p.ReasonCode, &p.Properties, disconnectProperties, o)
}

// Auth is AUTH (section 3.15), which only 5.0 has.
type Auth struct {
	ReasonCode ReasonCode
	Properties Properties // Authentication Method and Data, Reason String, User Properties
}

// Type returns TypeAuth.
func (p *Auth) Type() Type { return TypeAuth }

// Append appends the packet, or nothing before 5.0.
func (p *Auth) Append(dst []byte, v Version) []byte { return p.append(dst, v, 0) }

func (p *Auth) append(dst []byte, v Version, o omit) []byte {
	if v != V5 {
		return dst
	}
	return appendReason(dst, byte(TypeAuth)<<4, p.ReasonCode, &p.Properties, authProperties, o)
}

// appendReason appends a packet of a Reason Code and properties, both of which may
// be left out when they say nothing (section 3.14.2.1).
func appendReason(dst []byte, first byte, code ReasonCode, p *Properties, set propertySet, o omit) []byte {
	if !p.any(set, o) {
		if code == Success {
			return append(dst, first, 0)
		}
		return append(dst, first, 1, byte(code))
	}
	dst, mark := openLength(append(dst, first))
	return closeLength(p.append(append(dst, byte(code)), set, o), mark)
}

// Pingreq is PINGREQ (section 3.12).
type Pingreq struct{}

// Pingresp is PINGRESP (section 3.13).
type Pingresp struct{}

// Type returns TypePingreq.
func (*Pingreq) Type() Type { return TypePingreq }

// Type returns TypePingresp.
func (*Pingresp) Type() Type { return TypePingresp }

// Append appends C0 00.
func (*Pingreq) Append(dst []byte, _ Version) []byte { return append(dst, byte(TypePingreq)<<4, 0) }

// Append appends D0 00.
func (*Pingresp) Append(dst []byte, _ Version) []byte { return append(dst, byte(TypePingresp)<<4, 0) }
