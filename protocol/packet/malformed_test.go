package packet

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

type bad struct {
	name  string
	v     Version // 0: the bytes are a CONNECT or what comes instead of one
	side  Side
	bytes string
	want  ReasonCode
	after Version // what Reader.Version says then, if v is 0
}

const connect5 = "0004 'MQTT' 05"

func connect(name, bytes string, want ReasonCode, after Version) bad {
	return bad{name, 0, FromClient, bytes, want, after}
}

func badConnects() []bad {
	return []bad{
		connect("first packet is no CONNECT [MQTT-3.1.0-1]", "C0 00", ProtocolError, 0),
		connect("HTTP", "'GET / HTTP/1.1'", ProtocolError, 0),
		connect("TLS", "16 03 01 02 00 01 00 01 FC 03 03", MalformedPacket, 0),
		connect("PROXY protocol", "'PROXY TCP4 '", ProtocolError, 0),
		connect("type 0", "00 00", ProtocolError, 0),
		connect("protocol name [MQTT-3.1.2-1]", "10 0D 0004 'MQTX' 05 00 000A 00 0000", UnsupportedProtocolVersion, 0),
		connect("protocol name in lower case", "10 0F 0006 'mqisdp' 03 02 003C 0001 'a'", UnsupportedProtocolVersion, 0),
		connect("protocol name cut", "10 04 0006 'MQ'", MalformedPacket, 0),
		connect("no body", "10 00", MalformedPacket, 0),
		connect("no level", "10 06 0004 'MQTT'", MalformedPacket, 0),
		connect("level 0 [MQTT-3.1.2-2]", "10 0D 0004 'MQTT' 00 00 000A 00 0000", UnsupportedProtocolVersion, V311),
		connect("level 3 under the new name", "10 0D 0004 'MQTT' 03 00 000A 00 0000", UnsupportedProtocolVersion, V311),
		connect("level 6", "10 0D 0004 'MQTT' 06 00 000A 00 0000", UnsupportedProtocolVersion, V311),
		connect("level 127", "10 0D 0004 'MQTT' 7F 00 000A 00 0000", UnsupportedProtocolVersion, V311),
		connect("bridge of level 5", "10 0D 0004 'MQTT' 85 00 000A 00 0000", UnsupportedProtocolVersion, V311),
		connect("level 4 under the old name", "10 0F 0006 'MQIsdp' 04 02 003C 0001 'a'", UnsupportedProtocolVersion, V31),
		connect("header flags [MQTT-2.1.3-1]", "11 0D"+connect5+"00 000A 00 0000", MalformedPacket, V5),
		connect("header flags 3.1.1 [MQTT-2.2.2-2]", "14 0C 0004 'MQTT' 04 02 0000 0000", MalformedPacket, V311),
		connect("reserved flag [MQTT-3.1.2-3]", "10 0D"+connect5+"01 000A 00 0000", MalformedPacket, V5),
		connect("reserved flag 3.1.1 [MQTT-3.1.2-3]", "10 0C 0004 'MQTT' 04 03 0000 0000", MalformedPacket, V311),
		connect("will QoS without will [MQTT-3.1.2-11]", "10 0D"+connect5+"0A 000A 00 0000", MalformedPacket, V5),
		connect("will retain without will [MQTT-3.1.2-13]", "10 0D"+connect5+"22 000A 00 0000", MalformedPacket, V5),
		connect("will QoS 3 [MQTT-3.1.2-12]", "10 13"+connect5+"1E 000A 00 0000 00 0001 't' 0000", MalformedPacket, V5),
		connect("will QoS 3 in 3.1", "10 14 0006 'MQIsdp' 03 1E 003C 0001 'a' 0001 't' 0000", MalformedPacket, V31),
		connect("password alone 3.1.1 [MQTT-3.1.2-22]", "10 0F 0004 'MQTT' 04 42 0000 0000 0001 'p'", MalformedPacket, V311),
		connect("password alone 3.1", "10 12 0006 'MQIsdp' 03 42 003C 0001 'a' 0001 'p'", MalformedPacket, V31),
		connect("user name missing [MQTT-3.1.2-17]", "10 0D"+connect5+"80 000A 00 0000", MalformedPacket, V5),
		connect("bytes left over [MQTT-3.1.2-16]", "10 10"+connect5+"00 000A 00 0000 0001 'u'", MalformedPacket, V5),
		connect("truncated", "10 0A"+connect5+"00 000A", MalformedPacket, V5),
		connect("property length beyond the packet", "10 0D"+connect5+"00 000A 7F 0000", MalformedPacket, V5),
		connect("property length not minimal [MQTT-1.5.5-1]", "10 0E"+connect5+"00 000A 80 00 0000", MalformedPacket, V5),
		connect("remaining length not minimal [MQTT-1.5.5-1]", "10 8D 00"+connect5+"00 000A 00 0000", MalformedPacket, V5),
		connect("remaining length of five bytes", "10 80 80 80 80 01", MalformedPacket, 0),
	}
}

