package broker

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"quorate/protocol/packet"
)

// fields are the name=value pairs of a transcript line.
type fields struct {
	t    *testing.T
	m    map[string]string
	line string
}

func parseFields(t *testing.T, line string) fields {
	f := fields{t: t, m: map[string]string{}, line: line}
	for _, word := range strings.Fields(line) {
		name, value, ok := strings.Cut(word, "=")
		if !ok {
			t.Fatalf("%q is not name=value in %q", word, line)
		}
		f.m[name] = value
	}
	return f
}

func (f fields) text(name string) string {
	v := f.m[name]
	delete(f.m, name)
	return v
}

func (f fields) has(name string) bool { _, ok := f.m[name]; return ok }

func (f fields) number(name string, otherwise int) int {
	if !f.has(name) {
		return otherwise
	}
	n, err := strconv.ParseUint(f.text(name), 0, 32)
	if err != nil {
		f.t.Fatalf("%s in %q: %v", name, f.line, err)
	}
	return int(n)
}

func (f fields) flag(name string) bool { return f.text(name) == "true" }

func (f fields) done() {
	for name := range f.m {
		f.t.Fatalf("unknown field %q in %q", name, f.line)
	}
}

func (f fields) packet(kind string) packet.Packet {
	id := func() uint16 { return uint16(f.number("id", 0)) }
	code := func() packet.ReasonCode { return packet.ReasonCode(f.number("code", 0)) }
	switch kind {
	case "CONNECT":
		return f.connect()
	case "PUBLISH":
		return f.publish()
	case "PUBACK":
		return &packet.Puback{PacketID: id(), ReasonCode: code()}
	case "PUBREC":
		return &packet.Pubrec{PacketID: id(), ReasonCode: code()}
	case "PUBREL":
		return &packet.Pubrel{PacketID: id(), ReasonCode: code()}
	case "PUBCOMP":
		return &packet.Pubcomp{PacketID: id(), ReasonCode: code()}
	case "SUBSCRIBE":
		return f.subscribe()
	case "UNSUBSCRIBE":
		return &packet.Unsubscribe{PacketID: id(), Filters: strings.Split(f.text("filter"), "|")}
	case "PINGREQ":
		return &packet.Pingreq{}
	case "DISCONNECT":
		d := &packet.Disconnect{ReasonCode: code()}
		if f.has("expiry") {
			d.Properties.HasSessionExpiry, d.Properties.SessionExpirySeconds = true, uint32(f.number("expiry", 0))
		}
		return d
	case "AUTH":
		return &packet.Auth{ReasonCode: code()}
	}
	f.t.Fatalf("what is a %s?", kind)
	return nil
}

func (f fields) connect() *packet.Connect {
	c := &packet.Connect{
		Version: packet.Version(f.number("v", 5)), ClientID: f.text("id"), CleanStart: f.text("clean") != "false",
		KeepAlive: uint16(f.number("keepalive", 0)), Username: f.text("user"), Password: []byte(f.text("password")),
	}
	c.HasUsername, c.HasPassword = c.Username != "", len(c.Password) > 0
	if f.has("expiry") {
		c.Properties.HasSessionExpiry, c.Properties.SessionExpirySeconds = true, uint32(f.number("expiry", 0))
	}
	c.Properties.ReceiveMaximum = uint16(f.number("receive_maximum", 0))
	c.Properties.MaximumPacketSize = uint32(f.number("maximum_packet", 0))
	c.Properties.AuthenticationMethod = f.text("method")
	if f.has("will") {
		c.Will = &packet.Will{
			Topic: f.text("will"), Payload: []byte(f.text("will_payload")), QoS: byte(f.number("will_qos", 0)),
			Retain: f.flag("will_retain"), DelaySeconds: uint32(f.number("will_delay", 0)),
		}
	}
	return c
}

func (f fields) publish() *packet.Publish {
	p := &packet.Publish{
		PacketID: uint16(f.number("id", 0)), Topic: f.text("topic"), QoS: byte(f.number("qos", 0)), Retain: f.flag("retain"),
		Dup: f.flag("dup"), TopicAlias: uint16(f.number("alias", 0)), Payload: []byte(f.text("payload")),
	}
	if n := f.number("size", 0); n > 0 {
		p.Payload = make([]byte, n)
	}
	if f.has("expiry") {
		p.HasExpiry, p.ExpirySeconds = true, uint32(f.number("expiry", 0))
	}
	if content := f.text("content"); content != "" {
		p.Forwarded = packet.AppendForwarded(nil, &packet.Forwarded{ContentType: content})
	}
	return p
}

