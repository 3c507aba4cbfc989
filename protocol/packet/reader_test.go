package packet

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"

	"quorate/protocol/wire"
)

// conversation is a CONNECT and one of each packet that a client sends.
func conversation(t testing.TB, v Version) (stream []byte, packets []Packet) {
	packets = append(packets, &Connect{Version: v, CleanStart: true, ClientID: "c"})
	for _, c := range vectors() {
		if c.v == v && c.side == FromClient && c.packet != nil && c.packet.Type() != TypeConnect {
			packets = append(packets, c.packet)
		}
	}
	packets = append(packets, &Publish{Topic: "large", Payload: bytes.Repeat([]byte("x"), 100_000)}, &Pingreq{})
	for _, p := range packets {
		stream = p.Append(stream, v)
	}
	return stream, packets
}

func TestPacketsMayBeSplitAnywhere(t *testing.T) {
	for _, v := range []Version{V31, V311, V5} {
		stream, want := conversation(t, v)
		for _, n := range []int{1, 2, 3, 7, 511, 512, 513, 8191, 8192, 8193, 1 << 20} {
			r := NewReader(&trickle{stream, n}, 1<<20, FromClient)
			for i := range want {
				got, err := r.Next()
				if err != nil {
					t.Fatalf("%s, %d bytes a read, packet %d: %v", v, n, i, err)
				}
				if got.Type() != want[i].Type() || !bytes.Equal(got.Append(nil, v), want[i].Append(nil, v)) {
					t.Errorf("%s, %d bytes a read, packet %d is another %s", v, n, i, got.Type())
				}
			}
			if _, err := r.Next(); err != io.EOF {
				t.Errorf("%s, %d bytes a read: end is %v", v, n, err)
			}
		}
	}
}