func badConnectFields() []bad {
	return []bad{
		connect("client id with U+0000 [MQTT-1.5.4-2]", "10 0E"+connect5+"00 000A 00 0001 00", MalformedPacket, V5),
		connect("client id with a surrogate [MQTT-1.5.4-1]", "10 10"+connect5+"00 000A 00 0003 EDA080", MalformedPacket, V5),
		connect("client id overlong UTF-8", "10 0F"+connect5+"00 000A 00 0002 C080", MalformedPacket, V5),
		connect("client id CESU-8 NUL in 3.1", "10 10 0006 'MQIsdp' 03 02 003C 0002 C080", MalformedPacket, V31),
		connect("client id with a control character", "10 0E"+connect5+"00 000A 00 0001 07", MalformedPacket, V5),
		connect("client id with a noncharacter", "10 10"+connect5+"00 000A 00 0003 EFBFBF", MalformedPacket, V5),
		connect("client id empty in 3.1", "10 0E 0006 'MQIsdp' 03 02 003C 0000", ClientIdentifierNotValid, V31),
		connect("client id of 24 in 3.1", "10 26 0006 'MQIsdp' 03 02 003C 0018 '012345678901234567890123'", ClientIdentifierNotValid, V31),
		connect("client id empty, clean 0 [MQTT-3.1.3-8]", "10 0C 0004 'MQTT' 04 00 0000 0000", ClientIdentifierNotValid, V311),
		connect("will topic wildcard", "10 12"+connect5+"06 000A 00 0000 00 0001 '#' 0000", TopicNameInvalid, V5),
		connect("will topic empty [MQTT-4.7.3-1]", "10 11"+connect5+"06 000A 00 0000 00 0000 0000", TopicNameInvalid, V5),
		connect("will response topic wildcard [MQTT-3.3.2-14]", "10 16"+connect5+"06 000A 00 0000 04 08 0001 '+' 0001 't' 0000", ProtocolError, V5),
		connect("will property twice", "10 16"+connect5+"06 000A 00 0000 04 01 01 01 01 0001 't' 0000", ProtocolError, V5),
		connect("user name not UTF-8", "10 10"+connect5+"80 000A 00 0000 0001 FF", MalformedPacket, V5),
		connect("unknown property", "10 0F"+connect5+"00 000A 02 7F 00 0000", MalformedPacket, V5),
		connect("property id of two bytes", "10 10"+connect5+"00 000A 03 91 01 00 0000", MalformedPacket, V5),
		connect("property of another packet", "10 0F"+connect5+"00 000A 02 01 00 0000", MalformedPacket, V5),
		connect("property twice", "10 13"+connect5+"00 000A 06 22 0001 22 0001 0000", ProtocolError, V5),
		connect("property cut", "10 0F"+connect5+"00 000A 02 21 00 0000", MalformedPacket, V5),
		connect("receive maximum 0", "10 10"+connect5+"00 000A 03 21 0000 0000", ProtocolError, V5),
		connect("maximum packet size 0", "10 12"+connect5+"00 000A 05 27 00000000 0000", ProtocolError, V5),
		connect("request problem information 2", "10 0F"+connect5+"00 000A 02 17 02 0000", ProtocolError, V5),
		connect("request response information 2", "10 0F"+connect5+"00 000A 02 19 02 0000", ProtocolError, V5),
		connect("authentication data without method", "10 10"+connect5+"00 000A 03 16 0000 0000", ProtocolError, V5),
		connect("user property name not UTF-8 [MQTT-1.5.7-1]", "10 13"+connect5+"00 000A 06 26 0001 FF 0000 0000", MalformedPacket, V5),
		connect("user property value not UTF-8 [MQTT-1.5.7-1]", "10 13"+connect5+"00 000A 06 26 0000 0001 FF 0000", MalformedPacket, V5),
	}
}

