package packet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// bin turns hex with spaces and 'quoted text' into bytes.
func bin(t testing.TB, s string) []byte {
	t.Helper()
	var out []byte
	for i, part := range strings.Split(s, "'") {
		if i%2 == 1 {
			out = append(out, part...)
			continue
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(part), ""))
		if err != nil {
			t.Fatalf("bad hex %q: %v", part, err)
		}
		out = append(out, b...)
	}
	return out
}

// framed puts the fixed header before body.
func framed(first byte, body []byte) []byte {
	out, mark := openLength([]byte{first})
	return closeLength(append(out, body...), mark)
}

// readerFor returns a Reader over b; v is 0 where a CONNECT is to come.
func readerFor(b []byte, v Version, side Side) *Reader {
	r := NewReader(bytes.NewReader(b), 1<<20, side)
	if v != 0 {
		r.SetVersion(v)
	}
	return r
}

// decodeOne decodes b, which is exactly one packet.
func decodeOne(b []byte, v Version, side Side) (Packet, error) {
	r := readerFor(b, v, side)
	p, err := r.Next()
	if err != nil {
		return nil, err
	}
	if r.Buffered() != 0 {
		return nil, errors.New("bytes behind the packet")
	}
	return p, nil
}

// same compares packets; an empty slice is a nil one.
func same(t testing.TB, got, want Packet) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("packet differs (-want +got):\n%s", d)
	}
}

// wantReason checks that err is an *Error with that code.
func wantReason(t testing.TB, err error, want ReasonCode) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T), want an *Error with %s", err, err, want)
	}
	if e.Reason != want {
		t.Errorf("reason 0x%02X, want 0x%02X (%v)", byte(e.Reason), byte(want), e)
	}
	if len(e.Text) < 10 {
		t.Errorf("text %q does not say what was wrong", e.Text)
	}
}

// trickle is a reader that gives n bytes at a time.
type trickle struct {
	b []byte
	n int
}

func (r *trickle) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.n)], r.b)
	r.b = r.b[n:]
	return n, nil
}
