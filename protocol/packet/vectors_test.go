package packet

import (
	"bytes"
	"testing"
)

type vector struct {
	name   string
	v      Version
	side   Side
	bytes  string
	packet Packet
}

func user(name, value string) []UserProperty { return []UserProperty{{name, value}} }

// vectors are the bytes of the standards' figures, both ways.
func vectors() []vector {
	return append(append(connectVectors(), publishVectors()...), otherVectors()...)
}

func connectVectors() []vector {
	return []vector{
		{"CONNECT 3.1", V31, FromClient, "10 0E 0006 'MQIsdp' 03 02 003C 0000", nil}, // refused: see connect_test
		{"CONNECT 3.1", V31, FromClient, "10 0F 0006 'MQIsdp' 03 02 003C 0001 'a'",
			&Connect{Version: V31, CleanStart: true, KeepAlive: 60, ClientID: "a"}},
		{"CONNECT 3.1 of a bridge", V31, FromClient, "10 0F 0006 'MQIsdp' 83 02 003C 0001 'a'",
			&Connect{Version: V31, CleanStart: true, KeepAlive: 60, ClientID: "a", Bridge: true}},
		{"CONNECT 3.1.1", V311, FromClient, "10 0C 0004 'MQTT' 04 02 0000 0000",
			&Connect{Version: V311, CleanStart: true}},
		{"CONNECT 3.1.1 with everything", V311, FromClient,
			"10 1D 0004 'MQTT' 04 F4 FFFF 0001 'c' 0003 'w/t' 0002 00FF 0001 'u' 0002 'pw'",
			&Connect{Version: V311, KeepAlive: 65535, ClientID: "c", HasUsername: true, Username: "u", HasPassword: true,
				Password: []byte("pw"), Will: &Will{Topic: "w/t", Payload: []byte{0, 0xFF}, QoS: 2, Retain: true}}},
		{"CONNECT 5", V5, FromClient, "10 0D 0004 'MQTT' 05 00 000A 00 0000", &Connect{Version: V5, KeepAlive: 10}},
		{"CONNECT 5 with a password alone", V5, FromClient, "10 10 0004 'MQTT' 05 40 000A 00 0000 0001 'p'",
			&Connect{Version: V5, KeepAlive: 10, HasPassword: true, Password: []byte("p")}},
		{"CONNECT 5 with all properties", V5, FromClient,
			"10 39 0004 'MQTT' 05 02 000A 29 11 FFFFFFFF 21 000A 27 00001000 22 0014 19 01 17 00 15 0005 'PLAIN' 16 0002 0001 26 0001 'k' 0002 'vv' 0003 'cid'",
			&Connect{Version: V5, CleanStart: true, KeepAlive: 10, ClientID: "cid", Properties: Properties{
				SessionExpirySeconds: 0xFFFFFFFF, HasSessionExpiry: true, ReceiveMaximum: 10, MaximumPacketSize: 4096,
				TopicAliasMaximum: 20, RequestResponseInformation: true, NoProblemInformation: true,
				AuthenticationMethod: "PLAIN", AuthenticationData: []byte{0, 1}, UserProperties: user("k", "vv")}}},
		{"CONNECT 5 with a will", V5, FromClient,
			"10 2A 0004 'MQTT' 05 0E 0000 00 0001 'c' 13 18 00000005 02 0000003C 01 01 26 0001 'a' 0001 'b' 0001 't' 0003 'bye'",
			&Connect{Version: V5, CleanStart: true, ClientID: "c", Will: &Will{Topic: "t", Payload: []byte("bye"), QoS: 1,
				DelaySeconds: 5, ExpirySeconds: 60, HasExpiry: true, Forwarded: []byte("\x01\x01\x26\x00\x01a\x00\x01b")}}},
		{"CONNACK 3.1", V31, FromServer, "20 02 00 00", &Connack{}},
		{"CONNACK 3.1.1", V311, FromServer, "20 02 01 00", &Connack{SessionPresent: true}},
		{"CONNACK 3.1.1 refused", V311, FromServer, "20 02 00 05", &Connack{ReasonCode: NotAuthorized}},
		{"CONNACK 5", V5, FromServer, "20 03 01 00 00", &Connack{SessionPresent: true}},
		{"CONNACK 5 with all properties", V5, FromServer,
			"20 40 00 00 3D 11 0000000A 21 0001 27 00000100 22 0003 13 0000 24 01 25 00 28 00 29 00 2A 00 12 0002 'id' 15 0001 'm' 16 0001 01 1F 0001 'r' 1A 0002 'ri' 1C 0002 'sr' 26 0000 0000",
			&Connack{Properties: Properties{SessionExpirySeconds: 10, HasSessionExpiry: true, ReceiveMaximum: 1,
				MaximumPacketSize: 256, TopicAliasMaximum: 3, HasServerKeepAlive: true, MaximumQoS: 1, HasMaximumQoS: true,
				RetainUnavailable: true, WildcardsUnavailable: true, SubscriptionIDsUnavailable: true, SharedUnavailable: true,
				AssignedClientID: "id", AuthenticationMethod: "m", AuthenticationData: []byte{1}, ReasonString: "r",
				ResponseInformation: "ri", ServerReference: "sr", UserProperties: user("", "")}}},
	}
}

