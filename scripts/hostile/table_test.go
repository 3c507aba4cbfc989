//go:build linux

package hostile

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"quorate/protocol/packet"
)

// row is one bad input of an MQTT client and the answer that it must get.
type row struct {
	// name says what is sent, rule which sentence forbids it.
	name, rule string
	// first: in is the first that the connection sends; else a CONNECT was accepted before.
	first bool
	in    []byte
	// v5 and v3 are what wire.outcome has to say; "... " stands for any packets, "-" for no such input in that version.
	v5, v3 string
	// in3 is the input for version 3.1.1 where it is another one.
	in3 []byte
}

// The usual answers.
const (
	malformed    = "DISCONNECT 0x81 closed"
	protocolErr  = "DISCONNECT 0x82 closed"
	topicInvalid = "DISCONNECT 0x90 closed"
	aliasInvalid = "DISCONNECT 0x94 closed"
	closed       = "closed"
)

// firstPackets are inputs in place of a CONNECT, or bad CONNECTs.
func firstPackets() []row {
	long := strings.Repeat("x", 70_000)
	users := bytes.Repeat(cat(prop(0x26), str("k"), str("v")), 2_000)
	return []row{
		{name: "first packet is PINGREQ", rule: "MQTT-3.1.0-1", first: true, in: pingreq, v5: closed, v3: closed},
		{name: "first packet is PUBLISH", rule: "MQTT-3.1.0-1", first: true, in: publish(packet.V311, 0, "t", 0, "x"), v5: closed, v3: closed},
		{name: "HTTP", rule: "MQTT-3.1.0-1", first: true, in: raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), v5: closed, v3: closed},
		{name: "TLS hello", rule: "MQTT-3.1.0-1", first: true, in: tlsHello, v5: closed, v3: closed},
		{name: "PROXY line", rule: "MQTT-3.1.0-1", first: true, in: raw("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), v5: closed, v3: closed},
		{name: "CONNECT flag bit 0", rule: "MQTT-3.1.2-3", first: true, in: pkt(0x10, connectHead(5, 3), props(), str("c")), v5: "CONNACK 0x81 closed",
			in3: pkt(0x10, connectHead(4, 3), str("c")), v3: closed},
		{name: "CONNECT header 0x11", rule: "MQTT-2.1.3-1", first: true, in: pkt(0x11, connectHead(5, 2), props(), str("c")), v5: "CONNACK 0x81 closed",
			in3: pkt(0x11, connectHead(4, 2), str("c")), v3: closed},
		{name: "protocol name MQXX", rule: "MQTT-3.1.2-1", first: true, in: pkt(0x10, str("MQXX"), []byte{5, 2, 0, 0}, props(), str("c")), v5: closed,
			in3: pkt(0x10, str("MQXX"), []byte{4, 2, 0, 0}, str("c")), v3: closed},
		{name: "truncated CONNECT", rule: "MQTT-2.1.4", first: true, in: pkt(0x10, connectHead(5, 2), props(), []byte{0, 9, 'c'}), v5: "CONNACK 0x81 closed",
			in3: pkt(0x10, connectHead(4, 2), []byte{0, 9, 'c'}), v3: closed},
		{name: "bytes behind the CONNECT's end", rule: "MQTT-2.1.4", first: true, in: pkt(0x10, connectHead(5, 2), props(), str("c"), raw("rest")), v5: "CONNACK 0x81 closed",
			in3: pkt(0x10, connectHead(4, 2), str("c"), raw("rest")), v3: closed},
		{name: "property length beyond the packet", rule: "2.2.2.1", first: true, in: pkt(0x10, connectHead(5, 2), []byte{200, 1}, str("c")), v5: "CONNACK 0x81 closed", v3: "-"},
		{name: "client identifier with NUL", rule: "MQTT-1.5.4-2", first: true, in: pkt(0x10, connectHead(5, 2), props(), str("c\x00d")), v5: "CONNACK 0x81 closed",
			in3: pkt(0x10, connectHead(4, 2), str("c\x00d")), v3: closed},
		{name: "client identifier is no UTF-8", rule: "MQTT-1.5.4-1", first: true, in: pkt(0x10, connectHead(5, 2), props(), str("\xC3\x28")), v5: "CONNACK 0x81 closed",
			in3: pkt(0x10, connectHead(4, 2), str("\xC3\x28")), v3: closed},
		{name: "surrogate in the client identifier", rule: "MQTT-1.5.4-1", first: true, in: pkt(0x10, connectHead(5, 2), props(), str("\xED\xA0\x80")), v5: "CONNACK 0x81 closed",
			in3: pkt(0x10, connectHead(4, 2), str("\xED\xA0\x80")), v3: closed},
		{name: "will QoS 3", rule: "MQTT-3.1.2-12", first: true, in: pkt(0x10, connectHead(5, 0x1E), props(), str("c"), props(), str("w"), str("x")), v5: "CONNACK 0x81 closed",
			in3: pkt(0x10, connectHead(4, 0x1E), str("c"), str("w"), str("x")), v3: closed},
		{name: "will QoS without a will", rule: "MQTT-3.1.2-11", first: true, in: pkt(0x10, connectHead(5, 0x0A), props(), str("c")), v5: "CONNACK 0x81 closed",
			in3: pkt(0x10, connectHead(4, 0x0A), str("c")), v3: closed},
		{name: "will topic with a wildcard", rule: "MQTT-4.7.1-1", first: true, in: pkt(0x10, connectHead(5, 6), props(), str("c"), props(), str("w/#"), str("x")), v5: "CONNACK 0x90 closed",
			in3: pkt(0x10, connectHead(4, 6), str("c"), str("w/#"), str("x")), v3: closed},
		{name: "will topic of 300 levels", rule: "limit of 128", first: true, in: pkt(0x10, connectHead(5, 6), props(), str("c"), props(), str(strings.Repeat("/", 300)), str("x")), v5: "CONNACK 0x90 closed",
			in3: pkt(0x10, connectHead(4, 6), str("c"), str(strings.Repeat("/", 300)), str("x")), v3: closed},
		{name: "will topic $share/g/t", rule: "4.8.2", first: true, in: pkt(0x10, connectHead(5, 6), props(), str("c"), props(), str("$share/g/t"), str("x")), v5: "CONNACK 0x90 closed",
			in3: pkt(0x10, connectHead(4, 6), str("c"), str("$share/g/t"), str("x")), v3: closed},
		{name: "password without user name", rule: "MQTT-3.1.2-22 of 3.1.1", first: true, v5: "-",
			in3: pkt(0x10, connectHead(4, 0x42), str("c"), str("p")), v3: closed},
		{name: "protocol level 9", rule: "MQTT-3.1.2-2", first: true, in: pkt(0x10, connectHead(9, 2), str("c")), v5: "-",
			in3: pkt(0x10, connectHead(9, 2), str("c")), v3: "CONNACK 0x84 closed"},
		{name: "empty client identifier without clean session", rule: "MQTT-3.1.3-8 of 3.1.1", first: true, v5: "-",
			in3: pkt(0x10, connectHead(4, 0), str("")), v3: "CONNACK 0x85 closed"},
		{name: "Remaining Length of five bytes", rule: "MQTT-1.5.5-1", first: true, in: raw("\x10\xFF\xFF\xFF\xFF\x7F"), v5: closed, v3: closed},
		{name: "Remaining Length 256 MB and then nothing", rule: "4.2", first: true, in: raw("\x10\xFF\xFF\xFF\x7F"), v5: closed, v3: closed},
		{name: "CONNECT of 70,000 bytes in one string's length", rule: "4.2", first: true, in: pkt(0x10, connectHead(5, 2), props(), str(long[:65_535]), raw(long)), v5: "CONNACK 0x95 closed",
			in3: pkt(0x10, connectHead(4, 2), str(long[:65_535]), raw(long)), v3: closed},
		{name: "property given twice", rule: "2.2.2.2", first: true, in: pkt(0x10, connectHead(5, 2), props(prop(0x21, 0, 9), prop(0x21, 0, 9)), str("c")), v5: "CONNACK 0x82 closed", v3: "-"},
		{name: "unknown property", rule: "2.2.2.2", first: true, in: pkt(0x10, connectHead(5, 2), props(prop(0x7F, 1)), str("c")), v5: "CONNACK 0x81 closed", v3: "-"},
		{name: "property of another packet", rule: "2.2.2.2", first: true, in: pkt(0x10, connectHead(5, 2), props(prop(0x23, 0, 1)), str("c")), v5: "CONNACK 0x81 closed", v3: "-"},
		{name: "Receive Maximum 0", rule: "3.1.2.11.3", first: true, in: pkt(0x10, connectHead(5, 2), props(prop(0x21, 0, 0)), str("c")), v5: "CONNACK 0x82 closed", v3: "-"},
		{name: "Maximum Packet Size 0", rule: "3.1.2.11.4", first: true, in: pkt(0x10, connectHead(5, 2), props(prop(0x27, 0, 0, 0, 0)), str("c")), v5: "CONNACK 0x82 closed", v3: "-"},
		{name: "authentication data without a method", rule: "3.1.2.11.10", first: true, in: pkt(0x10, connectHead(5, 2), props(cat(prop(0x16), str("x"))), str("c")), v5: "CONNACK 0x82 closed", v3: "-"},
		{name: "authentication method nobody has", rule: "MQTT-4.12.0-1", first: true, in: pkt(0x10, connectHead(5, 2), props(cat(prop(0x15), str("SCRAM"))), str("c")), v5: "CONNACK 0x8C closed", v3: "-"},
		{name: "2,000 user properties", rule: "4.2", first: true, in: pkt(0x10, connectHead(5, 2), props(users), str("c")), v5: "CONNACK 0x97 closed", v3: "-"},
	}
}

// tlsHello is the beginning of a TLS 1.3 ClientHello.
var tlsHello = cat(raw("\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03"), bytes.Repeat([]byte{0x5A}, 300))

// publishes are bad PUBLISHes of a client that is connected.
func publishes() []row {
	both := func(flags byte, name string, id uint16) (v5, v3 []byte) {
		return publish(packet.V5, flags, name, id, "x"), publish(packet.V311, flags, name, id, "x")
	}
	mk := func(name, rule string, flags byte, topic string, id uint16, v5, v3 string) row {
		in5, in3 := both(flags, topic, id)
		return row{name: name, rule: rule, in: in5, in3: in3, v5: v5, v3: v3}
	}
	with := func(flags byte, topic string, id []byte, p ...[]byte) []byte {
		return pkt(0x30|flags, str(topic), id, props(p...), raw("x"))
	}
	one := []byte{0, 1}
	return []row{
		mk("empty topic", "MQTT-4.7.3-1", 0, "", 0, protocolErr, closed),
		mk("wildcard # in a topic", "MQTT-3.3.2-2", 0, "a/#", 0, topicInvalid, closed),
		mk("wildcard + in a topic", "MQTT-3.3.2-2", 2, "a/+/b", 1, topicInvalid, closed),
		mk("NUL in a topic", "MQTT-1.5.4-2", 0, "a\x00b", 0, malformed, closed),
		mk("topic of 300 levels", "limit of 128", 2, strings.Repeat("/", 300), 1, "PUBACK 0x90", closed),
		mk("QoS 3", "MQTT-3.3.1-4", 6, "t", 1, malformed, closed),
		mk("packet identifier 0, QoS 1", "MQTT-2.2.1-3", 2, "t", 0, protocolErr, closed),
		mk("packet identifier 0, QoS 2", "MQTT-2.2.1-3", 4, "t", 0, protocolErr, closed),
		mk("DUP with QoS 0", "MQTT-3.3.1-2", 8, "t", 0, malformed, closed),
		mk("publish to $SYS", "4.7.2", 2, "$SYS/x", 1, "PUBACK 0x87", "PUBACK 0x00"),
		mk("publish to $share/g/t", "4.8.2", 2, "$share/g/t", 1, "PUBACK 0x90", closed),
		{name: "topic alias 0", rule: "MQTT-3.3.2-8", in: with(0, "t", nil, prop(0x23, 0, 0)), v5: aliasInvalid, v3: "-"},
		{name: "topic alias above the maximum", rule: "MQTT-3.3.2-9", in: with(0, "t", nil, prop(0x23, 0xFF, 0xFF)), v5: aliasInvalid, v3: "-"},
		{name: "unknown alias without a topic", rule: "3.3.2.3.4", in: with(0, "", nil, prop(0x23, 0, 5)), v5: protocolErr, v3: "-"},
		{name: "subscription identifier from a client", rule: "MQTT-3.3.4-6", in: with(2, "t", one, prop(0x0B, 7)), v5: protocolErr, v3: "-"},
		{name: "payload format 2", rule: "3.3.2.3.2", in: with(0, "t", nil, prop(0x01, 2)), v5: protocolErr, v3: "-"},
		{name: "response topic with a wildcard", rule: "MQTT-3.3.2-14", in: with(0, "t", nil, cat(prop(0x08), str("r/#"))), v5: protocolErr, v3: "-"},
		{name: "packet of 2 MiB", rule: "MQTT-3.2.2-15", in: publish(packet.V5, 0, "t", 0, strings.Repeat("x", 2<<20)), v5: "DISCONNECT 0x95 closed",
			in3: publish(packet.V311, 0, "t", 0, strings.Repeat("x", 2<<20)), v3: closed},
		{name: "QoS 1 PUBLISH cut in its identifier", rule: "2.1.4", in: pkt(0x32, str("t"), []byte{0}), v5: malformed, v3: closed},
	}
}

// others are bad packets of other types, of a client that is connected.
func others() []row {
	sub := func(name, rule, filter string, options byte, v5, v3 string) row {
		return row{name: name, rule: rule, in: subscribe(packet.V5, filter, options), in3: subscribe(packet.V311, filter, options&3), v5: v5, v3: v3}
	}
	one := []byte{0, 1}
	filter := cat(str("a"), []byte{0})
	deep := strings.Repeat("a/", 30_000) + "a"
	return []row{
		{name: "second CONNECT", rule: "MQTT-3.1.0-2", in: connect(packet.V5, "c"), in3: connect(packet.V311, "c"), v5: protocolErr, v3: closed},
		{name: "AUTH nobody asked for", rule: "MQTT-4.12.0-7", in: pkt(0xF0, []byte{0x18}, props(cat(prop(0x15), str("m")))), v5: protocolErr, in3: pkt(0xF0, []byte{0x18, 0}), v3: closed},
		{name: "SUBSCRIBE header 0x80", rule: "MQTT-3.8.1-1", in: pkt(0x80, one, props(), filter), in3: pkt(0x80, one, filter), v5: malformed, v3: closed},
		{name: "UNSUBSCRIBE header 0xA0", rule: "MQTT-3.10.1-1", in: pkt(0xA0, one, props(), str("a")), in3: pkt(0xA0, one, str("a")), v5: malformed, v3: closed},
		{name: "PUBREL header 0x60", rule: "MQTT-3.6.1-1", in: pkt(0x60, one), v5: malformed, v3: closed},
		{name: "SUBSCRIBE without a filter", rule: "MQTT-3.8.3-2", in: pkt(0x82, one, props()), in3: pkt(0x82, one), v5: protocolErr, v3: closed},
		{name: "UNSUBSCRIBE without a filter", rule: "MQTT-3.10.3-2", in: pkt(0xA2, one, props()), in3: pkt(0xA2, one), v5: protocolErr, v3: closed},
		{name: "SUBSCRIBE with identifier 0", rule: "MQTT-2.2.1-3", in: pkt(0x82, []byte{0, 0}, props(), filter), in3: pkt(0x82, []byte{0, 0}, filter), v5: protocolErr, v3: closed},
		sub("filter a/#/b", "MQTT-4.7.1-1", "a/#/b", 0, "SUBACK 0x8F", "SUBACK 0x80"),
		sub("filter a+/b", "MQTT-4.7.1-2", "a+/b", 0, "SUBACK 0x8F", "SUBACK 0x80"),
		sub("empty filter", "MQTT-4.7.3-1", "", 0, "SUBACK 0x8F", "SUBACK 0x80"),
		sub("filter with NUL", "MQTT-1.5.4-2", "a\x00", 0, malformed, closed),
		sub("filter of 30,000 levels", "limit of 128", deep, 0, "SUBACK 0x8F", "SUBACK 0x80"),
		sub("subscription with QoS 3", "3.8.3.1", "a", 3, protocolErr, closed),
		sub("retain handling 3", "3.8.3.1", "a", 0x30, protocolErr, "-"),
		sub("reserved bits of the options", "MQTT-3.8.3-5", "a", 0xC0, malformed, "-"),
		{name: "reserved bits of the QoS byte", rule: "MQTT-3.8.3-4 of 3.1.1", v5: "-", in3: subscribe(packet.V311, "a", 0x40), v3: closed},
		{name: "subscription identifier 0", rule: "3.8.2.1.2", in: pkt(0x82, one, props(prop(0x0B, 0)), filter), v5: protocolErr, v3: "-"},
		sub("$share with No Local", "MQTT-3.8.3-4", "$share/g/t", 4, protocolErr, "-"),
		sub("$share//t", "MQTT-4.8.2-1", "$share//t", 0, "SUBACK 0x8F", "SUBACK 0x80"),
		sub("$share/g", "MQTT-4.8.2-2", "$share/g", 0, "SUBACK 0x8F", "SUBACK 0x80"),
		sub("$share/+/t", "MQTT-4.8.2-2", "$share/+/t", 0, "SUBACK 0x8F", "SUBACK 0x80"),
		{name: "PUBREL of an unknown identifier", rule: "4.3.3", in: pkt(0x62, []byte{1, 1}), v5: "PUBCOMP 0x92", v3: "PUBCOMP 0x00"},
		{name: "PUBREC of an unknown identifier", rule: "4.3.3", in: pkt(0x50, []byte{1, 1}), v5: "PUBREL 0x92", v3: "PUBREL 0x00"},
		{name: "PUBACK of an unknown identifier", rule: "4.3.2", in: pkt(0x40, []byte{1, 1}), v5: "", v3: ""},
		{name: "PUBCOMP of an unknown identifier", rule: "4.3.3", in: pkt(0x70, []byte{1, 1}), v5: "", v3: ""},
		{name: "PUBACK with identifier 0", rule: "MQTT-2.2.1-3", in: pkt(0x40, []byte{0, 0}), v5: protocolErr, v3: closed},
		{name: "CONNACK from a client", rule: "table 2-1", in: pkt(0x20, []byte{0, 0, 0}), in3: pkt(0x20, []byte{0, 0}), v5: protocolErr, v3: closed},
		{name: "SUBACK from a client", rule: "table 2-1", in: pkt(0x90, one, props(), []byte{0}), in3: pkt(0x90, one, []byte{0}), v5: protocolErr, v3: closed},
		{name: "PINGRESP from a client", rule: "table 2-1", in: pkt(0xD0), v5: protocolErr, v3: closed},
		{name: "packet type 0", rule: "table 2-1", in: pkt(0x00), v5: malformed, v3: closed},
		{name: "PINGREQ with a body", rule: "3.12", in: pkt(0xC0, one), v5: malformed, v3: closed},
		{name: "PINGREQ with flags", rule: "MQTT-2.1.3-1", in: pkt(0xC1), v5: malformed, v3: closed},
		{name: "DISCONNECT with flags", rule: "MQTT-3.14.1-1", in: pkt(0xE1), v5: malformed, v3: closed},
		{name: "DISCONNECT with another's reason code", rule: "MQTT-3.14.2-1", in: pkt(0xE0, []byte{0x8D, 0}), v5: protocolErr, v3: "-"},
		{name: "DISCONNECT that raises the session expiry from 0", rule: "MQTT-3.14.2-2", in: pkt(0xE0, []byte{0}, props(prop(0x11, 0, 0, 0, 9))), v5: protocolErr, v3: "-"},
		{name: "QoS 2 beyond the Receive Maximum", rule: "MQTT-3.3.4-7", in: flood2(packet.V5, 400), v5: "... DISCONNECT 0x93 closed", v3: "-"},
		{name: "10,000 filters in one SUBSCRIBE", rule: "max-subscriptions", in: manyFilters(packet.V5, 10_000), in3: manyFilters(packet.V311, 10_000),
			v5: "SUBACK" + strings.Repeat(" 0x00", 1_000) + strings.Repeat(" 0x97", 9_000), v3: "SUBACK" + strings.Repeat(" 0x00", 1_000) + strings.Repeat(" 0x80", 9_000)},
		{name: "20,000 filters in one SUBSCRIBE", rule: "limit of 16,384", in: manyFilters(packet.V5, 20_000), in3: manyFilters(packet.V311, 20_000), v5: "DISCONNECT 0x97 closed", v3: closed},
	}
}

// flood2 are QoS 2 PUBLISHes with different identifiers.
func flood2(v packet.Version, count int) (b []byte) {
	for i := range count {
		b = append(b, publish(v, 4, "nobody/wants", uint16(i+1), "x")...)
	}
	return b
}

// manyFilters is one SUBSCRIBE.
func manyFilters(v packet.Version, count int) []byte {
	body := []byte{0, 1}
	if v == packet.V5 {
		body = append(body, props()...)
	}
	for i := range count {
		body = append(append(body, str(fmt.Sprintf("many/%d", i))...), 0)
	}
	return pkt(0x82, body)
}

// Every bad packet gets the answer of its row, in both versions, and the node serves on.
func TestEveryBadPacketGetsItsReasonCodeOrTheClose(t *testing.T) {
	long(t)
	n := newNode(t, "table")
	up(t, n)
	good := login(t, n, packet.V5, "witness")
	rows := slices.Concat(firstPackets(), publishes(), others())
	for i := range rows {
		rows[i].check(t, n)
	}
	if got := good.outcome(""); got != "" {
		t.Errorf("the good client got %q", got)
	}
	if panics := n.metric("quorate_panics_total"); panics != 0 {
		t.Errorf("%v connections ended in a panic:\n%s", panics, tail(n.log.String(), 20))
	}
	n.alive()
}

func (r *row) check(t *testing.T, n *node) {
	for _, v := range []packet.Version{packet.V5, packet.V311} {
		in, want := r.in, r.v5
		if v == packet.V311 {
			want = r.v3
			if r.in3 != nil {
				in = r.in3
			}
		}
		if want == "-" {
			continue
		}
		t.Run(fmt.Sprintf("%s/v%d", r.name, v), func(t *testing.T) {
			var w *wire
			if r.first {
				w = dial(t, n, v)
			} else {
				w = login(t, n, v, "")
			}
			w.write(in)
			got := w.outcome(want)
			if rest, some := strings.CutPrefix(want, "... "); got != want && !(some && strings.HasSuffix(got, rest)) {
				t.Errorf("%s [%s]: got %q, want %q", r.name, r.rule, clip(got), clip(want))
			}
		})
	}
}

func clip(s string) string {
	if len(s) > 300 {
		return fmt.Sprintf("%s ... %s (%d)", s[:140], s[len(s)-140:], len(s))
	}
	return s
}
