package bodies

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"quorate/fsm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small makes segments of a few bodies, so that every border is crossed.
func small() Options {
	o := Default()
	o.SegmentBytes, o.ChunkBytes, o.UnwrittenBytesMax = 8192, 1024, 4096
	return o
}

func open(t testing.TB, opt Options) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustGet(t testing.TB, s fsm.Bodies, ref fsm.BodyRef, want []byte) {
	t.Helper()
	got, err := s.Get(ref, []byte("before"))
	if err != nil {
		t.Fatalf("get %#x: %v", uint64(ref), err)
	}
	if !bytes.Equal(got, append([]byte("before"), want...)) {
		t.Fatalf("get %#x: %d bytes, want %d", uint64(ref), len(got)-6, len(want))
	}
}

func body(i, n int) []byte {
	b := bytes.Repeat([]byte{byte(i)}, n)
	if n >= 8 {
		binary.LittleEndian.PutUint64(b, uint64(i))
	}
	return b
}

// flushed waits until the writer has nothing left.
func flushed(s *Store) {
	for {
		s.mu.RLock()
		idle := s.unwritten == 0 && len(s.queue) == 0 && len(s.doomed) == 0
		s.mu.RUnlock()
		if idle {
			return
		}
		s.signal()
	}
}

func segmentFiles(t *testing.T, s *Store) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.dir, filePrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestABodyIsReadBackFromMemoryAndFromDisk(t *testing.T) {
	s := open(t, small())
	var refs []fsm.BodyRef
	size := func(i int) int { return []int{0, 1, 7, 8, 9, 100, 1015, 1016, 1017, 5000, 8184, 8185, 20_000}[i%13] }
	for i := range 200 {
		refs = append(refs, s.Put(body(i, size(i)), i%3 == 0))
		mustGet(t, s, refs[i], body(i, size(i)))
	}
	flushed(s)
	for i, ref := range refs {
		mustGet(t, s, ref, body(i, size(i)))
	}
}

func TestOpenDeletesWhatAnEarlierProcessLeft(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, filePrefix+"000000000001"+fileSuffix)
	other := filepath.Join(dir, "notes.txt")
	for _, p := range []string{left, other} {
		if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(dir, small())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Fatalf("segment of an earlier process is still there: %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Fatalf("a file that is not ours is gone: %v", err)
	}
}

func TestASegmentIsRemovedWhenNothingLivesInIt(t *testing.T) {
	s := open(t, small())
	var refs []fsm.BodyRef
	for i := range 100 {
		refs = append(refs, s.Put(body(i, 500), false))
	}
	flushed(s)
	before := segmentFiles(t, s)
	for _, ref := range refs {
		s.Free(ref)
	}
	flushed(s)
	if after := segmentFiles(t, s); before < 5 || after > 1 {
		t.Fatalf("segment files: %d before, %d after freeing everything", before, after)
	}
	if _, err := s.Get(refs[0], nil); !errors.Is(err, fsm.ErrFreed) {
		t.Fatalf("get of a freed body: %v", err)
	}
	if st := s.Stats(); st.Bodies != 0 || st.LiveBytes != 0 {
		t.Fatalf("stats %+v", st)
	}
}

func TestRetainedBodiesDoNotKeepTheSegmentsOfOthers(t *testing.T) {
	s := open(t, small())
	var short, long []fsm.BodyRef
	for i := range 400 {
		if i%20 == 0 {
			long = append(long, s.Put(body(i, 300), true))
		} else {
			short = append(short, s.Put(body(i, 300), false))
		}
	}
	for _, ref := range short {
		s.Free(ref)
	}
	flushed(s)
	if n := s.Stats().Segments; n > 2 {
		t.Fatalf("%d segments hold %d retained bodies", n, len(long))
	}
	for i, ref := range long {
		mustGet(t, s, ref, body(20*i, 300))
	}
}

func TestAPinKeepsFreedAndResetBodiesReadable(t *testing.T) {
	for name, s := range map[string]fsm.Bodies{"store": open(t, small()), "memory": NewMemory()} {
		t.Run(name, func(t *testing.T) {
			var refs []fsm.BodyRef
			for i := range 60 {
				refs = append(refs, s.Put(body(i, 400), false))
			}
			first := s.Pin()
			for _, ref := range refs[:30] {
				s.Free(ref)
			}
			second := s.Pin()
			s.Reset()
			later := s.Put(body(7, 400), false)
			for i, ref := range refs {
				mustGet(t, s, ref, body(i, 400))
			}
			first()
			first()
			mustGet(t, s, refs[59], body(59, 400))
			second()
			for _, ref := range refs {
				if _, err := s.Get(ref, nil); !errors.Is(err, fsm.ErrFreed) {
					t.Fatalf("get after unpin: %v", err)
				}
			}
			mustGet(t, s, later, body(7, 400))
			s.Free(refs[0]) // a free that comes after a reset is harmless
		})
	}
}