func TestAnEndInsideAPacketIsAnUnexpectedEOF(t *testing.T) {
	b := (&Connect{ClientID: "c", CleanStart: true}).Append(nil, V311)
	for n := 1; n < len(b); n++ {
		if _, err := readerFor(b[:n], 0, FromClient).Next(); err != io.ErrUnexpectedEOF {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestATooLargePacketIsRefusedByItsHeader(t *testing.T) { // [MQTT-3.2.2-15], X5-3.2.2-4
	r := NewReader(io.MultiReader(bytes.NewReader(bin(t, "32 FE 0F")), iotest.ErrReader(errors.New("read on"))), 2048, FromClient)
	r.SetVersion(V5)
	if _, err := r.Next(); err == nil || err.Error() == "read on" {
		t.Fatalf("2,049 bytes: %v", err)
	} else {
		wantReason(t, err, PacketTooLarge)
	}
	p := &Publish{Topic: "t", Payload: make([]byte, 2048-1-2-3-1)}
	if n := p.Size(V5); n != 2048 {
		t.Fatalf("size %d", n)
	}
	r = NewReader(bytes.NewReader(p.Append(nil, V5)), 2048, FromClient)
	r.SetVersion(V5)
	if _, err := r.Next(); err != nil {
		t.Errorf("2,048 bytes: %v", err)
	}
}

func TestATooLargeConnectTellsItsVersionIfThatArrived(t *testing.T) {
	for bytes, want := range map[string]Version{"10 FF FF FF 7F" + connect5: V5, "10 FF FF FF 7F": 0} {
		r := readerFor(bin(t, bytes), 0, FromClient)
		_, err := r.Next()
		wantReason(t, err, PacketTooLarge)
		if r.Version() != want {
			t.Errorf("version %v, want %v", r.Version(), want)
		}
	}
}

// RELIABILITY: 256 MB announced, then nothing: no memory for a promise.
func TestMemoryIsReservedForBytesThatArrivedOnly(t *testing.T) {
	for _, arrived := range []int{1, 500, 5_000, 50_000, 500_000} {
		src := &trickle{append(bin(t, "30 FF FF FF 7F 0001 't'"), make([]byte, arrived)...), 1000}
		r := NewReader(src, wire.VarIntMax+5, FromClient)
		r.SetVersion(V311)
		if _, err := r.Next(); err != io.ErrUnexpectedEOF {
			t.Fatal(err)
		}
		if limit := max(bulkBytes, 2*arrived+2*idleBytes); len(r.buf) > limit {
			t.Errorf("%d bytes arrived: buffer of %d", arrived, len(r.buf))
		}
	}
}

func TestTheBufferShrinksWhenTheConnectionFallsIdle(t *testing.T) {
	b := (&Publish{Topic: "t", Payload: make([]byte, 300_000)}).Append(nil, V311)
	b = append(b, 0xC0, 0)
	idle := false
	var r *Reader
	src := readFunc(func(p []byte) (int, error) {
		if len(b) == 0 {
			idle = len(p) == idleBytes && len(r.buf) == idleBytes && r.bulk == nil
			return 0, io.EOF
		}
		n := copy(p, b)
		b = b[n:]
		return n, nil
	})
	r = NewReader(src, 1<<20, FromClient)
	r.SetVersion(V311)
	for {
		if _, err := r.Next(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !idle {
		t.Errorf("the read that waits has a buffer of %d bytes", len(r.buf))
	}
}

func TestABusyConnectionIsReadInBulk(t *testing.T) {
	p := &Publish{Topic: "plant/7/temp", Payload: make([]byte, 30)}
	src, reads := bytes.NewReader(bytes.Repeat(p.Append(nil, V5), 10_000)), 0
	r := NewReader(readFunc(func(b []byte) (int, error) { reads++; return src.Read(b) }), 1<<20, FromClient)
	r.SetVersion(V5)
	for range 10_000 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if most := p.Size(V5)*10_000/bulkBytes + 10; reads > most {
		t.Errorf("%d reads, at most %d expected", reads, most)
	}
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestAReadErrorMayBeTriedAgainWithoutLoss(t *testing.T) {
	b := (&Connect{ClientID: "c", CleanStart: true}).Append(nil, V311)
	step := 0
	r := NewReader(readFunc(func(p []byte) (int, error) {
		step++
		if step%2 == 1 {
			return 0, os.ErrDeadlineExceeded
		}
		n := copy(p, b[:min(5, len(b))])
		b = b[n:]
		return n, nil
	}), 1<<20, FromClient)
	for tries := 0; ; tries++ {
		p, err := r.Next()
		if err == nil {
			same(t, p, &Connect{Version: V311, ClientID: "c", CleanStart: true})
			return
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || tries > 10 {
			t.Fatal(err)
		}
	}
}

func TestAReaderThatGivesNothingIsGivenUp(t *testing.T) {
	r := NewReader(readFunc(func([]byte) (int, error) { return 0, nil }), 1<<20, FromClient)
	if _, err := r.Next(); err != io.ErrNoProgress {
		t.Errorf("got %v", err)
	}
}

func TestBufferedAndReadyTellWhetherNextWaits(t *testing.T) {
	r := readerFor(bin(t, "C0 00 C0 00 C0"), V311, FromClient)
	if r.Buffered() != 0 || r.Ready() {
		t.Error("something is there before the first read")
	}
	for _, want := range []struct {
		buffered int
		ready    bool
	}{{3, true}, {1, false}} {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if r.Buffered() != want.buffered || r.Ready() != want.ready {
			t.Errorf("buffered %d, ready %v, want %v", r.Buffered(), r.Ready(), want)
		}
	}
}

func TestLimitsOfOnePacket(t *testing.T) {
	users := make([]UserProperty, 101)
	connect := &Connect{ClientID: "c", Properties: Properties{UserProperties: users}}
	_, err := decodeOne(connect.Append(nil, V5), 0, FromClient)
	wantReason(t, err, QuotaExceeded)
	connect.Properties.UserProperties = users[:100]
	if _, err := decodeOne(connect.Append(nil, V5), 0, FromClient); err != nil {
		t.Errorf("100 user properties: %v", err)
	}
	publish := &Publish{Topic: "t", Forwarded: AppendForwarded(nil, &Forwarded{UserProperties: users})}
	_, err = decodeOne(publish.Append(nil, V5), V5, FromClient)
	wantReason(t, err, QuotaExceeded)

	filters := make([]string, DefaultOptions().MaxFilters+1)
	_, err = decodeOne((&Unsubscribe{PacketID: 1, Filters: filters}).Append(nil, V311), V311, FromClient)
	wantReason(t, err, QuotaExceeded)
	subscriptions := make([]Subscription, len(filters))
	_, err = decodeOne((&Subscribe{PacketID: 1, Subscriptions: subscriptions}).Append(nil, V5), V5, FromClient)
	wantReason(t, err, QuotaExceeded)
	if _, err := decodeOne((&Subscribe{PacketID: 1, Subscriptions: subscriptions[1:]}).Append(nil, V311), V311, FromClient); err != nil {
		t.Errorf("filters at the limit: %v", err)
	}
}

func TestControlCharactersPassWithTheOption(t *testing.T) {
	opt := DefaultOptions()
	opt.AllowControlCharacters = true
	p := &Publish{Topic: "a\tb\u0085\uFFFE", Forwarded: AppendForwarded(nil, &Forwarded{UserProperties: user("k", "line\nline")})}
	r := NewReaderOptions(bytes.NewReader(p.Append(nil, V5)), FromClient, opt)
	r.SetVersion(V5)
	got, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, p)
}

func TestAByteOrderMarkIsACharacter(t *testing.T) { // [MQTT-1.5.4-3]
	p := &Publish{Topic: "\uFEFFa"}
	got, err := decodeOne(p.Append(nil, V5), V5, FromClient)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, p)
}

// What a server passes on is one slice in the order of the packet, whatever stood
// between [MQTT-3.3.2-4] [MQTT-3.3.2-15] to [MQTT-3.3.2-18] [MQTT-3.3.2-20].
func TestForwardedPropertiesKeepTheirOrder(t *testing.T) {
	b := bin(t, "30 29 0001 't' 23 26 0001 'b' 0001 '1' 23 0001 26 0001 'a' 0001 '2' 02 00000009 26 0001 'b' 0001 '1' 09 0001 FF 01 01 'pp'")
	p, err := decodeOne(b, V5, FromClient)
	if err != nil {
		t.Fatal(err)
	}
	m := p.(*Publish)
	if want := bin(t, "26 0001 'b' 0001 '1' 26 0001 'a' 0001 '2' 26 0001 'b' 0001 '1' 09 0001 FF 01 01"); !bytes.Equal(m.Forwarded, want) {
		t.Errorf("forwarded %x\n     want %x", m.Forwarded, want)
	}
	if m.TopicAlias != 1 || m.ExpirySeconds != 9 || !m.HasExpiry || string(m.Payload) != "pp" {
		t.Errorf("the others: %+v", m)
	}
	f, err := ParseForwarded(m.Forwarded)
	if err != nil || len(f.UserProperties) != 3 || f.UserProperties[1].Name != "a" || !f.PayloadIsUTF8 || f.CorrelationData[0] != 0xFF {
		t.Errorf("parsed %+v, %v", f, err)
	}
	if _, err := ParseForwarded([]byte{0x26, 0}); err == nil {
		t.Error("half a property is parsed")
	}
}

func TestAPublishIsPatchedForEachSubscriber(t *testing.T) {
	p := &Publish{Topic: "a/b", QoS: 1, PacketID: 1, Payload: []byte("x")}
	for _, v := range []Version{V311, V5} {
		b, at := AppendPublish([]byte("before"), p, v)
		header, at2 := AppendPublishHeader([]byte("before"), p, v)
		if at2 != at || !bytes.Equal(append(header, p.Payload...), b) {
			t.Errorf("%s: header %x of %x", v, header, b)
		}
		SetPacketID(b, at, 0xABCD)
		SetDup(b[6:])
		got, err := decodeOne(b[6:], v, FromServer)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, &Publish{Topic: "a/b", QoS: 1, Dup: true, PacketID: 0xABCD, Payload: []byte("x")})
	}
	if _, at := AppendPublish(nil, &Publish{Topic: "a"}, V5); at != -1 {
		t.Errorf("QoS 0 has an identifier at %d", at)
	}
}

func TestAReceiverGetsNothingBeyondItsMaximumPacketSize(t *testing.T) { // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
	full := Properties{ReasonString: "because", UserProperties: user("key", "value")}
	for _, p := range []Packet{
		&Connack{Properties: full}, &Puback{PacketID: 1, ReasonCode: NotAuthorized, Properties: full}, &Pubrec{PacketID: 1, Properties: full},
		&Pubrel{PacketID: 1, Properties: full}, &Pubcomp{PacketID: 1, Properties: full}, &Disconnect{ReasonCode: ServerBusy, Properties: full},
		&Suback{PacketID: 1, ReasonCodes: []ReasonCode{0}, Properties: full}, &Unsuback{PacketID: 1, ReasonCodes: []ReasonCode{0}, Properties: full},
		&Auth{Properties: Properties{AuthenticationMethod: "m", ReasonString: "because", UserProperties: full.UserProperties}},
		&Publish{Topic: "t", Payload: make([]byte, 200)}, &Pingresp{},
	} {
		whole := p.Append(nil, V5)
		sizes := map[int]bool{}
		for n := uint32(1); n <= uint32(len(whole)); n++ {
			out, ok := Receiver{Version: V5, MaxPacketBytes: n}.Append([]byte("x"), p)
			if len(out)-1 > int(n) || ok != (len(out) > 1) || out[0] != 'x' {
				t.Fatalf("%s: %d bytes for a maximum of %d", p.Type(), len(out)-1, n)
			}
			if ok {
				sizes[len(out)] = true
				if _, err := decodeOne(out[1:], V5, FromServer); err != nil {
					t.Errorf("%s within %d: %v", p.Type(), n, err)
				}
			}
		}
		// In full, without User Properties, without the Reason String too.
		if _, trims := p.(trimmable); trims && len(sizes) != 3 {
			t.Errorf("%s was sent in %d sizes, want 3", p.Type(), len(sizes))
		}
	}
}

func TestWithoutProblemInformationOnlyThreePacketsCarryIt(t *testing.T) { // [MQTT-3.1.2-29]
	r := Receiver{Version: V5, NoProblemInformation: true}
	full := Properties{ReasonString: "because"}
	for p, want := range map[Packet]bool{
		&Puback{PacketID: 1, Properties: full}: false, &Suback{PacketID: 1, Properties: full}: false,
		&Connack{Properties: full}: true, &Disconnect{Properties: full}: true,
	} {
		out, _ := r.Append(nil, p)
		if bytes.Contains(out, []byte("because")) != want {
			t.Errorf("%s: %q", p.Type(), out)
		}
	}
}

func TestCodesBefore5AreThoseOfTheVersion(t *testing.T) {
	s := &Suback{PacketID: 1, ReasonCodes: []ReasonCode{GrantedQoS2, NotAuthorized}}
	if got := s.Append(nil, V311); !bytes.Equal(got, bin(t, "90 04 0001 02 80")) { // [MQTT-3.9.3-2 of 3.1.1]
		t.Errorf("3.1.1: %x", got)
	}
	if got := s.Append(nil, V31); !bytes.Equal(got, bin(t, "90 04 0001 02 00")) { // no failure code in 3.1
		t.Errorf("3.1: %x", got)
	}
	if got := (&Puback{PacketID: 1, ReasonCode: NotAuthorized}).Append(nil, V311); !bytes.Equal(got, bin(t, "40 02 0001")) {
		t.Errorf("PUBACK: %x", got)
	}
	if got := (&Auth{}).Append(nil, V311); len(got) != 0 {
		t.Errorf("AUTH: %x", got)
	}
}

func TestNamesAreThoseOfTheStandard(t *testing.T) {
	for want, got := range map[string]string{
		"CONNECT": TypeConnect.String(), "UNSUBSCRIBE": TypeUnsubscribe.String(), "AUTH": TypeAuth.String(), "type 16": Type(16).String(),
		"Quota exceeded": QuotaExceeded.String(), "Success": Success.String(), "Reason Code 3": ReasonCode(3).String(),
		"Wildcard Subscriptions not supported": WildcardSubscriptionsNotSupported.String(), "Reason Code 255": ReasonCode(255).String(),
		"3.1.1": V311.String(), "unknown version 9": Version(9).String(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
