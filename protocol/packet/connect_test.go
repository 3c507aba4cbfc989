package packet

import (
	"bytes"
	"strings"
	"testing"
)

// MQTT 3.1 asks for no close where its unused bits are set (D31-05 to D31-09,
// D31-14, D31-27, D31-28 of the list of differences).
func TestLevel3IsTolerantOfUnusedBits(t *testing.T) {
	for _, c := range []struct {
		name, bytes string
		connect     bool
		want        Packet
	}{
		{"CONNECT with all header flags", "1F 0F 0006 'MQIsdp' 03 02 003C 0001 'a'", true,
			&Connect{Version: V31, CleanStart: true, KeepAlive: 60, ClientID: "a"}},
		{"connect flag bit 0", "10 0F 0006 'MQIsdp' 03 03 003C 0001 'a'", true,
			&Connect{Version: V31, CleanStart: true, KeepAlive: 60, ClientID: "a"}},
		{"will QoS and retain without a will", "10 0F 0006 'MQIsdp' 03 38 003C 0001 'a'", true,
			&Connect{Version: V31, KeepAlive: 60, ClientID: "a"}},
		{"user name and password announced, not there", "10 0F 0006 'MQIsdp' 03 C2 003C 0001 'a'", true,
			&Connect{Version: V31, CleanStart: true, KeepAlive: 60, ClientID: "a"}},
		{"password announced, not there", "10 12 0006 'MQIsdp' 03 C2 003C 0001 'a' 0001 'u'", true,
			&Connect{Version: V31, CleanStart: true, KeepAlive: 60, ClientID: "a", HasUsername: true, Username: "u"}},
		{"will message of any bytes", "10 16 0006 'MQIsdp' 03 06 003C 0001 'a' 0001 't' 0002 FF00", true,
			&Connect{Version: V31, CleanStart: true, KeepAlive: 60, ClientID: "a", Will: &Will{Topic: "t", Payload: []byte{0xFF, 0}}}},
		{"PUBREL with DUP", "6A 02 0001", false, &Pubrel{PacketID: 1}},
		{"SUBSCRIBE with DUP", "8A 06 0001 0001 'a' 01", false, &Subscribe{PacketID: 1, Subscriptions: []Subscription{{Filter: "a", QoS: 1}}}},
		{"SUBSCRIBE with unused option bits", "83 06 0001 0001 'a' F1", false,
			&Subscribe{PacketID: 1, Subscriptions: []Subscription{{Filter: "a", QoS: 1}}}},
		{"UNSUBSCRIBE with DUP", "AA 05 0001 0001 'a'", false, &Unsubscribe{PacketID: 1, Filters: []string{"a"}}},
		{"PINGREQ with flags", "CF 00", false, &Pingreq{}},
		{"DISCONNECT with flags", "EF 00", false, &Disconnect{}},
		{"PUBLISH QoS 0 with DUP", "38 03 0001 'a'", false, &Publish{Topic: "a"}},
		{"remaining length with a needless byte", "C0 80 00", false, &Pingreq{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := V31
			if c.connect {
				v = 0
			}
			got, err := decodeOne(bin(t, c.bytes), v, FromClient)
			if err != nil {
				t.Fatal(err)
			}
			same(t, got, c.want)
		})
	}
}

func TestA31ClientIdentifierHas23CharactersUnlessTheOptionSaysOtherwise(t *testing.T) {
	connect := func(id string) []byte { return (&Connect{CleanStart: true, ClientID: id}).Append(nil, V31) }
	if _, err := decodeOne(connect(strings.Repeat("é", 23)), 0, FromClient); err != nil {
		t.Errorf("23 characters of two bytes: %v", err) // the text counts characters
	}
	long := connect(strings.Repeat("a", 24))
	_, err := decodeOne(long, 0, FromClient)
	wantReason(t, err, ClientIdentifierNotValid)
	opt := DefaultOptions()
	opt.AllowLongClientIDs = true
	if _, err := NewReaderOptions(bytes.NewReader(long), FromClient, opt).Next(); err != nil {
		t.Errorf("with the option: %v", err)
	}
}

func TestTheReaderKnowsTheVersionAfterConnect(t *testing.T) {
	for _, v := range []Version{V31, V311, V5} {
		r := readerFor((&Connect{ClientID: "c"}).Append(nil, v), 0, FromClient)
		p, err := r.Next()
		if err != nil || r.Version() != v || p.(*Connect).Version != v {
			t.Errorf("%s: reader says %v, error %v", v, r.Version(), err)
		}
	}
}

func TestAConnectOwnsItsMemory(t *testing.T) {
	c := &Connect{ClientID: "c", HasPassword: true, Password: []byte("secret"), Will: &Will{Topic: "t", Payload: []byte("bye"),
		Forwarded: AppendForwarded(nil, &Forwarded{ContentType: "x"})}}
	stream := c.Append(nil, V5)
	stream = (&Publish{Topic: "t", Payload: bytes.Repeat([]byte("z"), 400)}).Append(stream, V5)
	r := NewReader(&trickle{stream, 100}, 1<<20, FromClient)
	got, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	c.Version = V5
	same(t, got, c)
}

func TestA311ServerThatDoesNotKnow5IsUnderstood(t *testing.T) {
	p, err := decodeOne(bin(t, "20 02 00 01"), V5, FromServer)
	if err != nil {
		t.Fatal(err)
	}
	same(t, p, &Connack{ReasonCode: UnsupportedProtocolVersion})
}

func TestConnackBefore5HasTheReturnCodeThatFitsOrIsNotSent(t *testing.T) { // [MQTT-3.2.2-6 of 3.1.1]
	for code, want := range map[ReasonCode]byte{Success: 0, UnsupportedProtocolVersion: 1, ClientIdentifierNotValid: 2,
		ServerUnavailable: 3, ServerBusy: 3, QuotaExceeded: 3, UseAnotherServer: 3, BadUserNameOrPassword: 4,
		NotAuthorized: 5, Banned: 5, MalformedPacket: NoV3Connack, PacketTooLarge: NoV3Connack} {
		if got := code.V3Connack(); got != want {
			t.Errorf("%s: %d, want %d", code, got, want)
		}
		b := (&Connack{SessionPresent: true, ReasonCode: code}).Append(nil, V311)
		switch {
		case want == NoV3Connack && b != nil:
			t.Errorf("%s is sent as %x", code, b)
		case want != NoV3Connack && (b[2] == 1) != (code == Success):
			t.Errorf("%s: session present in %x [MQTT-3.2.2-4 of 3.1.1]", code, b)
		}
	}
}
