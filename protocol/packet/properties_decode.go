package packet

import "quorate/protocol/wire"

// property is one decoded property: its number, or its bytes (for a User Property
// name and value).
type property struct {
	id     byte
	number uint32
	bytes  []byte
	value  []byte
}

// propertyReader walks over the properties of a packet.
type propertyReader struct {
	d       *decoder
	c       wire.Cursor
	allowed propertySet // of this packet type; any other is malformed
	repeats propertySet // may come more than once
	seen    propertySet
	users   int
}

// properties reads the property length and returns a walk over the bytes behind
// it, and those bytes.
func (d *decoder) properties(allowed, repeats propertySet) (propertyReader, []byte) {
	d.at("property length")
	b := d.c.Bytes(int(d.c.VarInt()))
	return propertyReader{d: d, c: wire.NewCursor(b), allowed: allowed, repeats: repeats}, b
}

// next reads a property; false at the end and after a failure.
func (r *propertyReader) next() (p property, ok bool) {
	if r.c.Len() == 0 || !r.d.ok() {
		return p, false
	}
	d := r.d
	id := r.c.VarInt()
	if id >= 64 || !r.allowed.has(byte(id)) {
		d.fail(malformed("property 0x%02X does not exist or does not belong here (section 2.2.2.2)", id))
		return p, false
	}
	p.id = byte(id)
	if r.seen.has(p.id) && !r.repeats.has(p.id) {
		d.fail(protocolError("property 0x%02X is given twice", id))
		return p, false
	}
	r.seen |= 1 << p.id
	r.read(&p)
	if err := r.c.Err(); err != nil {
		d.fail(malformed("property 0x%02X: %v", id, err))
	}
	if d.ok() {
		p.check(d)
	}
	return p, d.ok()
}

// read reads the value by its type (table 2-4).
func (r *propertyReader) read(p *property) {
	switch p.id {
	case propPayloadFormat, propRequestProblem, propRequestResponse, propMaximumQoS, propRetainAvailable,
		propWildcardAvailable, propSubscriptionIDsUsable, propSharedAvailable:
		p.number = uint32(r.c.Uint8())
	case propServerKeepAlive, propReceiveMaximum, propTopicAliasMaximum, propTopicAlias:
		p.number = uint32(r.c.Uint16())
	case propMessageExpiry, propSessionExpiry, propWillDelay, propMaximumPacketSize:
		p.number = r.c.Uint32()
	case propSubscriptionID:
		p.number = r.c.VarInt()
	case propCorrelationData, propAuthData:
		p.bytes = r.c.Bytes16()
	case propUserProperty:
		r.readUserProperty(p)
	default:
		r.d.at(textPropertyName(p.id))
		p.bytes = r.d.text(r.c.Bytes16())
	}
}

func (r *propertyReader) readUserProperty(p *property) {
	if r.users++; r.users > r.d.opt.MaxUserProperties {
		r.d.fail(refuse(QuotaExceeded, "more than %d user properties", r.d.opt.MaxUserProperties))
		return
	}
	r.d.at("user property") // name and value are both strings [MQTT-1.5.7-1]
	p.bytes = r.d.text(r.c.Bytes16())
	p.value = r.d.text(r.c.Bytes16())
}

func textPropertyName(id byte) string {
	switch id {
	case propContentType:
		return "content type"
	case propResponseTopic:
		return "response topic"
	case propAssignedClientID:
		return "assigned client identifier"
	case propAuthMethod:
		return "authentication method"
	case propResponseInformation:
		return "response information"
	case propServerReference:
		return "server reference"
	}
	return "reason string"
}

// check refuses values outside their range, and what only the other side sends.
func (p *property) check(d *decoder) {
	switch p.id {
	case propPayloadFormat, propRequestProblem, propRequestResponse, propMaximumQoS, propRetainAvailable,
		propWildcardAvailable, propSubscriptionIDsUsable, propSharedAvailable:
		if p.number > 1 {
			d.fail(protocolError("property 0x%02X: value %d is neither 0 nor 1", p.id, p.number))
		}
	case propReceiveMaximum, propMaximumPacketSize, propSubscriptionID:
		if p.number == 0 {
			d.fail(protocolError("property 0x%02X: value 0", p.id))
		} else if p.id == propSubscriptionID && d.what == TypePublish && d.side == FromClient {
			d.fail(protocolError("subscription identifier from a client [MQTT-3.3.4-6]"))
		}
	case propTopicAlias:
		if p.number == 0 {
			d.fail(refuse(TopicAliasInvalid, "topic alias 0 [MQTT-3.3.2-8]"))
		}
	case propResponseTopic:
		d.at("response topic")
		d.topicName(p.bytes, ProtocolError) // [MQTT-3.3.2-14]
	case propSessionExpiry:
		if d.what == TypeDisconnect && d.side == FromServer {
			d.fail(protocolError("session expiry interval from a server [MQTT-3.14.2-2]"))
		}
	case propServerReference:
		if d.side == FromClient {
			d.fail(protocolError("server reference from a client"))
		}
	}
}