func client(name string, v Version, bytes string, want ReasonCode) bad {
	return bad{name, v, FromClient, bytes, want, 0}
}

func server(name string, v Version, bytes string, want ReasonCode) bad {
	return bad{name, v, FromServer, bytes, want, 0}
}

func badHeaders() []bad {
	return []bad{
		client("second CONNECT [MQTT-3.1.0-2]", V5, "10 0D"+connect5+"00 000A 00 0000", ProtocolError),
		client("type 0 (table 2-1)", V5, "00 00", MalformedPacket),
		client("AUTH before 5.0", V311, "F0 00", MalformedPacket),
		client("CONNACK from a client", V5, "20 03 00 00 00", ProtocolError),
		client("SUBACK from a client", V311, "90 03 0001 00", ProtocolError),
		client("UNSUBACK from a client", V5, "B0 04 0001 00 00", ProtocolError),
		client("PINGRESP from a client", V5, "D0 00", ProtocolError),
		server("PINGREQ from a server", V5, "C0 00", ProtocolError),
		server("SUBSCRIBE from a server", V5, "82 06 0001 00 0000 00", ProtocolError),
		server("CONNECT from a server", V5, "10 0D"+connect5+"00 000A 00 0000", ProtocolError),
		server("DISCONNECT from a server before 5.0", V311, "E0 00", ProtocolError),
		client("remaining length of five bytes", V311, "30 FF FF FF FF 7F", MalformedPacket),
		client("remaining length not minimal [MQTT-1.5.5-1]", V5, "C0 80 00", MalformedPacket),
	}
}

