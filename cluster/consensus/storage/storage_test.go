package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// openDir opens a directory; what is fatal fails the test.
func openDir(t *testing.T, dir string, change ...func(*Options)) (*Storage, error) {
	t.Helper()
	opt := Options{Name: "n1", Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
	for _, c := range change {
		c(&opt)
	}
	return Open(dir, opt)
}

func mustOpen(t *testing.T, dir string) *Storage {
	t.Helper()
	s, err := openDir(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func entry(index, term uint64) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: []byte(fmt.Sprintf("%-300s", fmt.Sprint("entry ", index, " of ", term)))}
}

func store(t *testing.T, s *Storage, first, last, term uint64) {
	t.Helper()
	for i := first; i <= last; i++ {
		if err := s.Logs.StoreLog(entry(i, term)); err != nil {
			t.Fatal(err)
		}
	}
}

// filled returns a closed directory with entries 1 to 40, of term 2.
func filled(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	s := mustOpen(t, dir)
	if err := s.Stable.SetUint64(keyCurrentTerm, 2); err != nil {
		t.Fatal(err)
	}
	if err := s.Stable.SetUint64(keyLastVoteTerm, 2); err != nil {
		t.Fatal(err)
	}
	if err := s.Stable.Set(keyLastVoteCand, []byte("me")); err != nil {
		t.Fatal(err)
	}
	store(t, s, 1, 40, 2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// refused demands a RefusedError that says all of the words.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	var r *RefusedError
	if !errors.As(err, &r) {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("refusal %q does not say %q", err, w)
		}
	}
}

func TestADirectoryKeepsItsServerIDAndCountsItsStarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	a := mustOpen(t, dir)
	first := a.Identity()
	if len(first.ServerID) != 16 || first.Incarnation != 1 {
		t.Errorf("first start is %+v", first)
	}
	if err := a.SetClusterID("c1"); err != nil {
		t.Fatal(err)
	}
	if n, err := a.NextIncarnation(); n != 2 || err != nil {
		t.Errorf("next incarnation %d, %v", n, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Error("second close:", err)
	}
	b := mustOpen(t, dir)
	defer b.Close()
	want := Identity{ServerID: first.ServerID, ClusterID: "c1", Name: "n1", Incarnation: 3}
	if got := b.Identity(); got != want {
		t.Errorf("second start is %+v, want %+v", got, want)
	}
}

func TestADirectoryInUseIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := mustOpen(t, dir)
	defer s.Close()
	_, err := openDir(t, dir)
	refused(t, err, "another process uses it")
	if strings.Contains(err.Error(), "mv ") {
		t.Error("a directory in use must not be moved away")
	}
}

