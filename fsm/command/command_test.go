package command

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"quorate/fsm/internal/codec"
)

var update = flag.Bool("update", false, "write the golden files anew")

var ref = Ref{Slot: 300, Epoch: 70_000}

// samples has every kind of command, with little and with much in it.
func samples() []Command {
	m := Message{Topic: "a/b", QoS: 2, Retain: true, HasExpiry: true, ExpirySeconds: 3600, Forwarded: []byte{1, 1}, Payload: []byte("21.5")}
	limits := DefaultLimits()
	limits.ReassignOnDisconnect = true
	return []Command{
		&NodeUp{ID: "00000000000000aa", Name: "n1", ClientAddr: "127.0.0.1:1883", Format: 1},
		&NodeUp{},
		&NodeDown{ID: "00000000000000aa", Incarnation: 7},
		&Configure{Limits: limits},
		&Configure{},
		&Connect{ClientID: "c", Identity: "u", Version: 5, CleanStart: true, ExpirySeconds: ExpiryNever, ReceiveMaximum: 65535, Will: &Will{Message: m, DelaySeconds: 30}, Before: 1 << 33},
		&Connect{ClientID: "c", Version: 4},
		&Disconnect{Ref: ref, SendWill: true, HasExpiry: true, ExpirySeconds: 60, Sent: 1 << 40},
		&Disconnect{Ref: ref},
		&Disconnect{Ref: ref, Abandoned: true},
		&Publish{Ref: ref, PacketID: 65535, DelaySeconds: 5, Local: true, Message: m},
		&Publish{Message: Message{Topic: "t"}},
		&Release{Ref: ref, PacketID: 9},
		&Subscribe{Ref: ref, ID: 268435455, Subscriptions: []Subscription{
			{Filter: "a/+", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}, {Filter: "$share/g/#", QoS: 1},
		}, Routes: []string{"a/+"}},
		&Subscribe{Ref: ref},
		&Unsubscribe{Ref: ref, Filters: []string{"a/+", "b"}, Routes: []string{"b"}},
		&Unsubscribe{},
		&Routes{Add: []string{"a", "b"}, Remove: []string{"c"}},
		&Routes{},
		&Progress{Items: []ProgressItem{{Ref: ref, Cursor: 1000, Done: []uint64{1002, 1005}, Received: []uint64{900}}, {Ref: Ref{Epoch: 1}}}},
		&Progress{},
		&SendMark{Ref: ref, Seqs: []uint64{5, 1 << 50}},
		&SendMark{},
		&Tick{},
		&Kick{ClientID: "c", EndSession: true, Reason: 0x98},
		&Kick{},
	}
}

func name(c Command) string { return strings.TrimPrefix(fmt.Sprintf("%T", c), "*command.") }

func TestTheEncodingOfEveryCommandHasNotChanged(t *testing.T) {
	var got strings.Builder
	for _, c := range samples() {
		fmt.Fprintf(&got, "%s %s\n", name(c), hex.EncodeToString(c.Append(nil)))
	}
	path := filepath.Join("testdata", "commands-v1.txt")
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Fatalf("a changed layout needs a new kind:\n%s", diff)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(want)), "\n") {
		what, digits, _ := strings.Cut(line, " ")
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		c, n, err := Decode(b)
		if err != nil || n != len(b) || name(c) != what {
			t.Fatalf("%s: %T, %d of %d bytes, %v", what, c, n, len(b), err)
		}
	}
}

func TestEveryCommandIsDecodedToWhatItWas(t *testing.T) {
	seen := map[Kind]bool{}
	for _, c := range samples() {
		b := append([]byte("before"), 0xFF)
		b = c.Append(b)[7:]
		got, n, err := Decode(append(b, 1, 2, 3))
		if err != nil || n != len(b) {
			t.Fatalf("%s: %d of %d bytes, %v", name(c), n, len(b), err)
		}
		if diff := cmp.Diff(c, got, cmpopts.IgnoreUnexported(Message{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s:\n%s", name(c), diff)
		}
		if got.Kind() != c.Kind() || Kind(b[0]) != c.Kind() {
			t.Fatalf("%s: kind %d", name(c), got.Kind())
		}
		seen[c.Kind()] = true
	}
	for k := range Kind(255) {
		if (newCommand(k) != nil) != seen[k] {
			t.Fatalf("kind %d has no sample", k)
		}
	}
}

func TestATornCommandIsAnError(t *testing.T) {
	for _, c := range samples() {
		b := c.Append(nil)
		for i := range b {
			if _, _, err := Decode(b[:i]); !errors.Is(err, codec.ErrShort) {
				t.Fatalf("%s cut at %d of %d: %v", name(c), i, len(b), err)
			}
		}
	}
}

func TestAnUnknownKindIsAnError(t *testing.T) {
	for _, k := range []byte{0, 15, 255} {
		if _, _, err := Decode([]byte{k, 0, 0}); !errors.Is(err, ErrUnknownKind) {
			t.Fatalf("kind %d: %v", k, err)
		}
	}
}

func TestValuesOutsideTheirRangesAreErrors(t *testing.T) {
	f := func(what string, b ...byte) {
		t.Helper()
		if _, _, err := Decode(b); !errors.Is(err, codec.ErrValue) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	f("an unknown flag", byte(KindDisconnect), 8, 0, 0, 0, 0)
	f("a slot of 33 bits", byte(KindDisconnect), 0, 0x80, 0x80, 0x80, 0x80, 0x10, 0, 0, 0)
	f("a varint that is not the shortest", byte(KindDisconnect), 0, 0x80, 0x00, 0, 0, 0)
	f("QoS 3", byte(KindPublish), 0, 0, 0, 3, 3, 1, 't', 0)
	f("a packet identifier of 0", byte(KindPublish), 2, 0, 0, 0, 0, 3, 1, 't', 0)
	f("subscription QoS 3", byte(KindSubscribe), 0, 0, 0, 1, 3, 1, 'a', 0)
	f("retain handling 3", byte(KindSubscribe), 0, 0, 0, 1, 0x30, 1, 'a', 0)
}

func TestAListReservesNoMoreThanItsBytes(t *testing.T) {
	b := []byte{byte(KindSendMark), 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := Decode(b)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, codec.ErrShort) {
		t.Fatalf("%v", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Fatalf("%d bytes for a list of %d that is not there", n, uint32(1<<32-1))
	}
}

func TestABodyComesApartAsItWasPutTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Message{
			Topic:     rapid.StringN(0, 200, 70_000).Draw(t, "topic"),
			Forwarded: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "forwarded"),
			Payload:   rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload"),
		}
		topic, forwarded, payload, err := ParseBody(m.Body())
		if err != nil || topic != m.Topic || !bytes.Equal(forwarded, m.Forwarded) || !bytes.Equal(payload, m.Payload) {
			t.Fatalf("%q %x %x %v", topic, forwarded, payload, err)
		}
		if len(m.Body()) != m.bodyBytes() {
			t.Fatalf("%d bytes, said %d", len(m.Body()), m.bodyBytes())
		}
	})
}

