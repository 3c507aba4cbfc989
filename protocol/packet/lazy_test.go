package packet

import (
	"io"
	"testing"
)

// lazySource gives its chunks one at a time. Before each it finds nothing once, as a socket that has been drained.
type lazySource struct {
	t      *testing.T
	chunks [][]byte
	waited bool
	lazy   int // reads through ReadLazily
}

func (s *lazySource) Read(p []byte) (int, error) {
	if len(s.chunks) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.chunks[0])
	if s.chunks[0] = s.chunks[0][n:]; len(s.chunks[0]) == 0 {
		s.chunks, s.waited = s.chunks[1:], false
	}
	return n, nil
}

func (s *lazySource) ReadLazily(r *Reader) (int, error) {
	s.lazy++
	if r.buf != nil && r.bulk != nil || r.loan != nil {
		s.t.Error("a Reader with nothing to decode still has a loan")
	}
	if !s.waited {
		s.waited = true
		_ = r.Borrow()
		r.Return()
	}
	if r.buf != nil || r.bulk != nil || r.loan != nil {
		s.t.Error("a Reader that waits has memory on loan")
	}
	return s.Read(r.Borrow())
}

// A Reader on a lazy source decodes the same packets, however they are cut, and waits between packets without a buffer.
func TestReaderOnALazySourceWaitsWithoutABuffer(t *testing.T) {
	var stream []byte
	connect := &Connect{Version: V5, ClientID: "c"}
	stream = connect.Append(stream, V5)
	const messages = 300
	for i := range messages {
		p := &Publish{Topic: "a/b", QoS: 1, PacketID: uint16(i + 1), Payload: make([]byte, i*i%5000)}
		stream = p.Append(stream, V5)
	}
	for _, cut := range []int{1, 2, 7, 500, bulkBytes - 1, bulkBytes, bulkBytes + 1, len(stream)} {
		s := &lazySource{t: t}
		for rest := stream; len(rest) > 0; {
			n := min(cut, len(rest))
			s.chunks = append(s.chunks, rest[:n])
			rest = rest[n:]
		}
		r := NewReaderOptions(s, FromClient, DefaultOptions())
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		for i := range messages {
			p, err := r.Next()
			if err != nil {
				t.Fatalf("cut %d, message %d: %v", cut, i, err)
			}
			m := p.(*Publish)
			if m.PacketID != uint16(i+1) || len(m.Payload) != i*i%5000 || m.Topic != "a/b" {
				t.Fatalf("cut %d, message %d: got %d with %d bytes", cut, i, m.PacketID, len(m.Payload))
			}
		}
		if _, err := r.Next(); err != io.EOF {
			t.Fatalf("cut %d: end is %v", cut, err)
		}
		if s.lazy == 0 {
			t.Fatalf("cut %d: the source was never read lazily", cut)
		}
	}
}
