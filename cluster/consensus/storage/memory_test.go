package storage

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
)

var errBroken = errors.New("input/output error")

// opened opens a memory disk and collects what is fatal.
func opened(t *testing.T, d *Memory) (*Storage, *[]error) {
	t.Helper()
	var fatals []error
	s, err := d.Open(Options{CriticalBytes: 100, LowBytes: 1000, Fatal: func(err error) { fatals = append(fatals, err) }})
	if err != nil {
		t.Fatal(err)
	}
	return s, &fatals
}

func failAt(step Step) func(Step) error {
	return func(s Step) error {
		if s == step {
			return errBroken
		}
		return nil
	}
}

func TestAWriteThatFailsIsFatalAndNeverTriedAgain(t *testing.T) {
	for _, step := range []Step{StepWriteLog, StepSyncLog, StepWriteMark} {
		d := NewMemory()
		s, fatals := opened(t, d)
		store(t, s, 1, 3, 1)
		d.SetHook(failAt(step))
		if err := s.Logs.StoreLog(entry(4, 1)); !errors.Is(err, ErrFailed) {
			t.Errorf("%s: %v", step, err)
		}
		if len(*fatals) != 1 || !errors.Is((*fatals)[0], errBroken) {
			t.Errorf("%s: fatal %v", step, *fatals)
		}
		d.SetHook(nil)
		if err := s.Logs.StoreLog(entry(4, 1)); !errors.Is(err, ErrFailed) {
			t.Errorf("%s: was tried again: %v", step, err)
		}
		if err := s.Stable.SetUint64(keyCurrentTerm, 9); !errors.Is(err, ErrFailed) {
			t.Errorf("%s: a vote was stored after the failure: %v", step, err)
		}
		again, _ := opened(t, d)
		if last, _ := again.Logs.LastIndex(); last < 3 {
			t.Errorf("%s: log ends at %d", step, last)
		}
	}
}

func TestAVoteThatCannotBeStoredIsFatal(t *testing.T) {
	d := NewMemory()
	s, fatals := opened(t, d)
	d.SetHook(failAt(StepWriteVote))
	if err := s.Stable.SetUint64(keyCurrentTerm, 2); err == nil || len(*fatals) != 1 {
		t.Errorf("%v, fatal %v", err, *fatals)
	}
}

// TestDeletingASuffixCanCrashAnywhere crashes at each step of a truncation and of the append after it. Whatever
// survives is accepted, and holds every entry that was acknowledged and not deleted.
func TestDeletingASuffixCanCrashAnywhere(t *testing.T) {
	for crashAt := range 12 {
		d := NewMemory()
		s, _ := opened(t, d)
		store(t, s, 1, 1000, 1)
		n := 0
		d.SetHook(func(Step) error {
			n++
			if n == crashAt+1 {
				d.epochEnds()
				return ErrCrashed
			}
			return nil
		})
		err := s.Logs.DeleteRange(400, 1000)
		if err == nil {
			err = s.Logs.StoreLogs([]*raft.Log{entry(400, 2), entry(401, 2)})
		}
		d.SetHook(nil)
		again, openErr := d.Open(Options{Fatal: func(error) {}})
		if openErr != nil {
			t.Fatalf("crash at step %d: %v", crashAt, openErr)
		}
		for i := uint64(1); i < 400; i++ {
			var e raft.Log
			if getErr := again.Logs.GetLog(i, &e); getErr != nil || e.Term != 1 {
				t.Fatalf("crash at step %d: entry %d: %v", crashAt, i, getErr)
			}
		}
		if err == nil {
			var e raft.Log
			if getErr := again.Logs.GetLog(401, &e); getErr != nil || e.Term != 2 {
				t.Errorf("acknowledged entry 401 is lost: %v", getErr)
			}
		}
	}
}

// epochEnds crashes the disk from within a hook, which holds no lock.
func (d *Memory) epochEnds() { d.Crash() }

func TestTheMarkIsLoweredBeforeASuffixIsDeleted(t *testing.T) {
	d := NewMemory()
	s, _ := opened(t, d)
	store(t, s, 1, 10, 1)
	var steps []Step
	d.SetHook(func(step Step) error { steps = append(steps, step); return nil })
	if err := s.Logs.DeleteRange(6, 10); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(steps) != fmt.Sprint([]Step{StepWriteMark, StepDeleteLog}) {
		t.Errorf("steps %v", steps)
	}
	if s.Durable() != 5 {
		t.Errorf("mark at %d", s.Durable())
	}
}

