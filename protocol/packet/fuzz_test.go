package packet

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// roundTrip decodes a packet of any bytes. What is accepted is encoded, decoded
// and encoded again: packets and bytes have to be the same.
func roundTrip(t *testing.T, first byte, body []byte, v Version, side Side) {
	t.Helper()
	p, err := decodeOne(framed(first, body), v, side)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) || !e.Reason.Failed() {
			t.Fatalf("error %v (%T)", err, err)
		}
		return
	}
	if c, ok := p.(*Connect); ok {
		v = c.Version
	}
	if s, ok := p.(*Suback); ok && v == V31 && slices.ContainsFunc(s.ReasonCodes, ReasonCode.Failed) {
		return // read for the sake of other brokers; never written, as 3.1 has no such code
	}
	encoded := p.Append(nil, v)
	if m, ok := p.(*Publish); ok && m.Size(v) != len(encoded) {
		t.Fatalf("size %d, encoded %d bytes", m.Size(v), len(encoded))
	}
	again := v
	if p.Type() == TypeConnect {
		again = 0
	}
	q, err := decodeOne(bytes.Clone(encoded), again, side)
	if err != nil {
		t.Fatalf("%+v is encoded as %x and then refused: %v", p, encoded, err)
	}
	same(t, q, p)
	if b := q.Append(nil, v); !bytes.Equal(b, encoded) {
		t.Fatalf("encoded %x, then %x", encoded, b)
	}
}

// fuzzTypes fuzzes the decoders of the given types, in every version and from both
// sides, with the vectors as seeds.
func fuzzTypes(f *testing.F, types ...Type) {
	for _, c := range vectors() {
		raw := bin(f, c.bytes)
		for i, t := range types {
			if Type(raw[0]>>4) == t {
				f.Add(byte(i)<<4|raw[0]&0x0F, raw[2:], byte(c.v), c.side == FromServer)
			}
		}
	}
	f.Fuzz(func(t *testing.T, first byte, body []byte, version byte, fromServer bool) {
		kind := types[int(first>>4)%len(types)]
		side, v := FromClient, Version(version%3)+V31
		if fromServer {
			side = FromServer
		}
		if kind == TypeConnect {
			side, v = FromClient, 0
		}
		roundTrip(t, byte(kind)<<4|first&0x0F, body, v, side)
	})
}

func FuzzConnect(f *testing.F)    { fuzzTypes(f, TypeConnect) }
func FuzzConnack(f *testing.F)    { fuzzTypes(f, TypeConnack) }
func FuzzPublish(f *testing.F)    { fuzzTypes(f, TypePublish) }
func FuzzAcks(f *testing.F)       { fuzzTypes(f, TypePuback, TypePubrec, TypePubrel, TypePubcomp) }
func FuzzSubscribe(f *testing.F)  { fuzzTypes(f, TypeSubscribe, TypeUnsubscribe) }
func FuzzSuback(f *testing.F)     { fuzzTypes(f, TypeSuback, TypeUnsuback) }
func FuzzDisconnect(f *testing.F) { fuzzTypes(f, TypeDisconnect, TypeAuth, TypePingreq, TypePingresp) }

// FuzzStream reads any bytes as a connection, in two ways of splitting: both have
// to see the same packets and the same end.
func FuzzStream(f *testing.F) {
	for _, v := range []Version{V31, V311, V5} {
		stream, _ := conversation(f, v)
		for i := 0; i < 600; i += 60 {
			f.Add(append(stream[:15:15], stream[15+i:75+i]...), byte(3))
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, split byte) {
		whole := NewReader(bytes.NewReader(stream), 1<<16, FromClient)
		parts := NewReader(&trickle{stream, int(split) + 1}, 1<<16, FromClient)
		for {
			p, err1 := whole.Next()
			q, err2 := parts.Next()
			if (err1 == nil) != (err2 == nil) {
				t.Fatalf("whole: %v, in parts: %v", err1, err2)
			}
			if err1 != nil {
				if err1 == io.EOF != (err2 == io.EOF) {
					t.Fatalf("whole: %v, in parts: %v", err1, err2)
				}
				return
			}
			v := whole.Version()
			if p.Type() != q.Type() || !bytes.Equal(p.Append(nil, v), q.Append(nil, v)) {
				t.Fatalf("whole: %+v, in parts: %+v", p, q)
			}
		}
	})
}