func TestADirectoryOfAnotherClusterOrFormatIsRefused(t *testing.T) {
	dir := filled(t)
	s := mustOpen(t, dir)
	if err := s.SetClusterID("c1"); err != nil {
		t.Fatal(err)
	}
	if err := s.SetClusterID("c2"); err == nil {
		t.Error("the cluster id was changed")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := openDir(t, dir, func(o *Options) { o.ClusterID = "c2" })
	refused(t, err, "c1", "c2", "mv "+dir)
	rewrite(t, filepath.Join(dir, serverFile), `"format": 1`, `"format": 2`)
	_, err = openDir(t, dir)
	refused(t, err, "format 2")
}

func rewrite(t *testing.T, path, old, new string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		t.Fatalf("%s does not contain %s", path, old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(data), old, new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWhatWasDamagedOrTakenAwayIsRefused(t *testing.T) {
	log := func(dir string) string { return filepath.Join(dir, raftDir, boltFile) }
	mark := func(dir string) string { return filepath.Join(dir, raftDir, markFile) }
	cases := map[string]struct {
		damage func(t *testing.T, dir string)
		words  []string
	}{
		"server.json garbled": {func(t *testing.T, dir string) { rewrite(t, filepath.Join(dir, serverFile), "{", "(") }, []string{"server.json is damaged"}},
		"server.json changed": {
			func(t *testing.T, dir string) {
				rewrite(t, filepath.Join(dir, serverFile), `"incarnation": 1`, `"incarnation": 3`)
			}, []string{"checksum"},
		},
		"server.json gone":    {func(t *testing.T, dir string) { remove(t, filepath.Join(dir, serverFile)) }, []string{"server.json is missing", "40"}},
		"mark gone":           {func(t *testing.T, dir string) { remove(t, mark(dir)) }, []string{"mark", "missing"}},
		"both slots zeroed":   {func(t *testing.T, dir string) { zero(t, mark(dir), 0, 2*slotStride) }, []string{"mark", "damaged"}},
		"mark cut":            {func(t *testing.T, dir string) { truncate(t, mark(dir), 100) }, []string{"mark", "damaged"}},
		"log gone":            {func(t *testing.T, dir string) { remove(t, log(dir)) }, []string{"raft log"}},
		"log cut":             {func(t *testing.T, dir string) { truncate(t, log(dir), 5*4096) }, []string{"raft log"}},
		"payload bit flipped": {func(t *testing.T, dir string) { flip(t, log(dir), "entry 20 of 2") }, []string{"entry 20", "checksum"}},
		"peers.json garbled":  {func(t *testing.T, dir string) { write(t, filepath.Join(dir, peersFile), "{") }, []string{"peers"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := filled(t)
			c.damage(t, dir)
			_, err := openDir(t, dir)
			refused(t, err, append(c.words, "mv "+dir)...)
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func zero(t *testing.T, path string, at int64, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, n), at); err != nil {
		t.Fatal(err)
	}
}

// flip changes one bit of every place where the text stands: old pages of the file hold copies.
func flip(t *testing.T, path, text string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for at := 0; ; n++ {
		i := strings.Index(string(data[at:]), text)
		if i < 0 {
			break
		}
		data[at+i] ^= 1
		at += i + 1
	}
	if n == 0 {
		t.Fatalf("%q is not in %s", text, path)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestNoDamageToThePagesOfTheLogPassesUnseen zeroes, or replaces by older ones, blocks of 4 KiB at random: the
// directory opens with everything it ever acknowledged, or is refused.
func TestNoDamageToThePagesOfTheLogPassesUnseen(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	dir := filled(t)
	path := filepath.Join(dir, raftDir, boltFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(whole)
	for used > 4096 && whole[used-1] == 0 {
		used--
	}
	seen := 0
	for range 60 {
		data := append([]byte(nil), whole...)
		at := rng.IntN(used/4096+1) * 4096
		if rng.IntN(2) == 0 {
			clear(data[at : at+4096])
		} else {
			from := rng.IntN(used/4096) * 4096
			copy(data[at:at+4096], whole[from:from+4096])
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := openDir(t, dir)
		if err != nil {
			refused(t, err)
			seen++
			continue
		}
		for i := uint64(1); i <= 40; i++ {
			var e raft.Log
			if err := s.Logs.GetLog(i, &e); err != nil || string(e.Data) != string(entry(i, 2).Data) {
				t.Errorf("damage at %d: entry %d reads %q, %v", at, i, e.Data, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if seen == 0 {
		t.Error("no damage was seen: the test proves nothing")
	}
}

func TestOneTornSlotOfTheMarkIsNoReasonToRefuse(t *testing.T) {
	for slot := range 2 {
		dir := filled(t)
		zero(t, filepath.Join(dir, raftDir, markFile), int64(slot)*slotStride+64, 100)
		s, err := openDir(t, dir)
		if err != nil {
			t.Fatalf("slot %d: %v", slot, err)
		}
		if d := s.Durable(); d != 40 && d != 39 {
			t.Errorf("slot %d: mark at %d", slot, d)
		}
		_ = s.Close()
	}
}

func TestAnOldCopyOfTheLogIsRefused(t *testing.T) {
	dir := filled(t)
	path := filepath.Join(dir, raftDir, boltFile)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir)
	store(t, s, 41, 50, 2)
	_ = s.Close()
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = openDir(t, dir)
	refused(t, err, "up to 50 were acknowledged", "ends at 40")
}

func TestAnOldTermOrVoteIsRefused(t *testing.T) {
	for _, key := range [][]byte{keyCurrentTerm, keyLastVoteTerm} {
		dir := filled(t)
		bolt, err := openBolt(filepath.Join(dir, raftDir, boltFile), false)
		if err != nil {
			t.Fatal(err)
		}
		if err := bolt.SetUint64(key, 1); err != nil {
			t.Fatal(err)
		}
		_ = bolt.Close()
		_, err = openDir(t, dir)
		refused(t, err, "of term 1", "term 2")
	}
	dir := filled(t)
	bolt, err := openBolt(filepath.Join(dir, raftDir, boltFile), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := bolt.Set(keyLastVoteCand, []byte("you")); err != nil {
		t.Fatal(err)
	}
	_ = bolt.Close()
	_, err = openDir(t, dir)
	refused(t, err, "not the one that was given")
}

func TestAnotherEntryInThePlaceOfTheAcknowledgedOneIsRefused(t *testing.T) {
	dir := filled(t)
	bolt, err := openBolt(filepath.Join(dir, raftDir, boltFile), false)
	if err != nil {
		t.Fatal(err)
	}
	other := entry(40, 1)
	other.Extensions = []byte{0, 0, 0, 0}
	l := &log{mark: &mark{}, space: func() bool { return true }, sizes: &sizes{}}
	other.Extensions = nil
	if err := l.accept([]*raft.Log{other}); err != nil {
		t.Fatal(err)
	}
	if err := bolt.StoreLog(other); err != nil {
		t.Fatal(err)
	}
	_ = bolt.Close()
	_, err = openDir(t, dir)
	refused(t, err, "entry 40 is not the one that was acknowledged")
}

func TestALogLongerThanTheMarkIsAcceptedAndATornTailBeyondItDropped(t *testing.T) {
	dir := filled(t)
	bolt, err := openBolt(filepath.Join(dir, raftDir, boltFile), false)
	if err != nil {
		t.Fatal(err)
	}
	good := entry(41, 2)
	l := &log{space: func() bool { return true }}
	if err := l.accept([]*raft.Log{good}); err != nil {
		t.Fatal(err)
	}
	torn := entry(42, 2)
	torn.Extensions = []byte{1, 2, 3, 4}
	if err := bolt.StoreLogs([]*raft.Log{good, torn}); err != nil {
		t.Fatal(err)
	}
	_ = bolt.Close()
	s := mustOpen(t, dir)
	defer s.Close()
	if last, _ := s.Logs.LastIndex(); last != 41 {
		t.Errorf("log ends at %d, want 41", last)
	}
}

func TestAFirstStartThatWasCutShortCanBeRepeated(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(filepath.Join(dir, raftDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := initRaft(dir); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir)
	defer s.Close()
	if s.Identity().Incarnation != 1 {
		t.Errorf("identity %+v", s.Identity())
	}
}

func TestUnfinishedSnapshotsAreDeletedAtStart(t *testing.T) {
	dir := filled(t)
	tmp := filepath.Join(dir, raftDir, snapDir, "2-40-1.tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir)
	defer s.Close()
	if _, err := os.Stat(tmp); !errors.Is(err, os.ErrNotExist) {
		t.Error("unfinished snapshot is still there")
	}
}

func TestASnapshotStandsInForTheLogBeforeItAndItsLossIsSeen(t *testing.T) {
	dir := filled(t)
	s := mustOpen(t, dir)
	snapshot(t, s, 60, 3) // installed: beyond the log
	if s.Durable() != 60 || s.SnapshotIndex() != 60 {
		t.Errorf("mark at %d, snapshot at %d", s.Durable(), s.SnapshotIndex())
	}
	store(t, s, 61, 70, 3)
	if err := s.Logs.DeleteRange(1, 40); err != nil {
		t.Fatal(err)
	}
	if s.Durable() != 70 {
		t.Errorf("deleting a prefix moved the mark to %d", s.Durable())
	}
	_ = s.Close()
	s = mustOpen(t, dir)
	if n := s.LogBytes(60); n != 10*uint64(entrySize(entry(61, 3))) {
		t.Errorf("log has %d bytes", n)
	}
	if n := s.Trailing(3 * uint64(entrySize(entry(61, 3)))); n != 3 {
		t.Errorf("%d entries trail", n)
	}
	_ = s.Close()
	if err := os.RemoveAll(filepath.Join(dir, raftDir, snapDir)); err != nil {
		t.Fatal(err)
	}
	_, err := openDir(t, dir)
	refused(t, err, "starts at entry 61", "newest snapshot ends at 0")
}

func snapshot(t *testing.T, s *Storage, index, term uint64) {
	t.Helper()
	_, trans := raft.NewInmemTransport("a")
	sink, err := s.Snapshots.Create(1, index, term, raft.Configuration{}, 1, trans)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write([]byte("state")); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}
