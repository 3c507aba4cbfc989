package packet

import "quorate/protocol/wire"

// The protocol names of CONNECT.
const (
	nameMQTT   = "MQTT"
	nameMQIsdp = "MQIsdp"
)

// bridgeBit in the protocol level marks a bridge: no version defines it, brokers
// agree on it (shared practice of level 3 and 4).
const bridgeBit = 0x80

// The connect flags.
const (
	flagReserved   = 1 << 0
	flagCleanStart = 1 << 1
	flagWill       = 1 << 2
	flagWillQoS    = 3 << 3
	flagWillRetain = 1 << 5
	flagPassword   = 1 << 6
	flagUsername   = 1 << 7
)

// Connect is CONNECT (section 3.1).
type Connect struct {
	Version     Version
	CleanStart  bool   // Clean Session before 5.0
	KeepAlive   uint16 // seconds; 0: no limit
	ClientID    string
	HasUsername bool
	HasPassword bool
	Bridge      bool // the level had bit 7 set: a bridge of another broker (level 3 and 4)
	Username    string
	Password    []byte
	Will        *Will // nil: no Will Message
	Properties  Properties
}

// Will is the Will Message of a CONNECT with its Will Properties.
type Will struct {
	Topic         string
	Payload       []byte
	QoS           byte
	Retain        bool
	DelaySeconds  uint32
	ExpirySeconds uint32 // counts with HasExpiry, from publication on
	HasExpiry     bool
	Forwarded     []byte // as in Publish
}

// Type returns TypeConnect.
func (p *Connect) Type() Type { return TypeConnect }

// Append appends the packet. The version is the argument, not the field; the
// protocol name follows from it.
func (p *Connect) Append(dst []byte, v Version) []byte {
	dst, mark := openLength(append(dst, byte(TypeConnect)<<4))
	name, level := nameMQTT, byte(v)
	if v == V31 {
		name = nameMQIsdp
	}
	if p.Bridge && v != V5 {
		level |= bridgeBit
	}
	dst = append(wire.AppendBytes16(dst, name), level, p.flags())
	dst = wire.AppendUint16(dst, p.KeepAlive)
	if v == V5 {
		dst = p.Properties.append(dst, connectProperties, 0)
	}
	dst = wire.AppendBytes16(dst, p.ClientID)
	if p.Will != nil {
		dst = p.Will.append(dst, v)
	}
	if p.HasUsername {
		dst = wire.AppendBytes16(dst, p.Username)
	}
	if p.HasPassword {
		dst = wire.AppendBytes16(dst, p.Password)
	}
	return closeLength(dst, mark)
}

func (p *Connect) flags() (f byte) {
	if p.CleanStart {
		f |= flagCleanStart
	}
	if w := p.Will; w != nil {
		f |= flagWill | w.QoS<<3&flagWillQoS
		if w.Retain {
			f |= flagWillRetain
		}
	}
	if p.HasPassword {
		f |= flagPassword
	}
	if p.HasUsername {
		f |= flagUsername
	}
	return f
}

func (w *Will) append(dst []byte, v Version) []byte {
	if v == V5 {
		var mark int
		dst, mark = openLength(dst)
		if w.DelaySeconds != 0 {
			dst = wire.AppendUint32(append(dst, propWillDelay), w.DelaySeconds)
		}
		if w.HasExpiry {
			dst = wire.AppendUint32(append(dst, propMessageExpiry), w.ExpirySeconds)
		}
		dst = closeLength(append(dst, w.Forwarded...), mark)
	}
	return wire.AppendBytes16(wire.AppendBytes16(dst, w.Topic), w.Payload)
}

// Connack is CONNACK (section 3.2).
type Connack struct {
	SessionPresent bool
	ReasonCode     ReasonCode
	Properties     Properties
}

// Type returns TypeConnack.
func (p *Connack) Type() Type { return TypeConnack }

// Append appends the packet. Before 5.0 it appends nothing at all when no return
// code says what ReasonCode says [MQTT-3.2.2-6 of 3.1.1]; Session Present is 0
// with an error [MQTT-3.2.2-6], and always in 3.1.
func (p *Connack) Append(dst []byte, v Version) []byte { return p.append(dst, v, 0) }

func (p *Connack) append(dst []byte, v Version, o omit) []byte {
	present := byte(0)
	if p.SessionPresent && p.ReasonCode == Success && v != V31 {
		present = 1
	}
	if v != V5 {
		code := p.ReasonCode.V3Connack()
		if code == NoV3Connack {
			return dst
		}
		return append(dst, byte(TypeConnack)<<4, 2, present, code)
	}
	dst, mark := openLength(append(dst, byte(TypeConnack)<<4))
	dst = append(dst, present, byte(p.ReasonCode))
	return closeLength(p.Properties.append(dst, connackProperties, o), mark)
}