func TestADecodedMessageGivesItsBodyWithoutACopy(t *testing.T) {
	b := (&Publish{Message: Message{Topic: "t", Payload: []byte("x")}}).Append(nil)
	var p Publish
	if n, err := DecodePublish(b, &p); err != nil || n != len(b) {
		t.Fatalf("%d %v", n, err)
	}
	if body := p.Body(); &body[len(body)-1] != &b[len(b)-1] {
		t.Fatal("copied")
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = DecodePublish(b, &p) }); n > 1 {
		t.Fatalf("%v allocations, only the topic needs one", n)
	}
	if _, err := DecodePublish((&Tick{}).Append(nil), &p); err == nil {
		t.Fatal("decoded a tick")
	}
}

func TestAnEntryHoldsItsBatchesInOrder(t *testing.T) {
	b := AppendEntryHeader(nil, 1234567)
	batches := []Batch{
		{Node: "aa", Incarnation: 1, Number: 5, Count: 2, Commands: append((&Tick{}).Append(nil), (&Tick{}).Append(nil)...)},
		{Node: "bb", Incarnation: 9, Number: 1 << 33},
	}
	for i := range batches {
		b = AppendBatch(b, &batches[i])
	}
	if got := hex.EncodeToString(b); got != "010087ad4b0261610105020"+"20d0d0262620980808080200000" {
		t.Fatalf("the layout of an entry has changed: %s", got)
	}
	e, err := DecodeEntry(b)
	if err != nil || e.Stamp != 1234567 {
		t.Fatalf("%+v %v", e, err)
	}
	for i := range batches {
		got, ok, err := e.Next()
		if err != nil || !ok {
			t.Fatalf("batch %d: %t %v", i, ok, err)
		}
		if diff := cmp.Diff(batches[i], got); diff != "" {
			t.Fatal(diff)
		}
	}
	if _, ok, err := e.Next(); ok || err != nil {
		t.Fatalf("after the end: %t %v", ok, err)
	}
	one := AppendBatch(nil, &batches[0])
	got, n, err := DecodeBatch(append(one, 7))
	if err != nil || n != len(one) || got.Number != 5 {
		t.Fatalf("%+v %d %v", got, n, err)
	}
}

func TestABatchCannotHoldMoreCommandsThanBytes(t *testing.T) {
	b := AppendBatch(nil, &Batch{Node: "aa", Count: 2, Commands: []byte{13}})
	if _, _, err := DecodeBatch(b); !errors.Is(err, codec.ErrValue) {
		t.Fatalf("%v", err)
	}
}

// FuzzDecode: what is decoded has exactly the bytes it was decoded from.
func FuzzDecode(f *testing.F) {
	for _, c := range samples() {
		f.Add(c.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, n, err := Decode(b)
		if err != nil {
			return
		}
		if got := c.Append(nil); !bytes.Equal(got, b[:n]) {
			t.Fatalf("%s: %x was decoded and is encoded as %x", name(c), b[:n], got)
		}
	})
}

// FuzzDecodeEntry: an entry that is decoded has exactly the bytes it was decoded from.
func FuzzDecodeEntry(f *testing.F) {
	f.Add(AppendBatch(AppendEntryHeader(nil, 5), &Batch{Node: "aa", Incarnation: 1, Number: 1, Count: 1, Commands: []byte{13}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if err != nil {
			return
		}
		got := AppendEntryHeader(nil, e.Stamp)
		for {
			batch, ok, err := e.Next()
			if err != nil {
				return
			}
			if !ok {
				break
			}
			got = AppendBatch(got, &batch)
		}
		if !bytes.Equal(got, b) {
			t.Fatalf("%x was decoded and is encoded as %x", b, got)
		}
	})
}

func BenchmarkAppendPublish(b *testing.B) {
	p := &Publish{Ref: ref, Message: Message{Topic: "plant/7/temperature", QoS: 1, Payload: make([]byte, 256)}}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = p.Append(dst[:0])
	}
}

func BenchmarkDecodePublish(b *testing.B) {
	src := (&Publish{Ref: ref, Message: Message{Topic: "plant/7/temperature", QoS: 1, Payload: make([]byte, 256)}}).Append(nil)
	var p Publish
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodePublish(src, &p); err != nil {
			b.Fatal(err)
		}
	}
}