func FuzzForwarded(f *testing.F) {
	f.Add([]byte("\x01\x00\x03\x00\x01c\x08\x00\x01r\x09\x00\x00\x26\x00\x01k\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseForwarded(b)
		if err != nil {
			return
		}
		q, err := ParseForwarded(AppendForwarded(nil, &p))
		if err != nil || len(q.UserProperties) != len(p.UserProperties) || q.ContentType != p.ContentType {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
	})
}

func text() *rapid.Generator[string] {
	return rapid.StringOf(rapid.SampledFrom([]rune("ab/ é\u4E2D🎈")))
}

func users() *rapid.Generator[[]UserProperty] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) UserProperty {
		return UserProperty{text().Draw(t, "name"), text().Draw(t, "value")}
	}), 0, 5)
}

func forwarded(t *rapid.T) []byte {
	return AppendForwarded(nil, &Forwarded{PayloadIsUTF8: rapid.Bool().Draw(t, "utf8"), ContentType: text().Draw(t, "type"),
		CorrelationData: rapid.SliceOf(rapid.Byte()).Draw(t, "correlation"), UserProperties: users().Draw(t, "users")})
}

// TestEveryPublishAndConnectSurvivesTheWire draws packets, where the fuzz targets
// draw bytes.
func TestEveryPublishAndConnectSurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &Publish{QoS: rapid.ByteRange(0, 2).Draw(t, "qos"), Retain: rapid.Bool().Draw(t, "retain"),
			Topic: "t" + text().Draw(t, "topic"), Payload: rapid.SliceOf(rapid.Byte()).Draw(t, "payload")}
		v := rapid.SampledFrom([]Version{V31, V311, V5}).Draw(t, "version")
		if p.QoS > 0 {
			p.PacketID = rapid.Uint16Range(1, 65535).Draw(t, "id")
			p.Dup = rapid.Bool().Draw(t, "dup")
		}
		if v == V5 {
			p.Forwarded = forwarded(t)
			p.HasExpiry = rapid.Bool().Draw(t, "expires")
			p.TopicAlias = rapid.Uint16().Draw(t, "alias")
			p.SubscriptionIDs = rapid.SliceOf(rapid.Uint32Range(1, 268435455)).Draw(t, "ids")
		}
		check(t, p, v, v, FromServer)

		c := &Connect{Version: v, CleanStart: true, KeepAlive: rapid.Uint16().Draw(t, "keep alive"), ClientID: "c"}
		c.HasUsername = rapid.Bool().Draw(t, "has user")
		if c.HasUsername {
			c.Username = text().Draw(t, "user")
			c.HasPassword = rapid.Bool().Draw(t, "has password")
		}
		if rapid.Bool().Draw(t, "has will") {
			c.Will = &Will{Topic: "w", QoS: p.QoS, Retain: p.Retain, Payload: p.Payload, Forwarded: p.Forwarded, HasExpiry: p.HasExpiry}
		}
		if v == V5 {
			c.Properties.UserProperties = users().Draw(t, "connect users")
			c.Properties.ReceiveMaximum = rapid.Uint16().Draw(t, "receive maximum")
		}
		check(t, c, v, 0, FromClient)
	})
}

func check(t *rapid.T, p Packet, v, readAs Version, side Side) {
	b := p.Append(nil, v)
	got, err := decodeOne(bytes.Clone(b), readAs, side)
	if err != nil {
		t.Fatalf("%+v: %v", p, err)
	}
	if again := got.Append(nil, v); !bytes.Equal(again, b) {
		t.Fatalf("%x became %x", b, again)
	}
}