func publishVectors() []vector {
	return []vector{
		{"PUBLISH QoS 0", V311, FromClient, "30 05 0003 'a/b'", &Publish{Topic: "a/b"}},
		{"PUBLISH QoS 1, DUP, RETAIN", V311, FromClient, "3B 08 0003 'a/b' 000A 'x'",
			&Publish{Topic: "a/b", QoS: 1, Dup: true, Retain: true, PacketID: 10, Payload: []byte("x")}},
		{"PUBLISH 3.1 QoS 2", V31, FromServer, "34 07 0003 'a/b' FFFF", &Publish{Topic: "a/b", QoS: 2, PacketID: 65535}},
		{"PUBLISH 5", V5, FromClient, "30 07 0003 'a/b' 00 'x'", &Publish{Topic: "a/b", Payload: []byte("x")}},
		{"PUBLISH 5 with an alias alone", V5, FromClient, "32 08 0000 0001 03 23 0007",
			&Publish{QoS: 1, PacketID: 1, TopicAlias: 7}},
		{"PUBLISH 5 to a client", V5, FromServer, "30 29 0001 't' 24 23 0001 02 00000000 0B 01 0B 01 0B FFFFFF7F " +
			"01 00 03 0001 'c' 08 0001 'r' 09 0000 26 0001 'k' 0000 'p'",
			&Publish{Topic: "t", TopicAlias: 1, HasExpiry: true, SubscriptionIDs: []uint32{1, 1, 268435455},
				Forwarded: []byte("\x01\x00\x03\x00\x01c\x08\x00\x01r\x09\x00\x00\x26\x00\x01k\x00\x00"), Payload: []byte("p")}},
	}
}

func otherVectors() []vector {
	reason := Properties{ReasonString: "no", UserProperties: user("a", "b")}
	const reasonBytes = "0C 1F 0002 'no' 26 0001 'a' 0001 'b'"
	return []vector{
		{"PUBACK", V311, FromClient, "40 02 0001", &Puback{PacketID: 1}},
		{"PUBACK 5, short", V5, FromClient, "40 02 0001", &Puback{PacketID: 1}},
		{"PUBACK 5 with a code", V5, FromServer, "40 03 0001 10", &Puback{PacketID: 1, ReasonCode: NoMatchingSubscribers}},
		{"PUBACK 5, long", V5, FromServer, "40 10 0001 87" + reasonBytes,
			&Puback{PacketID: 1, ReasonCode: NotAuthorized, Properties: reason}},
		{"PUBREC", V31, FromClient, "50 02 0102", &Pubrec{PacketID: 0x102}},
		{"PUBREC 5, long", V5, FromClient, "50 10 0001 97" + reasonBytes,
			&Pubrec{PacketID: 1, ReasonCode: QuotaExceeded, Properties: reason}},
		{"PUBREL", V311, FromClient, "62 02 0001", &Pubrel{PacketID: 1}},
		{"PUBREL 5", V5, FromServer, "62 03 0001 92", &Pubrel{PacketID: 1, ReasonCode: PacketIdentifierNotFound}},
		{"PUBCOMP", V311, FromServer, "70 02 0001", &Pubcomp{PacketID: 1}},
		{"PUBCOMP 5, code 0 with properties", V5, FromClient, "70 10 0001 00" + reasonBytes, &Pubcomp{PacketID: 1, Properties: reason}},
		{"SUBSCRIBE 3.1", V31, FromClient, "82 06 0001 0001 'a' 02",
			&Subscribe{PacketID: 1, Subscriptions: []Subscription{{Filter: "a", QoS: 2}}}},
		{"SUBSCRIBE", V311, FromClient, "82 0E 000A 0003 'a/b' 01 0003 'c/#' 02",
			&Subscribe{PacketID: 10, Subscriptions: []Subscription{{Filter: "a/b", QoS: 1}, {Filter: "c/#", QoS: 2}}}},
		{"SUBSCRIBE 5", V5, FromClient, "82 14 000A 0A 0B 80 01 26 0001 'a' 0001 'b' 0001 '#' 2D 0000 10",
			&Subscribe{PacketID: 10, SubscriptionID: 128, UserProperties: user("a", "b"), Subscriptions: []Subscription{
				{Filter: "#", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}, {RetainHandling: 1}}}},
		{"SUBACK", V311, FromServer, "90 06 0001 00 01 02 80",
			&Suback{PacketID: 1, ReasonCodes: []ReasonCode{0, 1, 2, UnspecifiedError}}},
		{"SUBACK 5", V5, FromServer, "90 11 0001" + reasonBytes + "02 8F",
			&Suback{PacketID: 1, ReasonCodes: []ReasonCode{GrantedQoS2, TopicFilterInvalid}, Properties: reason}},
		{"UNSUBSCRIBE", V311, FromClient, "A2 05 0001 0001 'a'", &Unsubscribe{PacketID: 1, Filters: []string{"a"}}},
		{"UNSUBSCRIBE 5", V5, FromClient, "A2 0F 0001 07 26 0001 'a' 0001 'b' 0000 0001 'a'",
			&Unsubscribe{PacketID: 1, UserProperties: user("a", "b"), Filters: []string{"", "a"}}},
		{"UNSUBACK", V311, FromServer, "B0 02 0001", &Unsuback{PacketID: 1}},
		{"UNSUBACK 5", V5, FromServer, "B0 05 0001 00 00 11",
			&Unsuback{PacketID: 1, ReasonCodes: []ReasonCode{Success, NoSubscriptionExisted}}},
		{"PINGREQ", V31, FromClient, "C0 00", &Pingreq{}},
		{"PINGRESP", V5, FromServer, "D0 00", &Pingresp{}},
		{"DISCONNECT", V311, FromClient, "E0 00", &Disconnect{}},
		{"DISCONNECT 5, empty", V5, FromClient, "E0 00", &Disconnect{}},
		{"DISCONNECT 5 with a code", V5, FromClient, "E0 01 04", &Disconnect{ReasonCode: DisconnectWithWill}},
		{"DISCONNECT 5 of a client", V5, FromClient, "E0 07 00 05 11 0000000A",
			&Disconnect{Properties: Properties{SessionExpirySeconds: 10, HasSessionExpiry: true}}},
		{"DISCONNECT 5 of a server", V5, FromServer, "E0 0B 9C 09 1F 0001 'x' 1C 0002 'n2'",
			&Disconnect{ReasonCode: UseAnotherServer, Properties: Properties{ReasonString: "x", ServerReference: "n2"}}},
		{"AUTH", V5, FromClient, "F0 0A 18 08 15 0001 'm' 16 0001 'd'",
			&Auth{ReasonCode: ContinueAuthentication, Properties: Properties{AuthenticationMethod: "m", AuthenticationData: []byte("d")}}},
	}
}