func TestTheMarkIsWrittenAfterTheLogAndBeforeTheAnswer(t *testing.T) {
	d := NewMemory()
	s, _ := opened(t, d)
	var steps []Step
	d.SetHook(func(step Step) error { steps = append(steps, step); return nil })
	store(t, s, 1, 1, 1)
	if fmt.Sprint(steps) != fmt.Sprint([]Step{StepWriteLog, StepSyncLog, StepWriteMark}) {
		t.Errorf("steps %v", steps)
	}
}

func TestARottenEntryIsFatalWhenItIsRead(t *testing.T) {
	d := NewMemory()
	s, fatals := opened(t, d)
	store(t, s, 1, 5, 1)
	d.Corrupt(3)
	var e raft.Log
	if err := s.Logs.GetLog(3, &e); err == nil || len(*fatals) != 1 {
		t.Errorf("%v, fatal %v", err, *fatals)
	}
	if _, err := d.Open(Options{}); err == nil {
		t.Error("the rotten log was opened")
	}
}

func TestAnEntryDamagedOnItsWayIsRefusedAndNotFatal(t *testing.T) {
	d := NewMemory()
	s, fatals := opened(t, d)
	e := entry(1, 1)
	e.Extensions = []byte{1, 2, 3, 4}
	if err := s.Logs.StoreLog(e); !errors.Is(err, errDamaged) || len(*fatals) != 0 {
		t.Errorf("%v, fatal %v", err, *fatals)
	}
	store(t, s, 1, 1, 1)
}

func TestANearlyFullDiskRefusesEntriesAndRecoversByItself(t *testing.T) {
	d := NewMemory()
	s, fatals := opened(t, d)
	store(t, s, 1, 3, 1)
	d.SetFree(500)
	if !s.Low() {
		t.Error("500 bytes are not low")
	}
	store(t, s, 4, 4, 1)
	d.SetFree(50)
	if err := s.Logs.StoreLog(entry(5, 1)); !errors.Is(err, ErrDiskFull) {
		t.Errorf("got %v", err)
	}
	if err := s.Logs.DeleteRange(4, 4); !errors.Is(err, ErrDiskFull) {
		t.Errorf("a suffix was deleted that cannot be replaced: %v", err)
	}
	d.SetFree(1 << 20)
	store(t, s, 5, 5, 1)
	if len(*fatals) != 0 {
		t.Errorf("fatal %v", *fatals)
	}
}

func TestAPeerThatWentBackIsRefused(t *testing.T) {
	d := NewMemory()
	s, _ := opened(t, d)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.Book.Admit("p", "n2", "1:1", 3, 100))
	s.Book.Note("p", 3, 90)
	must(s.Book.Flush())
	must(s.Book.Admit("p", "n2", "1:1", 3, 95)) // an uncommitted tail may go
	must(s.Book.Admit("p", "n2", "1:2", 4, 90))
	s, _ = opened(t, d)
	for _, c := range []struct{ incarnation, durable uint64 }{{3, 100}, {4, 89}, {5, 0}} {
		if err := s.Book.Admit("p", "n2", "1:1", c.incarnation, c.durable); !errors.Is(err, ErrWentBack) {
			t.Errorf("%+v was admitted: %v", c, err)
		}
	}
	if r := s.Book.Peers()["p"]; r != (Record{Name: "n2", Addr: "1:2", Incarnation: 4, Committed: 90}) {
		t.Errorf("record %+v", r)
	}
	must(s.Book.Forget("p"))
	must(s.Book.Admit("p", "n2", "1:1", 1, 0))
}

func TestSizesFollowTheLog(t *testing.T) {
	var s sizes
	for i := uint64(5); i < 15; i++ {
		s.add(i, 10)
	}
	s.dropUpTo(7)
	s.dropFrom(13)
	if got := s.bytesAfter(0); got != 50 {
		t.Errorf("%d bytes, want 50", got)
	}
	s.add(20, 7)
	if got := s.bytesAfter(10); got != 27 {
		t.Errorf("%d bytes after 10, want 27", got)
	}
	if got := s.trailing(27); got != 10 {
		t.Errorf("%d entries trail, want 10 with the gap", got)
	}
	s.dropUpTo(30)
	s.add(31, 4)
	if got := s.bytesAfter(0); got != 4 {
		t.Errorf("%d bytes, want 4", got)
	}
}

func FuzzSlotDecodesWhatWasEncodedOrNothing(f *testing.F) {
	f.Add(appendSlot(nil, state{index: 1, term: 2, entryCRC: 3, currentTerm: 4, voteTerm: 5, voteCRC: 6}, 7))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		st, seq, ok := decodeSlot(b)
		if ok && string(appendSlot(nil, st, seq)) != string(b) {
			t.Skip("reserved bytes are not looked at")
		}
	})
}