func (f fields) subscribe() *packet.Subscribe {
	p := &packet.Subscribe{PacketID: uint16(f.number("id", 0)), SubscriptionID: uint32(f.number("subid", 0))}
	o := packet.Subscription{
		QoS: byte(f.number("qos", 0)), NoLocal: f.flag("nolocal"), RetainAsPublished: f.flag("rap"),
		RetainHandling: byte(f.number("handling", 0)),
	}
	for _, filter := range strings.Split(f.text("filter"), "|") {
		o.Filter = filter
		p.Subscriptions = append(p.Subscriptions, o)
	}
	return p
}

// describe writes a packet as the transcripts have it.
func describe(p packet.Packet) string {
	switch p := p.(type) {
	case *packet.Connack:
		return fmt.Sprintf("CONNACK session=%t code=%s", p.SessionPresent, hexCode(p.ReasonCode)) + connackProperties(&p.Properties)
	case *packet.Publish:
		return describePublish(p)
	case *packet.Puback:
		return fmt.Sprintf("PUBACK id=%d code=%s", p.PacketID, hexCode(p.ReasonCode))
	case *packet.Pubrec:
		return fmt.Sprintf("PUBREC id=%d code=%s", p.PacketID, hexCode(p.ReasonCode))
	case *packet.Pubrel:
		return fmt.Sprintf("PUBREL id=%d code=%s", p.PacketID, hexCode(p.ReasonCode))
	case *packet.Pubcomp:
		return fmt.Sprintf("PUBCOMP id=%d code=%s", p.PacketID, hexCode(p.ReasonCode))
	case *packet.Suback:
		return fmt.Sprintf("SUBACK id=%d codes=%s", p.PacketID, hexCodes(p.ReasonCodes))
	case *packet.Unsuback:
		return fmt.Sprintf("UNSUBACK id=%d codes=%s", p.PacketID, hexCodes(p.ReasonCodes))
	case *packet.Disconnect:
		s := "DISCONNECT code=" + hexCode(p.ReasonCode)
		if p.Properties.ServerReference != "" {
			s += " reference=" + p.Properties.ServerReference
		}
		return s
	}
	return p.Type().String()
}

// connackProperties leaves out the limits that every CONNACK of these tests has.
func connackProperties(p *packet.Properties) (s string) {
	if p.AssignedClientID != "" {
		s += " assigned=" + p.AssignedClientID[:5] + "..."
	}
	if p.HasServerKeepAlive {
		s += fmt.Sprintf(" keepalive=%d", p.ServerKeepAlive)
	}
	if p.HasSessionExpiry {
		s += fmt.Sprintf(" expiry=%d", p.SessionExpirySeconds)
	}
	return s
}

func describePublish(p *packet.Publish) string {
	s := "PUBLISH"
	if p.QoS > 0 {
		s += fmt.Sprintf(" id=%d", p.PacketID)
	}
	s += fmt.Sprintf(" topic=%s qos=%d", p.Topic, p.QoS)
	if p.Retain {
		s += " retain=true"
	}
	if p.Dup {
		s += " dup=true"
	}
	if p.HasExpiry {
		s += fmt.Sprintf(" expiry=%d", p.ExpirySeconds)
	}
	if len(p.SubscriptionIDs) > 0 {
		s += fmt.Sprintf(" subids=%v", p.SubscriptionIDs)
	}
	if f, err := packet.ParseForwarded(p.Forwarded); err == nil && f.ContentType != "" {
		s += " content=" + f.ContentType
	}
	if len(p.Payload) > 100 {
		return s + fmt.Sprintf(" size=%d", len(p.Payload))
	}
	return s + " payload=" + string(p.Payload)
}

func hexCode(c packet.ReasonCode) string {
	if c < 10 {
		return strconv.Itoa(int(c))
	}
	return fmt.Sprintf("0x%02x", byte(c))
}

func hexCodes(list []packet.ReasonCode) string {
	var s []string
	for _, c := range list {
		s = append(s, hexCode(c))
	}
	return "[" + strings.Join(s, ",") + "]"
}