func TestPacketsAreTheBytesOfTheStandardBothWays(t *testing.T) {
	for _, c := range vectors() {
		if c.packet == nil {
			continue
		}
		t.Run(c.name+" "+c.v.String(), func(t *testing.T) {
			raw := bin(t, c.bytes)
			if got := c.packet.Append(nil, c.v); !bytes.Equal(got, raw) {
				t.Errorf("encoded %x\n   want %x", got, raw)
			}
			v := c.v
			if c.packet.Type() == TypeConnect {
				v = 0
			}
			got, err := decodeOne(raw, v, c.side)
			if err != nil {
				t.Fatal(err)
			}
			same(t, got, c.packet)
		})
	}
}

// Every packet ends where its Remaining Length says: one that is cut short, with
// a length that fits, is malformed or a shorter legal form, and never a panic.
func TestAPacketCutShortIsRefusedOrAShortForm(t *testing.T) {
	for _, c := range vectors() {
		raw := bin(t, c.bytes)
		v := c.v
		if Type(raw[0]>>4) == TypeConnect {
			v = 0
		}
		for n := range len(raw) - 2 {
			p, err := decodeOne(framed(raw[0], raw[2:2+n]), v, c.side)
			if err == nil {
				if p.Append(nil, c.v) == nil {
					t.Errorf("%s cut to %d bytes cannot be encoded", c.name, n)
				}
				continue
			}
			if e := err.(*Error); e.Reason != MalformedPacket && e.Reason != ProtocolError && e.Reason != ClientIdentifierNotValid {
				t.Errorf("%s cut to %d bytes: %v", c.name, n, err)
			}
		}
	}
}

func TestLengthsTakeTheFewestBytes(t *testing.T) { // [MQTT-1.5.5-1]
	for payload, header := range map[int]string{
		127 - 3: "30 7F", 128 - 3: "30 80 01", 321 - 3: "30 C1 02", 16383 - 3: "30 FF 7F", 16384 - 3: "30 80 80 01",
		2097151 - 3: "30 FF FF 7F", 2097152 - 3: "30 80 80 80 01",
	} {
		p := &Publish{Topic: "t", Payload: make([]byte, payload)}
		b := p.Append(nil, V311)
		if h := bin(t, header); !bytes.HasPrefix(b, h) || len(b) != len(h)+3+payload {
			t.Errorf("payload of %d: header %x, want %x", payload, b[:5], h)
		}
		r := NewReader(bytes.NewReader(b), 4<<20, FromClient)
		r.SetVersion(V311)
		if got, err := r.Next(); err != nil || len(got.(*Publish).Payload) != payload {
			t.Errorf("payload of %d: %v", payload, err)
		}
	}
	for _, n := range []int{127, 128, 16383, 16384} { // the same for packets that are closed afterwards
		b := framed(0xE0, make([]byte, n))
		if n2, used := int(b[1]&0x7F)|int(b[2]&0x7F)<<7|int(b[3])<<14, len(b)-n-1; used == 3 && n2 != n {
			t.Errorf("length %d is encoded as %x", n, b[:4])
		}
	}
}
