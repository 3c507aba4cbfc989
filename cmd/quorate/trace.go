package main

import (
	"fmt"
	"strings"

	"quorate/protocol/packet"
)

// trace prints a packet as mosquitto's --debug does.
func (m *mqttClient) trace(sent bool, p packet.Packet) {
	verb := "received"
	if sent {
		verb = "sending"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	name := m.id
	if name == "" {
		name = "(null)"
	}
	for line := range strings.Lines(describe(p, m.opt.version)) {
		fmt.Fprintf(m.con.out, "Client %s %s %s\n", name, verb, strings.TrimSuffix(line, "\n"))
	}
}

// describe is the packet and its main fields, one line for each filter.
func describe(p packet.Packet, v packet.Version) string {
	switch p := p.(type) {
	case *packet.Connack:
		code := byte(p.ReasonCode)
		if v != packet.V5 {
			code = p.ReasonCode.V3Connack()
		}
		return fmt.Sprintf("CONNACK (%d)", code)
	case *packet.Publish:
		return fmt.Sprintf("PUBLISH (d%d, q%d, r%d, m%d, '%s', ... (%d bytes))", b2i(p.Dup), p.QoS, b2i(p.Retain), p.PacketID, p.Topic, len(p.Payload))
	case *packet.Puback:
		return fmt.Sprintf("PUBACK (Mid: %d, RC:%d)", p.PacketID, p.ReasonCode)
	case *packet.Pubrec:
		return fmt.Sprintf("PUBREC (Mid: %d, RC:%d)", p.PacketID, p.ReasonCode)
	case *packet.Pubrel:
		return fmt.Sprintf("PUBREL (Mid: %d)", p.PacketID)
	case *packet.Pubcomp:
		return fmt.Sprintf("PUBCOMP (Mid: %d, RC:%d)", p.PacketID, p.ReasonCode)
	case *packet.Subscribe:
		var b strings.Builder
		for _, s := range p.Subscriptions {
			options := b2i(s.NoLocal)<<2 | b2i(s.RetainAsPublished)<<3 | int(s.RetainHandling)<<4
			fmt.Fprintf(&b, "SUBSCRIBE (Mid: %d, Topic: %s, QoS: %d, Options: 0x%02x)\n", p.PacketID, s.Filter, s.QoS, options)
		}
		return b.String()
	case *packet.Unsubscribe:
		var b strings.Builder
		for _, f := range p.Filters {
			fmt.Fprintf(&b, "UNSUBSCRIBE (Mid: %d, Topic: %s)\n", p.PacketID, f)
		}
		return b.String()
	case *packet.Disconnect:
		if p.ReasonCode != packet.NormalDisconnection {
			return fmt.Sprintf("DISCONNECT (%d)", p.ReasonCode)
		}
	}
	return p.Type().String()
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