func TestMovingTheLiveBodiesOfAVictimFreesItsSegment(t *testing.T) {
	s := open(t, small())
	refs := make(map[int]fsm.BodyRef)
	for i := range 100 {
		refs[i] = s.Put(body(i, 300), false)
	}
	for i := range 100 {
		if i%10 != 0 {
			s.Free(refs[i])
			delete(refs, i)
		}
	}
	moved := 0
	for victim, ok := s.Victim(); ok; victim, ok = s.Victim() {
		for i, ref := range refs {
			if victim(ref) {
				b, err := s.Get(ref, nil)
				if err != nil {
					t.Fatal(err)
				}
				refs[i] = s.Put(b, false)
				s.Free(ref)
				moved++
			}
		}
	}
	flushed(s)
	if n := s.Stats().Segments; n > 2 || moved == 0 {
		t.Fatalf("%d segments after moving %d bodies", n, moved)
	}
	for i, ref := range refs {
		mustGet(t, s, ref, body(i, 300))
	}
}

func TestADamagedBodyIsFatal(t *testing.T) {
	for _, where := range []string{"length", "checksum", "body", "cut"} {
		t.Run(where, func(t *testing.T) {
			var fatal error
			opt := small()
			opt.Fatal = func(err error) { fatal = err }
			s := open(t, opt)
			ref := s.Put(body(1, 2000), false)
			for i := range 20 {
				s.Put(body(i, 1000), false)
			}
			flushed(s)
			damage(t, s, where)
			if _, err := s.Get(ref, nil); err == nil || fatal == nil || !errors.Is(fatal, errDamaged) {
				t.Fatalf("get of a damaged body: %v, fatal %v", err, fatal)
			}
		})
	}
}

func damage(t *testing.T, s *Store, where string) {
	t.Helper()
	path := filepath.Join(s.dir, fmt.Sprintf("%s%012d%s", filePrefix, 1, fileSuffix))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	switch where {
	case "length":
		b[1] ^= 0x80
	case "checksum":
		b[5] ^= 1
	case "body":
		b[500] ^= 1
	case "cut":
		b = b[:900]
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAFailedWriteIsFatal(t *testing.T) {
	fatal := make(chan error, 16)
	opt := small()
	opt.Fatal = func(err error) {
		select {
		case fatal <- err:
		default:
		}
	}
	dir := t.TempDir()
	s, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	s.Put(body(1, 20_000), false)
	if err := <-fatal; err == nil {
		t.Fatal("no error")
	}
	_ = s.Close()
}

func TestASizeClassHoldsItsSizeAndWastesAtMostAnEighth(t *testing.T) {
	for n := headerBytes; n < 1<<23; n += 1 + n/97 {
		size := classBytes(classOf(n))
		if size < n || size > n+n/8+1 {
			t.Fatalf("%d bytes get a class of %d", n, size)
		}
	}
}

func TestPutsFreesAndReadsFromManyGoroutinesAgree(t *testing.T) {
	s := open(t, small())
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			held := make(map[fsm.BodyRef]int)
			for i := range 3000 {
				n := rng.IntN(900)
				held[s.Put(body(i, n), rng.IntN(4) == 0)] = i<<16 | n
				for ref, v := range held {
					got, err := s.Get(ref, nil)
					if err != nil || !bytes.Equal(got, body(v>>16, v&0xffff)) {
						t.Errorf("get: %d bytes, %v", len(got), err)
						return
					}
					if len(held) > 50 {
						s.Free(ref)
						delete(held, ref)
					}
					break
				}
			}
		})
	}
	wg.Wait()
}

// The store and the plain map agree on any sequence of calls.
func TestTheStoreBehavesLikeAMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := open(t, small())
		model := make(map[fsm.BodyRef][]byte)
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0, 1, 2, 3, 4, 5:
				b := body(len(model), rapid.IntRange(0, 3000).Draw(rt, "size"))
				model[s.Put(b, rapid.Bool().Draw(rt, "retained"))] = b
			case 6, 7, 8:
				for ref := range model {
					s.Free(ref)
					delete(model, ref)
					break
				}
			default:
				flushed(s)
			}
		}
		for ref, b := range model {
			mustGet(t, s, ref, b)
		}
		if st := s.Stats(); st.Bodies != int64(len(model)) {
			rt.Fatalf("%d bodies, want %d", st.Bodies, len(model))
		}
	})
}

func benchmarkPut(b *testing.B, size int) {
	s := open(b, Default())
	payload := body(1, size)
	window := make([]fsm.BodyRef, 100_000)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if ref := window[i%len(window)]; ref != 0 {
			s.Free(ref)
		}
		window[i%len(window)] = s.Put(payload, false)
		i++
	}
}

func BenchmarkPutAndFree256(b *testing.B)  { benchmarkPut(b, 256) }
func BenchmarkPutAndFree4096(b *testing.B) { benchmarkPut(b, 4096) }

func BenchmarkGet256FromDisk(b *testing.B) {
	s := open(b, Default())
	payload := body(1, 256)
	refs := make([]fsm.BodyRef, 200_000)
	for i := range refs {
		refs[i] = s.Put(payload, false)
	}
	flushed(s)
	rng := rand.New(rand.NewPCG(1, 2))
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = s.Get(refs[rng.IntN(len(refs))], dst[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet256FromMemory(b *testing.B) {
	s := open(b, Default())
	ref := s.Put(body(1, 256), false)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = s.Get(ref, dst[:0])
	}
}
