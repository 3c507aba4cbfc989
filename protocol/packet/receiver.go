package packet

// Receiver is what the encoder has to know of the peer: its version and what its
// CONNECT (or CONNACK) asked for.
type Receiver struct {
	Version              Version
	MaxPacketBytes       uint32 // its Maximum Packet Size; 0: no limit
	NoProblemInformation bool   // Request Problem Information was 0
}

// trimmable packets can be encoded without their Reason String and User
// Properties.
type trimmable interface {
	append(dst []byte, v Version, o omit) []byte
}

// Append appends p, or returns dst as it was and false when p is larger than the
// receiver takes [MQTT-3.1.2-24]: the caller drops it and goes on as if it had
// been sent [MQTT-3.1.2-25]. User Properties, then the Reason String, are left
// out where that makes it fit ([MQTT-3.2.2-19], [MQTT-3.4.2-2] and their like),
// and at once where the receiver did not want them [MQTT-3.1.2-29]; never those
// of a PUBLISH.
func (r Receiver) Append(dst []byte, p Packet) ([]byte, bool) {
	if m, ok := p.(*Publish); ok {
		if r.MaxPacketBytes != 0 && m.Size(r.Version) > int(r.MaxPacketBytes) {
			return dst, false
		}
		return m.Append(dst, r.Version), true
	}
	t, ok := p.(trimmable)
	if !ok {
		out := p.Append(dst, r.Version)
		return r.fits(dst, out)
	}
	var o omit
	if r.NoProblemInformation && p.Type() != TypeConnack && p.Type() != TypeDisconnect {
		o = omitUserProperties | omitReasonString
	}
	for {
		out, fits := r.fits(dst, t.append(dst, r.Version, o))
		if fits || o == omitUserProperties|omitReasonString {
			return out, fits
		}
		o = o<<1 | omitUserProperties // first the User Properties, then both
	}
}

func (r Receiver) fits(dst, out []byte) ([]byte, bool) {
	if r.MaxPacketBytes != 0 && len(out)-len(dst) > int(r.MaxPacketBytes) {
		return dst, false
	}
	return out, true
}