func badPublishesAndAcks() []bad {
	return []bad{
		client("PUBLISH QoS 3 [MQTT-3.3.1-4]", V31, "36 07 0003 'a/b' 0001", MalformedPacket),
		client("PUBLISH DUP with QoS 0 [MQTT-3.3.1-2]", V5, "38 04 0001 'a' 00", MalformedPacket),
		client("PUBLISH id 0 [MQTT-2.2.1-3]", V5, "32 06 0001 'a' 0000 00", ProtocolError),
		server("PUBLISH id 0 [MQTT-2.2.1-4]", V311, "34 05 0001 'a' 0000", ProtocolError),
		client("PUBLISH topic + [MQTT-3.3.2-2]", V5, "30 06 0003 'a/+' 00", TopicNameInvalid),
		client("PUBLISH topic # [MQTT-3.3.2-2]", V31, "30 03 0001 '#'", TopicNameInvalid),
		client("PUBLISH empty topic 3.1.1 [MQTT-4.7.3-1]", V311, "30 02 0000", TopicNameInvalid),
		client("PUBLISH empty topic without alias", V5, "30 03 0000 00", ProtocolError),
		client("PUBLISH topic with U+0000 [MQTT-1.5.4-2]", V311, "30 03 0001 00", MalformedPacket),
		client("PUBLISH topic with C1 control", V311, "30 04 0002 C285", MalformedPacket),
		client("PUBLISH topic cut", V311, "30 03 0002 'a'", MalformedPacket),
		client("PUBLISH without id", V311, "32 03 0001 'a'", MalformedPacket),
		client("PUBLISH without property length", V5, "30 03 0001 'a'", MalformedPacket),
		client("PUBLISH alias 0 [MQTT-3.3.2-8]", V5, "30 07 0001 'a' 03 23 0000", TopicAliasInvalid),
		client("PUBLISH alias twice", V5, "30 0A 0001 'a' 06 23 0001 23 0001", ProtocolError),
		client("PUBLISH subscription id of a client [MQTT-3.3.4-6]", V5, "30 06 0001 'a' 02 0B 01", ProtocolError),
		server("PUBLISH subscription id 0", V5, "30 06 0001 'a' 02 0B 00", ProtocolError),
		server("PUBLISH subscription id of five bytes", V5, "30 0A 0001 'a' 06 0B FF FF FF FF 7F", MalformedPacket),
		client("PUBLISH payload format 2", V5, "30 06 0001 'a' 02 01 02", ProtocolError),
		client("PUBLISH response topic with # [MQTT-3.3.2-14]", V5, "30 08 0001 'a' 04 08 0001 '#'", ProtocolError),
		client("PUBLISH response topic empty", V5, "30 07 0001 'a' 03 08 0000", ProtocolError),
		client("PUBLISH content type not UTF-8 [MQTT-3.3.2-19]", V5, "30 08 0001 'a' 04 03 0001 FF", MalformedPacket),
		client("PUBLISH will delay", V5, "30 09 0001 'a' 05 18 00000001", MalformedPacket),
		client("PUBLISH expiry twice", V5, "30 0E 0001 'a' 0A 02 00000001 02 00000001", ProtocolError),

		client("PUBACK id 0", V5, "40 02 0000", ProtocolError),
		client("PUBACK cut", V311, "40 01 00", MalformedPacket),
		client("PUBACK with a code in 3.1.1", V311, "40 03 0001 00", MalformedPacket),
		client("PUBACK flags [MQTT-2.1.3-1]", V5, "41 02 0001", MalformedPacket),
		client("PUBACK code of a server [MQTT-3.4.2-1]", V5, "40 03 0001 10", ProtocolError),
		client("PUBREC code 0x92 [MQTT-3.5.2-1]", V5, "50 03 0001 92", ProtocolError),
		client("PUBACK reason string twice", V5, "40 0A 0001 00 06 1F 0000 1F 0000", ProtocolError),
		client("PUBACK property length too long", V5, "40 04 0001 00 01", MalformedPacket),
		client("PUBACK bytes after the properties", V5, "40 05 0001 00 00 00", MalformedPacket),
		client("PUBREL flags 0 [MQTT-3.6.1-1]", V5, "60 02 0001", MalformedPacket),
		client("PUBREL with DUP in 3.1.1", V311, "6A 02 0001", MalformedPacket),
		client("PUBREL code 0x80", V5, "62 03 0001 80", ProtocolError),
		client("PUBCOMP flags", V311, "72 02 0001", MalformedPacket),
	}
}

