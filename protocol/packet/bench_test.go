package packet

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

// again gives the same stream for ever, in large reads.
type again struct {
	b  []byte
	at int
}

func (r *again) Read(p []byte) (int, error) {
	n := copy(p, r.b[r.at:])
	r.at = (r.at + n) % len(r.b)
	return n, nil
}

var benchPublish = &Publish{Topic: "plant/7/line/12/temp", QoS: 1, PacketID: 7, Payload: []byte("21.5 degrees, and a bit more")}

func BenchmarkReader(b *testing.B) {
	properties := *benchPublish
	properties.HasExpiry = true
	properties.Forwarded = AppendForwarded(nil, &Forwarded{PayloadIsUTF8: true, ContentType: "text/plain", UserProperties: user("unit", "C")})
	other := *benchPublish
	other.Topic = "plant/8/line/12/temp"
	for name, c := range map[string]struct {
		v       Version
		packets []Packet
	}{
		"publish3.1.1":            {V311, []Packet{benchPublish}},
		"publish5":                {V5, []Packet{benchPublish}},
		"publish5properties":      {V5, []Packet{&properties}},
		"publish5changingTopics":  {V5, []Packet{benchPublish, &other}},
		"puback5":                 {V5, []Packet{&Puback{PacketID: 7}}},
		"publish5payload64KiB":    {V5, []Packet{&Publish{Topic: "t", Payload: make([]byte, 64<<10)}}},
		"pubackWithReasonString5": {V5, []Packet{&Puback{PacketID: 7, ReasonCode: NotAuthorized, Properties: Properties{ReasonString: "no"}}}},
	} {
		b.Run(name, func(b *testing.B) {
			var stream []byte
			for _, p := range c.packets {
				stream = p.Append(stream, c.v)
			}
			size := len(stream) / len(c.packets)
			r := NewReader(&again{b: bytes.Repeat(stream, 1000)}, 1<<20, FromClient)
			r.SetVersion(c.v)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := r.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReaderBurst reads bursts of 4 KiB and falls idle after each, so that the
// bulk buffer is borrowed and given back every time.
func BenchmarkReaderBurst(b *testing.B) {
	stream := bytes.Repeat(benchPublish.Append(nil, V5), 4096/benchPublish.Size(V5))
	at := 0
	r := NewReader(readFunc(func(p []byte) (int, error) {
		if at == len(stream) {
			at = 0
		}
		n := copy(p, stream[at:])
		at += n
		return n, nil
	}), 1<<20, FromClient)
	r.SetVersion(V5)
	b.ReportAllocs()
	b.SetBytes(int64(benchPublish.Size(V5)))
	for b.Loop() {
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, p := range []Packet{benchPublish, &Puback{PacketID: 7}, &Suback{PacketID: 1, ReasonCodes: []ReasonCode{1}},
		&Connack{Properties: Properties{ReceiveMaximum: 10, MaximumPacketSize: 1 << 20}}} {
		for _, v := range []Version{V311, V5} {
			b.Run(fmt.Sprint(p.Type(), v), func(b *testing.B) {
				buf := make([]byte, 0, 4096)
				b.ReportAllocs()
				for b.Loop() {
					buf = p.Append(buf[:0], v)
				}
			})
		}
	}
}

// BenchmarkFanOut copies one encoded PUBLISH for each subscriber and patches it.
func BenchmarkFanOut(b *testing.B) {
	encoded, at := AppendPublish(nil, benchPublish, V5)
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = append(buf[:0], encoded...)
		SetPacketID(buf, at, 9)
	}
}

func BenchmarkConnect(b *testing.B) {
	c := &Connect{ClientID: "device-0012345", KeepAlive: 60, HasUsername: true, Username: "u", HasPassword: true, Password: []byte("p")}
	stream := c.Append(nil, V5)
	src := bytes.NewReader(stream)
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(stream)
		if _, err := NewReader(src, 1<<20, FromClient).Next(); err != nil && err != io.EOF {
			b.Fatal(err)
		}
	}
}
