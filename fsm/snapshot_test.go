package fsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"quorate/fsm/command"
)

var update = flag.Bool("update", false, "write the golden files anew")

// everything is a rig whose state has something of every kind.
func everything(t tester) *rig {
	r := up(t, nodeB, nodeC)
	r.do(nodeB, &command.Routes{Add: []string{"live/#", "x"}})
	sub1 := r.connect(nodeA, "sub1", will("will/1", "w", 30), window(2))
	r.one(sub(sub1, 3, command.Subscription{Filter: "q/+", QoS: 2, RetainAsPublished: true}))
	r.subscribe(sub1, "z:0", "$share/g/q/#:2")
	sub2 := r.connect(nodeB, "sub2", expiry(500), will("will/2", "w", 40))
	r.subscribe(sub2, "q/#:1", "$share/g/q/#:1")
	for i := range 5 {
		m := msg("q/"+itoa(i%2), 2, "payload "+itoa(i))
		m.HasExpiry, m.ExpirySeconds, m.Forwarded = i%2 == 0, uint32(10*i), []byte{1, 1}
		r.one(&command.Publish{Ref: sub1, PacketID: uint16(i + 1), Message: m})
	}
	seqs := r.seqs(sub1)
	r.one(&command.SendMark{Ref: sub1, Seqs: seqs[:3]})
	r.one(&command.Progress{Items: []command.ProgressItem{{Ref: sub1, Received: seqs[:1], Done: seqs[4:5]}}})
	r.one(&command.Unsubscribe{Ref: sub1, Filters: []string{"q/+"}})
	m := msg("r/1", 1, "retained")
	m.Retain, m.HasExpiry, m.ExpirySeconds = true, true, 1000
	r.one(&command.Publish{Message: m})
	r.retain("r/2", 0, "retained too")
	r.subscribe(sub2, "r/#:1")
	r.one(&command.Publish{DelaySeconds: 20, Message: msg("q/1", 1, "delayed")})
	r.connect(nodeB, "sub3", transient, will("will/3", "w", 0))
	r.connect(nodeC, "sub4")
	r.do(nodeB, &command.Disconnect{Ref: sub2, SendWill: true, Sent: seqs[0]})
	r.stamp += 5000
	r.do(nodeA, &command.NodeDown{ID: nodeC, Incarnation: 1})
	return r
}

func TestARestoreBringsEverythingBack(t *testing.T) {
	r := everything(t)
	want := dump(r.m.st, true)
	b := r.snapshot()
	other := newRig(t)
	other.m.SetObserver(other)
	waited := false
	other.m.WaitApplied(r.index, func() { waited = true })
	if err := other.m.Restore(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if got := dump(other.m.st, true); got != want {
		t.Fatalf("restored state differs:\n%s", difference(got, want))
	}
	if other.m.Applied() != r.index || !waited || other.bodies.resets != 1 {
		t.Fatalf("applied %d, waited %t, %d resets", other.m.Applied(), waited, other.bodies.resets)
	}
	equal(t, "calls", other.calls, []string{"restored"})
	if again := other.snapshot(); !bytes.Equal(again, b) {
		t.Fatal("the snapshot of the restored machine has other bytes")
	}
	// Both go the same way from here.
	other.index, other.stamp, other.inc, other.number = r.index, r.stamp, r.inc, r.number
	numberA := r.number[nodeA]
	r.tick(1000)
	r.number[nodeA] = numberA
	other.stamp -= 0
	other.tick(1000)
	if got, want := dump(other.m.st, true), dump(r.m.st, true); got != want {
		t.Fatalf("they part:\n%s", difference(got, want))
	}
}

func TestARestoreReplacesWhatWasThere(t *testing.T) {
	r := everything(t)
	b := r.snapshot()
	other := everything(t)
	other.retain("more", 1, "x")
	if err := other.m.Restore(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if got, want := dump(other.m.st, true), dump(r.m.st, true); got != want {
		t.Fatalf("restored state differs:\n%s", difference(got, want))
	}
	if other.bodies.len() != r.bodies.len() || other.bodies.resets != 0 {
		t.Fatalf("%d bodies, want %d; %d resets", other.bodies.len(), r.bodies.len(), other.bodies.resets)
	}
}

func TestATruncatedOrChangedSnapshotIsRefusedAndReplacesNothing(t *testing.T) {
	b := everything(t).snapshot()
	r := everything(t)
	r.retain("mine", 1, "x")
	want, bodies := dump(r.m.st, true), r.bodies.len()
	f := func(what string, i int, b []byte) {
		t.Helper()
		if err := r.m.Restore(bytes.NewReader(b)); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("%s at %d: %v", what, i, err)
		}
		if r.bodies.len() != bodies {
			t.Fatalf("%s at %d: %d bodies, want %d", what, i, r.bodies.len(), bodies)
		}
	}
	for i := range b {
		f("cut", i, b[:i])
		for _, bit := range []byte{1, 0x80} {
			changed := bytes.Clone(b)
			changed[i] ^= bit
			f("changed", i, changed)
		}
	}
	f("longer", len(b), append(bytes.Clone(b), 0))
	f("twice", len(b), append(bytes.Clone(b), b...))
	if got := dump(r.m.st, true); got != want {
		t.Fatal("a refused snapshot changed the state")
	}
}

// reseal gives a snapshot the checksum of its changed bytes.
func reseal(b []byte) []byte {
	if len(b) < 4 {
		return b
	}
	b = bytes.Clone(b)
	binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli))
	return b
}

