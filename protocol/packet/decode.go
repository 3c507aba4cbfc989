package packet

import "strings"

// Which types each side may send (table 2-1).
const (
	clientTypes uint16 = 1<<TypeConnect | 1<<TypePublish | 1<<TypePuback | 1<<TypePubrec | 1<<TypePubrel |
		1<<TypePubcomp | 1<<TypeSubscribe | 1<<TypeUnsubscribe | 1<<TypePingreq | 1<<TypeDisconnect | 1<<TypeAuth
	serverTypes uint16 = 1<<TypeConnack | 1<<TypePublish | 1<<TypePuback | 1<<TypePubrec | 1<<TypePubrel |
		1<<TypePubcomp | 1<<TypeSuback | 1<<TypeUnsuback | 1<<TypePingresp | 1<<TypeDisconnect | 1<<TypeAuth
	flaggedTypes uint16 = 1<<TypePubrel | 1<<TypeSubscribe | 1<<TypeUnsubscribe
)

// checkFirst judges the first byte of a packet of a known version: type,
// direction and flags. CONNECT is not its business.
func checkFirst(first byte, v Version, side Side) *Error {
	t, flags := Type(first>>4), first&0x0F
	types := clientTypes
	if side == FromServer {
		types = serverTypes
	}
	switch {
	case t == 0 || (t == TypeAuth && v != V5):
		return malformed("control packet type %d is reserved (table 2-1)", t)
	case types>>t&1 == 0, t == TypeDisconnect && side == FromServer && v != V5:
		return protocolError("%s is never sent in this direction (table 2-1)", t)
	case t == TypePublish:
		return checkPublishFlags(flags, v)
	case v == V31:
		return nil // unused bits: no close is asked for in level 3
	case flags != required(t):
		return malformed("%s: header flags 0x%X, have to be 0x%X [MQTT-2.1.3-1]", t, flags, required(t))
	}
	return nil
}

func required(t Type) byte {
	if flaggedTypes>>t&1 == 1 {
		return flagsRequired
	}
	return 0
}

func checkPublishFlags(flags byte, v Version) *Error {
	switch {
	case flags>>1&3 == 3:
		return malformed("PUBLISH: QoS 3 [MQTT-3.3.1-4]")
	case flags>>1 == 4 && v != V31: // level 3 has no rule for DUP with QoS 0
		return malformed("PUBLISH: DUP with QoS 0 [MQTT-3.3.1-2]")
	}
	return nil
}

// publish decodes a PUBLISH into p, whose SubscriptionIDs are used again. known is
// a Topic Name that was found valid before; a packet with the same bytes shares it.
func (d *decoder) publish(p *Publish, first byte, known string) {
	ids := p.SubscriptionIDs[:0]
	*p = Publish{QoS: first >> 1 & 3, Retain: first&1 == 1}
	p.Dup = first>>3&1 == 1 && p.QoS > 0
	d.at("topic name")
	name := d.c.Bytes16()
	if string(name) == known && known != "" {
		p.Topic = known
	} else if d.ok() {
		p.Topic = string(d.text(name))
	}
	if p.QoS > 0 {
		p.PacketID = d.packetID()
	}
	var m message
	if d.version == V5 {
		m.subscriptionIDs = ids
		d.readMessageProperties(&m, publishProperties, repeatablePublish)
		p.TopicAlias = m.alias
		p.ExpirySeconds, p.HasExpiry = m.expiry, m.hasExpiry
		p.SubscriptionIDs, p.Forwarded = m.subscriptionIDs, m.forwarded
	}
	d.at("topic name")
	switch {
	case p.Topic == known && known != "":
	case p.Topic == "" && d.version == V5:
		if p.TopicAlias == 0 && d.ok() {
			d.fail(protocolError("no topic name and no topic alias (section 3.3.2.1)"))
		}
	default:
		d.topicName(name, TopicNameInvalid)
	}
	p.Payload = d.c.Rest()
}

// ack decodes PUBACK, PUBREC, PUBREL and PUBCOMP.
func (d *decoder) ack(a *ack) {
	*a = ack{PacketID: d.packetID()}
	if d.version != V5 || d.c.Len() == 0 {
		return
	}
	a.ReasonCode = d.reason()
	if d.c.Len() > 0 {
		d.readProperties(&a.Properties, ackProperties)
	}
}

