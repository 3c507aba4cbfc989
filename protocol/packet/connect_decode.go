package packet

import (
	"bytes"
	"unicode/utf8"

	"quorate/protocol/wire"
)

// clientIDCharactersMax31 is the longest Client Identifier of MQTT 3.1.
const clientIDCharactersMax31 = 23

// protocol reads the protocol name and level. On a level that is not served it
// returns the version whose CONNACK tells the client so: 3.1.1 asks for return
// code 1 [MQTT-3.1.2-2 of 3.1.1], and 5.0 leaves it open. A name that is none of
// ours gives no version: the server closes without a word [MQTT-3.1.2-1].
func protocol(c *wire.Cursor) (v Version, bridge bool, err *Error) {
	name := c.Bytes16()
	if c.Err() != nil {
		return 0, false, malformed("CONNECT: protocol name: %v", c.Err())
	}
	isdp := string(name) == nameMQIsdp
	if !isdp && string(name) != nameMQTT {
		return 0, false, refuse(UnsupportedProtocolVersion, "CONNECT: protocol name %.20q [MQTT-3.1.2-1]", name)
	}
	level := c.Uint8()
	if c.Err() != nil {
		return 0, false, malformed("CONNECT: protocol version: %v", c.Err())
	}
	v, bridge = Version(level&^bridgeBit), level&bridgeBit != 0
	switch {
	case isdp && v == V31, !isdp && v == V311, !isdp && level == byte(V5):
		return v, bridge, nil
	case isdp:
		v = V31
	default:
		v = V311
	}
	return v, false, refuse(UnsupportedProtocolVersion, "CONNECT: protocol version %d [MQTT-3.1.2-2]", level)
}

// connectHeader is what the fixed header of a CONNECT says. It can be judged only
// when the version is known.
type connectHeader struct {
	flags    byte
	overlong bool // the Remaining Length is not in its shortest form
}

// decodeConnect decodes the packet. The version is returned with an error as well,
// as far as it was read. The packet owns its memory.
func decodeConnect(body []byte, h connectHeader, opt *Options) (*Connect, Version, *Error) {
	d := newDecoder(bytes.Clone(body), opt, 0, FromClient, TypeConnect)
	v, bridge, err := protocol(&d.c)
	if err != nil {
		return nil, v, err
	}
	d.version = v
	if h.flags != 0 && v != V31 {
		return nil, v, malformed("CONNECT: header flags 0x%X are reserved [MQTT-2.1.3-1]", h.flags)
	}
	if h.overlong && v == V5 {
		return nil, v, malformed("CONNECT: remaining length is not in its shortest form [MQTT-1.5.5-1]")
	}
	p := &Connect{Version: v, Bridge: bridge}
	d.at("connect flags")
	flags := d.c.Uint8()
	d.checkConnectFlags(flags)
	p.CleanStart = flags&flagCleanStart != 0
	d.at("keep alive")
	p.KeepAlive = d.c.Uint16()
	if v == V5 {
		d.readProperties(&p.Properties, connectProperties)
	}
	p.ClientID = d.string("client identifier")
	if flags&flagWill != 0 {
		p.Will = d.will(flags)
	}
	d.login(p, flags)
	if err := d.finish(); err != nil {
		return nil, v, err
	}
	return p, v, checkClientID(p, opt)
}

// checkConnectFlags refuses combinations of connect flags. Level 3 has no close
// for the unused bit nor for a will QoS and retain without a will.
func (d *decoder) checkConnectFlags(flags byte) {
	strict := d.version != V31
	switch {
	case !d.ok():
	case flags&flagReserved != 0 && strict:
		d.fail(malformed("connect flags 0x%02X: bit 0 is reserved [MQTT-3.1.2-3]", flags))
	case flags&flagWill == 0 && flags&(flagWillQoS|flagWillRetain) != 0 && strict:
		d.fail(malformed("connect flags 0x%02X: will QoS or retain without a will [MQTT-3.1.2-11] [MQTT-3.1.2-13]", flags))
	case flags&flagWill != 0 && flags&flagWillQoS == flagWillQoS:
		d.fail(malformed("connect flags 0x%02X: will QoS 3 [MQTT-3.1.2-12]", flags))
	case flags&flagPassword != 0 && flags&flagUsername == 0 && d.version != V5:
		d.fail(malformed("connect flags 0x%02X: password without user name [MQTT-3.1.2-22 of 3.1.1]", flags))
	}
}

func (d *decoder) will(flags byte) *Will {
	w := &Will{QoS: flags & flagWillQoS >> 3, Retain: flags&flagWillRetain != 0}
	if d.version == V5 {
		var m message
		d.readMessageProperties(&m, willProperties, 1<<propUserProperty)
		w.DelaySeconds = m.delay
		w.ExpirySeconds, w.HasExpiry = m.expiry, m.hasExpiry
		w.Forwarded = m.forwarded
	}
	d.at("will topic")
	name := d.text(d.c.Bytes16())
	d.topicName(name, TopicNameInvalid)
	w.Topic = string(name)
	w.Payload = d.binary("will payload")
	return w
}

// login reads user name and password. In level 3 the Remaining Length wins over
// the flags: a field that is not there counts as not announced.
func (d *decoder) login(p *Connect, flags byte) {
	missing := func() bool { return d.version == V31 && d.c.Len() == 0 }
	if flags&flagUsername != 0 && !missing() {
		p.Username, p.HasUsername = d.string("user name"), true
	}
	if flags&flagPassword != 0 && !missing() {
		p.Password, p.HasPassword = d.binary("password"), true
	}
}

// checkClientID applies the rules of 3.1 (1 to 23 characters) and 3.1.1 (empty
// only with Clean Session [MQTT-3.1.3-8 of 3.1.1]).
func checkClientID(p *Connect, opt *Options) *Error {
	empty := p.ClientID == ""
	switch {
	case p.Version == V31 && empty:
		return refuse(ClientIdentifierNotValid, "CONNECT: client identifier is empty in 3.1")
	case p.Version == V311 && empty && !p.CleanStart:
		return refuse(ClientIdentifierNotValid, "CONNECT: client identifier is empty without clean session [MQTT-3.1.3-8]")
	case p.Version == V31 && !opt.AllowLongClientIDs && utf8.RuneCountInString(p.ClientID) > clientIDCharactersMax31:
		return refuse(ClientIdentifierNotValid, "CONNECT: client identifier of more than %d characters in 3.1", clientIDCharactersMax31)
	}
	return nil
}

func (d *decoder) connack(p *Connack) {
	d.at("acknowledge flags")
	flags := d.c.Uint8()
	if flags > 1 && d.version != V31 {
		d.fail(malformed("acknowledge flags 0x%02X: bits 7 to 1 are reserved [MQTT-3.2.2-1]", flags))
	}
	p.SessionPresent = flags&1 == 1 && d.version != V31
	if d.version != V5 || d.c.Len() == 1 {
		// A server that does not know 5.0 says so in the form of its own version.
		d.connackV3(p)
	} else {
		p.ReasonCode = d.reason()
		d.readProperties(&p.Properties, connackProperties)
	}
	if p.SessionPresent && p.ReasonCode != Success && d.ok() {
		d.fail(protocolError("session present with reason code 0x%02X [MQTT-3.2.2-6]", byte(p.ReasonCode)))
	}
}

func (d *decoder) connackV3(p *Connack) {
	d.at("return code")
	code := d.c.Uint8()
	switch {
	case !d.ok():
	case code > 5, d.version == V5 && code == 0:
		d.fail(malformed("return code %d", code))
	default:
		p.ReasonCode = reasonOfV3Connack(code)
	}
}