func badOthers() []bad {
	return []bad{
		client("SUBSCRIBE flags [MQTT-3.8.1-1]", V311, "80 06 0001 0001 'a' 00", MalformedPacket),
		client("SUBSCRIBE id 0 [MQTT-2.2.1-3]", V311, "82 06 0000 0001 'a' 00", ProtocolError),
		client("SUBSCRIBE without filter [MQTT-3.8.3-2]", V5, "82 03 0001 00", ProtocolError),
		client("SUBSCRIBE without options", V311, "82 05 0001 0001 'a'", MalformedPacket),
		client("SUBSCRIBE filter not UTF-8 [MQTT-3.8.3-1]", V5, "82 07 0001 00 0001 FF 00", MalformedPacket),
		client("SUBSCRIBE reserved bit 6 [MQTT-3.8.3-5]", V5, "82 07 0001 00 0001 'a' 40", MalformedPacket),
		client("SUBSCRIBE reserved bit 7 [MQTT-3.8.3-5]", V5, "82 07 0001 00 0001 'a' 80", MalformedPacket),
		client("SUBSCRIBE options in 3.1.1 [MQTT-3.8.3-4]", V311, "82 06 0001 0001 'a' 04", MalformedPacket),
		client("SUBSCRIBE QoS 3", V5, "82 07 0001 00 0001 'a' 03", ProtocolError),
		client("SUBSCRIBE QoS 3 in 3.1", V31, "82 06 0001 0001 'a' 03", MalformedPacket),
		client("SUBSCRIBE retain handling 3", V5, "82 07 0001 00 0001 'a' 30", ProtocolError),
		client("SUBSCRIBE no local, shared [MQTT-3.8.3-4]", V5, "82 10 0001 00 000A '$share/g/t' 04", ProtocolError),
		client("SUBSCRIBE id property 0", V5, "82 09 0001 02 0B 00 0001 'a' 00", ProtocolError),
		client("SUBSCRIBE id property twice", V5, "82 0B 0001 04 0B 01 0B 01 0001 'a' 00", ProtocolError),
		client("UNSUBSCRIBE flags [MQTT-3.10.1-1]", V5, "A0 06 0001 00 0001 'a'", MalformedPacket),
		client("UNSUBSCRIBE without filter [MQTT-3.10.3-2]", V5, "A2 03 0001 00", ProtocolError),
		client("UNSUBSCRIBE id 0", V311, "A2 05 0000 0001 'a'", ProtocolError),

		client("PINGREQ with a body", V311, "C0 01 00", MalformedPacket),
		client("PINGREQ flags", V5, "C1 00", MalformedPacket),
		client("DISCONNECT flags [MQTT-3.14.1-1]", V5, "E1 00", MalformedPacket),
		client("DISCONNECT with a body in 3.1.1", V311, "E0 01 00", MalformedPacket),
		client("DISCONNECT code of a server [MQTT-3.14.2-1]", V5, "E0 01 8B", ProtocolError),
		server("DISCONNECT with will from a server", V5, "E0 01 04", ProtocolError),
		server("DISCONNECT session expiry from a server [MQTT-3.14.2-2]", V5, "E0 07 00 05 11 00000000", ProtocolError),
		client("DISCONNECT server reference from a client", V5, "E0 06 00 04 1C 0001 'x'", ProtocolError),
		client("AUTH empty", V5, "F0 00", ProtocolError),
		client("AUTH without method", V5, "F0 02 18 00", ProtocolError),
		client("AUTH code 0 of a client [MQTT-3.15.2-1]", V5, "F0 06 00 04 15 0001 'm'", ProtocolError),
		client("AUTH flags [MQTT-3.15.1-1]", V5, "F1 00", MalformedPacket),
		server("AUTH re-authenticate of a server", V5, "F0 06 19 04 15 0001 'm'", ProtocolError),

		server("CONNACK flags [MQTT-3.2.2-1]", V5, "20 03 02 00 00", MalformedPacket),
		server("CONNACK code [MQTT-3.2.2-8]", V5, "20 03 00 01 00", ProtocolError),
		server("CONNACK session present with a code [MQTT-3.2.2-6]", V5, "20 03 01 80 00", ProtocolError),
		server("CONNACK session present with a code 3.1.1 [MQTT-3.2.2-4]", V311, "20 02 01 05", ProtocolError),
		server("CONNACK return code 6", V311, "20 02 00 06", MalformedPacket),
		server("CONNACK maximum QoS 2", V5, "20 05 00 00 02 24 02", ProtocolError),
		server("SUBACK code 3", V5, "90 04 0001 00 03", ProtocolError),
		server("SUBACK 0x87 in 3.1.1 [MQTT-3.9.3-2]", V311, "90 03 0001 87", MalformedPacket),
		server("SUBACK without codes", V5, "90 03 0001 00", ProtocolError),
		server("UNSUBACK with codes in 3.1.1", V311, "B0 03 0001 00", MalformedPacket),
		server("PINGRESP with a body", V5, "D0 01 00", MalformedPacket),
	}
}

func TestBadPacketsAreRefusedWithTheReasonCodeOfTheStandard(t *testing.T) {
	for _, c := range slices.Concat(badConnects(), badConnectFields(), badHeaders(), badPublishesAndAcks(), badOthers()) {
		t.Run(c.name, func(t *testing.T) {
			r := readerFor(bin(t, c.bytes), c.v, c.side)
			p, err := r.Next()
			if p != nil {
				t.Fatalf("decoded as %+v", p)
			}
			wantReason(t, err, c.want)
			if c.v == 0 && r.Version() != c.after {
				t.Errorf("version %v, want %v", r.Version(), c.after)
			}
			if _, again := r.Next(); again != err {
				t.Errorf("second call: %v, want the same error", again)
			}
		})
	}
}