func (d *decoder) subscribe() *Subscribe {
	p := &Subscribe{PacketID: d.packetID()}
	if d.version == V5 {
		r, _ := d.properties(subscribeProperties, 1<<propUserProperty)
		for v, ok := r.next(); ok; v, ok = r.next() {
			if v.id == propSubscriptionID {
				p.SubscriptionID = v.number
			} else {
				p.UserProperties = append(p.UserProperties, v.user())
			}
		}
	}
	if d.ok() && d.c.Len() == 0 {
		d.fail(protocolError("no topic filter [MQTT-3.8.3-2]"))
	}
	for d.c.Len() > 0 {
		s := Subscription{Filter: d.string("topic filter")}
		d.at("subscription options")
		d.subscriptionOptions(&s, d.c.Uint8())
		if p.Subscriptions = append(p.Subscriptions, s); len(p.Subscriptions) > d.opt.MaxFilters {
			d.fail(refuse(QuotaExceeded, "more than %d topic filters", d.opt.MaxFilters))
		}
	}
	return p
}

func (d *decoder) subscriptionOptions(s *Subscription, options byte) {
	s.QoS = options & 3
	s.NoLocal = d.version == V5 && options>>2&1 == 1
	s.RetainAsPublished = d.version == V5 && options>>3&1 == 1
	if d.version == V5 {
		s.RetainHandling = options >> 4 & 3
	}
	switch {
	case !d.ok():
	case d.version == V311 && options > 2:
		d.fail(malformed("requested QoS byte 0x%02X [MQTT-3.8.3-4 of 3.1.1]", options))
	case d.version == V31 && s.QoS == 3: // the other six bits are unused in level 3
		d.fail(malformed("requested QoS 3"))
	case d.version != V5:
	case options>>6 != 0:
		d.fail(malformed("subscription options 0x%02X: bits 7 and 6 are reserved [MQTT-3.8.3-5]", options))
	case s.QoS == 3:
		d.fail(protocolError("maximum QoS 3 (section 3.8.3.1)"))
	case s.RetainHandling == 3:
		d.fail(protocolError("retain handling 3 (section 3.8.3.1)"))
	case s.NoLocal && strings.HasPrefix(s.Filter, "$share/"):
		d.fail(protocolError("no local on a shared subscription [MQTT-3.8.3-4]"))
	}
}

func (d *decoder) unsubscribe() *Unsubscribe {
	p := &Unsubscribe{PacketID: d.packetID()}
	if d.version == V5 {
		var properties Properties
		d.readProperties(&properties, unsubscribeProperties)
		p.UserProperties = properties.UserProperties
	}
	if d.ok() && d.c.Len() == 0 {
		d.fail(protocolError("no topic filter [MQTT-3.10.3-2]"))
	}
	for d.c.Len() > 0 {
		if p.Filters = append(p.Filters, d.string("topic filter")); len(p.Filters) > d.opt.MaxFilters {
			d.fail(refuse(QuotaExceeded, "more than %d topic filters", d.opt.MaxFilters))
		}
	}
	return p
}

func (d *decoder) suback() *Suback {
	p := &Suback{PacketID: d.packetID()}
	if d.version == V5 {
		d.readProperties(&p.Properties, ackProperties)
	}
	if d.ok() && d.c.Len() == 0 {
		d.fail(protocolError("no reason code [MQTT-3.8.4-6]"))
	}
	p.ReasonCodes = d.reasons()
	for _, code := range p.ReasonCodes {
		if d.version != V5 && code > GrantedQoS2 && code != UnspecifiedError {
			d.fail(malformed("return code 0x%02X [MQTT-3.9.3-2 of 3.1.1]", byte(code)))
		}
	}
	return p
}

func (d *decoder) unsuback() *Unsuback {
	p := &Unsuback{PacketID: d.packetID()}
	if d.version == V5 {
		d.readProperties(&p.Properties, ackProperties)
		if d.ok() && d.c.Len() == 0 {
			d.fail(protocolError("no reason code [MQTT-3.11.3-1]"))
		}
		p.ReasonCodes = d.reasons()
	}
	return p
}

// reasons reads the codes that fill the rest of the packet, one byte each: what is
// reserved for them has arrived.
func (d *decoder) reasons() []ReasonCode {
	codes := make([]ReasonCode, 0, d.c.Len())
	for d.c.Len() > 0 {
		codes = append(codes, d.reason())
	}
	return codes
}

func (d *decoder) disconnect() *Disconnect {
	p := &Disconnect{}
	if d.version != V5 || d.c.Len() == 0 {
		return p
	}
	p.ReasonCode = d.reason()
	if d.c.Len() > 0 {
		d.readProperties(&p.Properties, disconnectProperties)
	}
	return p
}

func (d *decoder) auth() *Auth {
	p := &Auth{}
	if d.c.Len() > 0 {
		p.ReasonCode = d.reason()
	}
	if d.c.Len() > 0 {
		d.readProperties(&p.Properties, authProperties)
	}
	if p.Properties.AuthenticationMethod == "" && d.ok() {
		d.fail(protocolError("no authentication method (section 3.15.2.2.2)"))
	}
	return p
}