func TestASnapshotOfABrokenMachineIsRefused(t *testing.T) {
	// Every byte changed in turn, with a checksum that fits: whatever it makes of the snapshot, a machine that takes it
	// has a state that follows from its objects.
	b := everything(t).snapshot()
	taken := 0
	for i := len(snapshotMagic); i < len(b)-4; i++ {
		changed := bytes.Clone(b)
		changed[i] ^= 1
		m := New(nodeA, newMemory(), nil)
		if m.Restore(bytes.NewReader(reseal(changed))) == nil {
			taken++
			snapshotOf(t, m)
		}
	}
	if taken == 0 || taken > len(b) {
		t.Fatalf("%d of %d taken", taken, len(b))
	}
}

func TestOnlyOneSnapshotIsWrittenAtATime(t *testing.T) {
	r := everything(t)
	r.unchecked = true
	s, err := r.m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.m.Snapshot(); !errors.Is(err, ErrSnapshotBusy) {
		t.Fatalf("%v", err)
	}
	r.tick(100)
	s.Release()
	s.Release()
	if _, err := s.WriteTo(new(bytes.Buffer)); err == nil {
		t.Fatal("a released snapshot was written")
	}
	if r.bodies.pins != 0 {
		t.Fatalf("%d pins", r.bodies.pins)
	}
	r.check()
}

// failing fails after some bytes.
type failing struct{ left int }

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func TestAFailedWriteEndsTheSnapshotAndNothingElse(t *testing.T) {
	r := everything(t)
	s, err := r.m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.WriteTo(&failing{left: 10}); err == nil {
		t.Fatal("no error")
	}
	s.Release()
	r.check()
}

func TestASnapshotIsWrittenWhileEntriesAreApplied(t *testing.T) {
	// With -race this covers the locks too.
	r := up(t)
	r.unchecked = true
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "t/#:1")
	for i := range 5000 {
		r.publish("t/"+itoa(i%50), 1, itoa(i))
	}
	want := dump(r.m.st, true)
	s, err := r.m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var b bytes.Buffer
	wg.Go(func() {
		s.records = 1
		if _, err := s.WriteTo(&b); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		var route Route
		for range 200 {
			r.m.Route("t/1", &route)
			r.m.Pull(ref, 0, 10, nil)
			r.m.Stats()
		}
	})
	for i := range 2000 {
		r.publish("t/"+itoa(i%50), 1, itoa(i))
		if i%100 == 0 {
			r.finish(ref)
		}
	}
	wg.Wait()
	s.Release()
	other := New(nodeA, newMemory(), nil)
	if err := other.Restore(&b); err != nil {
		t.Fatal(err)
	}
	if got := dump(other.st, true); got != want {
		t.Fatal("the snapshot is of another state")
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: the bytes have changed: that is a new version of the format", name)
	}
}

func TestTheSnapshotFormatOfVersion1HasNotChanged(t *testing.T) {
	r := everything(t)
	golden(t, "snapshot-v1.bin", r.snapshot())
	old, err := os.ReadFile(filepath.Join("testdata", "snapshot-v1.bin"))
	if err != nil {
		t.Fatal(err)
	}
	m := New(nodeA, newMemory(), nil)
	if err := m.Restore(bytes.NewReader(old)); err != nil {
		t.Fatal(err)
	}
	golden(t, "snapshot-v1.txt", []byte(dump(m.st, true)))
}

func TestBodiesMoveWithoutAnybodyNoticing(t *testing.T) {
	r := everything(t)
	_, digest := r.m.Digest()
	want := r.snapshot()
	next, moved := r.m.MoveBodies(0, 1<<20, func(BodyRef) bool { return true })
	if next != 0 || moved != r.bodies.len() {
		t.Fatalf("next %d, %d of %d moved", next, moved, r.bodies.len())
	}
	if _, d := r.m.Digest(); d != digest || !bytes.Equal(r.snapshot(), want) {
		t.Fatal("the state changed")
	}
	s, err := r.m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	if _, moved := r.m.MoveBodies(0, 1<<20, func(BodyRef) bool { return true }); moved != 0 {
		t.Fatal("moved under a snapshot")
	}
}

func TestAMovedBodyIsFoundByAReaderThatKnewItsOldPlace(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.subscribe(ref, "a:1")
	r.publish("a", 1, "x")
	p := r.m.st.placeOf(0)
	r.m.MoveBodies(0, 1<<20, func(BodyRef) bool { return true })
	if r.m.st.slab.at(0).body == p.body {
		t.Fatal("not moved")
	}
	if b, ok := r.m.readBody(p); !ok || !bytes.HasSuffix(b, []byte("x")) {
		t.Fatalf("%q %t", b, ok)
	}
	r.finish(ref)
	if _, ok := r.m.readBody(p); ok {
		t.Fatal("read a message that is gone")
	}
}

func FuzzRestore(f *testing.F) {
	b := everything(f).snapshot()
	f.Add(b)
	f.Add(up(f).snapshot())
	f.Add(b[:len(b)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, reseal(b)} {
			bodies := newMemory()
			m := New(nodeA, bodies, nil)
			if err := m.Restore(bytes.NewReader(b)); err != nil {
				if bodies.len() != 0 {
					t.Fatalf("%d bodies of a refused snapshot", bodies.len())
				}
				continue
			}
			snapshotOf(t, m)
		}
	})
}

func FuzzApply(f *testing.F) {
	r := up(f)
	entry := func(cmds ...command.Command) []byte {
		return command.AppendBatch(command.AppendEntryHeader(nil, 2000), r.batch(nodeA, cmds...))
	}
	f.Add(entry(&command.Publish{Message: msg("t", 1, "x")}))
	f.Add(entry(&command.Connect{ClientID: "c", ExpirySeconds: 5}, &command.Tick{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := everything(t)
		r.unchecked = true
		if r.m.Apply(r.index+1, b) == nil {
			r.check()
		}
	})
}
