package mesh

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestAFrameSurvivesAnyCutOfTheStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type frame struct {
			Kind, Group byte
			Payload     string
		}
		var want, got []frame
		var stream []byte
		for range rapid.IntRange(0, 8).Draw(t, "frames") {
			f := frame{rapid.Byte().Draw(t, "kind"), rapid.Byte().Draw(t, "group"), strings.Repeat("x", rapid.IntRange(0, 200_000).Draw(t, "size"))}
			want = append(want, f)
			stream = appendFrame(stream, f.Kind, f.Group, []byte(f.Payload))
		}
		var r io.Reader = bytes.NewReader(stream)
		if rapid.Bool().Draw(t, "halves") {
			r = iotest.HalfReader(r)
		}
		frames := newFrameReader(r)
		for {
			kind, group, payload, err := frames.next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, frame{kind, group, string(payload)})
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestATornFrameIsNoCleanEnd(t *testing.T) {
	stream := appendFrame(nil, 1, 0, []byte("hello"))
	for n := 1; n < len(stream); n++ {
		if _, _, _, err := newFrameReader(bytes.NewReader(stream[:n])).next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

// The bytes of version 1 must never change.
func TestHelloAndAnswerHaveTheirGoldenBytes(t *testing.T) {
	h := Hello{ClusterID: "cl", ServerID: "from", Wanted: "to", Name: "n1", Addr: "a:1", Incarnation: 0x0102, DurableIndex: 0x0304}
	const golden = "\x01\x00\x22\x02cl\x04from\x02to\x02n1\x03a:1\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x00\x00\x03\x04"
	if got := appendHello(nil, h); string(got) != golden {
		t.Fatalf("hello %q", got)
	}
	if got := appendAnswer(nil, answer{RefusedCluster, h, "no"}); string(got) != "\x02"+golden+"\x00\x02no" {
		t.Fatalf("answer %q", got)
	}
	later := "\x02\x00\x25" + golden[3:] + "new"
	got, err := readHello(strings.NewReader(later))
	if err != nil || got != h {
		t.Fatalf("a later version: %+v, %v", got, err)
	}
}

func FuzzHello(f *testing.F) {
	f.Add(appendHello(nil, Hello{ClusterID: "c", ServerID: "a", Wanted: "b", Name: "n", Addr: "x:1", Incarnation: 1, DurableIndex: 2}))
	f.Add([]byte("\x01\x00\x05aaaaa"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHello(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := readHello(bytes.NewReader(appendHello(nil, h)))
		if err != nil || again != h {
			t.Fatalf("%+v became %+v, %v", h, again, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(appendAnswer(nil, answer{RefusedServer, Hello{ServerID: "a"}, "no"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := readAnswer(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := readAnswer(bytes.NewReader(appendAnswer(nil, a)))
		if err != nil || again != a {
			t.Fatalf("%+v became %+v, %v", a, again, err)
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, 1, 0, []byte("x")), 2, 0, nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		frames := newFrameReader(bytes.NewReader(b))
		var again []byte
		for {
			kind, group, payload, err := frames.next()
			if err != nil {
				break
			}
			again = appendFrame(again, kind, group, payload)
		}
		if !bytes.HasPrefix(b, again) {
			t.Fatal("frames are not what was read")
		}
		if len(frames.buf) > max(readBufferBytes, 2*len(b)) {
			t.Fatalf("reserved %d bytes for %d", len(frames.buf), len(b))
		}
	})
}