// carrier is a packet with room for one property: its body before the property
// length and behind the properties.
type carrier struct {
	name, before, after string
	first               byte
	v                   Version
	side                Side
	allowed             string // identifiers of table 2-4
}

// carriers leave out what a server may not send: 11 in its DISCONNECT.
func carriers() []carrier {
	return []carrier{
		{"CONNECT", connect5 + "00 0000", "0000", 0x10, 0, FromClient, "11 15 16 17 19 21 22 26 27"},
		{"will", connect5 + "06 0000 00 0000", "0001 't' 0000", 0x10, 0, FromClient, "01 02 03 08 09 18 26"},
		{"CONNACK", "00 00", "", 0x20, V5, FromServer, "11 12 13 15 16 1A 1C 1F 21 22 24 25 26 27 28 29 2A"},
		{"PUBLISH", "0001 't'", "", 0x30, V5, FromServer, "01 02 03 08 09 0B 23 26"},
		{"PUBACK", "0001 00", "", 0x40, V5, FromServer, "1F 26"},
		{"PUBREC", "0001 00", "", 0x50, V5, FromServer, "1F 26"},
		{"PUBREL", "0001 00", "", 0x62, V5, FromServer, "1F 26"},
		{"PUBCOMP", "0001 00", "", 0x70, V5, FromServer, "1F 26"},
		{"SUBSCRIBE", "0001", "0001 't' 00", 0x82, V5, FromClient, "0B 26"},
		{"SUBACK", "0001", "00", 0x90, V5, FromServer, "1F 26"},
		{"UNSUBSCRIBE", "0001", "0001 't'", 0xA2, V5, FromClient, "26"},
		{"UNSUBACK", "0001", "00", 0xB0, V5, FromServer, "1F 26"},
		{"DISCONNECT", "00", "", 0xE0, V5, FromServer, "1C 1F 26"},
		{"AUTH", "18", "", 0xF0, V5, FromServer, "15 16 1F 26"},
	}
}

// Every property of table 2-4 in every packet that has properties: those that do
// not belong there are malformed, the others are not (section 2.2.2.2).
func TestAPropertyIsAllowedInItsPacketsOnly(t *testing.T) {
	for _, c := range carriers() {
		allowed := bin(t, c.allowed)
		for id := range byte(0x80) {
			if want := bytes.IndexByte(allowed, id) >= 0; c.takes(t, id) != want {
				t.Errorf("property 0x%02X in %s: allowed is %v", id, c.name, !want)
			}
		}
	}
}

// takes reports whether the packet is decoded with that property and some value:
// one for each type of table 2-4 is tried.
func (c carrier) takes(t *testing.T, id byte) bool {
	for _, value := range []string{"01", "0001", "00000001", "0001 'x'", "0001 'x' 0001 'y'"} {
		property := append([]byte{id}, bin(t, value)...)
		if id == propAuthData || (c.name == "AUTH" && id != propAuthMethod) {
			property = append(property, bin(t, "15 0001 'm'")...) // these need a method beside them
		}
		body := append(bin(t, c.before), byte(len(property)))
		body = append(append(body, property...), bin(t, c.after)...)
		if _, err := decodeOne(framed(c.first, body), c.v, c.side); err == nil {
			return true
		}
	}
	return false
}

func TestErrorTextsNameThePacketAndTheField(t *testing.T) {
	_, err := decodeOne(bin(t, "10 0D"+connect5+"80 000A 00 0000"), 0, FromClient)
	if err == nil || !strings.Contains(err.Error(), "Malformed Packet (0x81): CONNECT: user name: input ends inside a field") {
		t.Errorf("text: %v", err)
	}
	_, err = decodeOne(append(bin(t, "10 20 0014"), bytes.Repeat([]byte{0x1B}, 30)...), 0, FromClient)
	if err == nil || strings.ContainsRune(err.Error(), 0x1B) {
		t.Errorf("an escape character came through into %q", err)
	}
}