// readProperties reads all properties of a packet other than PUBLISH.
func (d *decoder) readProperties(out *Properties, allowed propertySet) {
	r, _ := d.properties(allowed, 1<<propUserProperty)
	for p, ok := r.next(); ok; p, ok = r.next() {
		out.set(&p)
	}
	if out.AuthenticationData != nil && out.AuthenticationMethod == "" && d.ok() {
		d.fail(protocolError("authentication data without an authentication method (section 3.1.2.11.10)"))
	}
}

func (p *Properties) set(v *property) {
	switch v.id {
	case propSessionExpiry:
		p.SessionExpirySeconds, p.HasSessionExpiry = v.number, true
	case propReceiveMaximum:
		p.ReceiveMaximum = uint16(v.number)
	case propMaximumPacketSize:
		p.MaximumPacketSize = v.number
	case propTopicAliasMaximum:
		p.TopicAliasMaximum = uint16(v.number)
	case propServerKeepAlive:
		p.ServerKeepAlive, p.HasServerKeepAlive = uint16(v.number), true
	case propMaximumQoS:
		p.MaximumQoS, p.HasMaximumQoS = byte(v.number), true
	case propRequestResponse:
		p.RequestResponseInformation = v.number == 1
	case propRequestProblem:
		p.NoProblemInformation = v.number == 0
	case propRetainAvailable:
		p.RetainUnavailable = v.number == 0
	case propWildcardAvailable:
		p.WildcardsUnavailable = v.number == 0
	case propSubscriptionIDsUsable:
		p.SubscriptionIDsUnavailable = v.number == 0
	case propSharedAvailable:
		p.SharedUnavailable = v.number == 0
	case propUserProperty:
		p.UserProperties = append(p.UserProperties, v.user())
	default:
		p.setString(v)
	}
}

func (p *Properties) setString(v *property) {
	switch v.id {
	case propAssignedClientID:
		p.AssignedClientID = string(v.bytes)
	case propAuthMethod:
		p.AuthenticationMethod = string(v.bytes)
	case propAuthData:
		p.AuthenticationData = append([]byte{}, v.bytes...)
	case propReasonString:
		p.ReasonString = string(v.bytes)
	case propResponseInformation:
		p.ResponseInformation = string(v.bytes)
	case propServerReference:
		p.ServerReference = string(v.bytes)
	}
}

func (v *property) user() UserProperty {
	return UserProperty{Name: string(v.bytes), Value: string(v.value)}
}

// message is what the properties of a PUBLISH and of a Will come to.
type message struct {
	alias           uint16
	expiry          uint32
	hasExpiry       bool
	delay           uint32
	subscriptionIDs []uint32
	forwarded       []byte
}

// readMessageProperties reads the properties of a PUBLISH or a Will without
// allocating: those that are passed on are moved together in place, so that they
// are one slice of the packet.
func (d *decoder) readMessageProperties(m *message, allowed, repeats propertySet) {
	r, b := d.properties(allowed, repeats)
	end := 0 // of the forwarded ones
	for start := 0; ; start = len(b) - r.c.Len() {
		p, ok := r.next()
		if !ok {
			break
		}
		switch p.id {
		case propMessageExpiry:
			m.expiry, m.hasExpiry = p.number, true
		case propWillDelay:
			m.delay = p.number
		case propTopicAlias:
			m.alias = uint16(p.number)
		case propSubscriptionID:
			m.subscriptionIDs = append(m.subscriptionIDs, p.number)
		default:
			end += copy(b[end:], b[start:len(b)-r.c.Len()])
		}
	}
	m.forwarded = b[:end:end]
}

// ParseForwarded reads what Publish.Forwarded or Will.Forwarded holds. Bytes that
// came through a Reader are always valid; others may give an *Error.
// CorrelationData aliases b.
func ParseForwarded(b []byte) (Forwarded, error) {
	opt := Options{MaxUserProperties: len(b), AllowControlCharacters: true}
	d := newDecoder(nil, &opt, V5, FromServer, TypePublish)
	r := propertyReader{d: &d, c: wire.NewCursor(b), allowed: forwardedProperties, repeats: 1 << propUserProperty}
	var f Forwarded
	for p, ok := r.next(); ok; p, ok = r.next() {
		switch p.id {
		case propPayloadFormat:
			f.PayloadIsUTF8 = p.number == 1
		case propContentType:
			f.ContentType = string(p.bytes)
		case propResponseTopic:
			f.ResponseTopic = string(p.bytes)
		case propCorrelationData:
			f.CorrelationData = p.bytes
		case propUserProperty:
			f.UserProperties = append(f.UserProperties, p.user())
		}
	}
	if err := d.finish(); err != nil {
		return Forwarded{}, err
	}
	return f, nil
}
