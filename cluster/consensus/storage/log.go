package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// deleteChunk is how many old entries go in one transaction: one delete of 190,000 entries stalls appends 150 ms.
const deleteChunk = 256

// log checks and marks what goes through it to a raft.LogStore.
//
// Order of writes. Append: entries, then the mark, then the answer. Delete of a suffix: the mark is lowered, then the
// entries go. So what the mark names was always reported as stored, and is always there.
//
// Concurrency is that of hashicorp/raft: one goroutine appends and deletes suffixes, another deletes prefixes of what
// a snapshot holds, any number read.
type log struct {
	next  raft.LogStore
	mark  *mark
	sizes *sizes
	space func() bool // false: no entry may be stored
	fatal func(error)

	snapshot atomic.Uint64 // index of the newest durable snapshot
	cut      atomic.Bool   // a suffix was deleted and nothing stored since
	failed   atomic.Bool
}

// errDamaged says that an entry does not have its checksum.
var errDamaged = errors.New("checksum does not match")

// FirstIndex implements raft.LogStore.
func (l *log) FirstIndex() (uint64, error) { return l.next.FirstIndex() }

// LastIndex implements raft.LogStore.
func (l *log) LastIndex() (uint64, error) { return l.next.LastIndex() }

// IsMonotonic implements raft.MonotonicLogStore: a snapshot that was installed may leave a gap in the log. The other
// way (drop the whole log) would also drop entries after the snapshot that this server has promised to hold.
func (l *log) IsMonotonic() bool { return false }

// GetLog implements raft.LogStore. A damaged entry ends the process: nobody may be served or catch up from it.
func (l *log) GetLog(index uint64, entry *raft.Log) error {
	if err := l.next.GetLog(index, entry); err != nil {
		if errors.Is(err, raft.ErrLogNotFound) {
			return err // Raft compares it by identity
		}
		return l.fail(fmt.Errorf("read log entry %d: %w", index, err))
	}
	if err := checkAt(index, entry); err != nil {
		return l.fail(err)
	}
	return nil
}

// StoreLog implements raft.LogStore.
func (l *log) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore. An entry of this leader gets its checksum; one from another leader is checked
// against the checksum that it brought.
func (l *log) StoreLogs(entries []*raft.Log) error {
	if err := l.alive(); err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	if err := l.accept(entries); err != nil {
		if l.cut.Load() {
			// Raft still believes in the suffix that it had deleted, see appendEntries in raft.go.
			return l.fail(fmt.Errorf("refused after a suffix was deleted: %w", err))
		}
		return err
	}
	if err := l.next.StoreLogs(entries); err != nil {
		return l.fail(fmt.Errorf("store log entries: %w", err))
	}
	last := entries[len(entries)-1]
	err := l.mark.update(func(st *state) {
		st.index, st.term, st.entryCRC = last.Index, last.Term, entryCRC(last)
	})
	if err != nil {
		return l.fail(err)
	}
	for _, e := range entries {
		l.sizes.add(e.Index, entrySize(e))
	}
	l.cut.Store(false)
	return nil
}

// accept decides before anything is written.
func (l *log) accept(entries []*raft.Log) error {
	if !l.cut.Load() && !l.space() {
		return ErrDiskFull
	}
	for _, e := range entries {
		if len(e.Extensions) == 0 {
			e.Extensions = binary.BigEndian.AppendUint32(nil, entryCRC(e))
			continue
		}
		if err := CheckEntry(e); err != nil {
			return err
		}
	}
	return nil
}

// DeleteRange implements raft.LogStore.
func (l *log) DeleteRange(first, last uint64) error {
	if err := l.alive(); err != nil {
		return err
	}
	end, err := l.next.LastIndex()
	if err != nil {
		return l.fail(fmt.Errorf("read end of log: %w", err))
	}
	if last >= end && last > l.snapshot.Load() {
		return l.deleteSuffix(first, end)
	}
	return l.deletePrefix(first, last)
}

func (l *log) deletePrefix(first, last uint64) error {
	for from := first; from <= last; from += deleteChunk {
		to := min(last, from+deleteChunk-1)
		if err := l.next.DeleteRange(from, to); err != nil {
			return l.fail(fmt.Errorf("delete log entries %d to %d: %w", from, to, err))
		}
		l.sizes.dropUpTo(to)
	}
	return nil
}

// deleteSuffix deletes backwards, so that a crash in between leaves no hole.
func (l *log) deleteSuffix(first, end uint64) error {
	if !l.space() {
		return ErrDiskFull
	}
	if err := l.lower(first); err != nil {
		return l.fail(err)
	}
	l.cut.Store(true)
	for to := end; to >= first && to > 0; {
		from := first
		if to-first >= deleteChunk {
			from = to - deleteChunk + 1
		}
		if err := l.next.DeleteRange(from, to); err != nil {
			return l.fail(fmt.Errorf("delete log entries %d to %d: %w", from, to, err))
		}
		l.sizes.dropFrom(from)
		to = from - 1
	}
	return nil
}

// lower moves the mark to the entry before first, or to the snapshot that stands in for it.
func (l *log) lower(first uint64) error {
	if l.mark.load().index < first {
		return nil
	}
	var entry raft.Log
	err := l.next.GetLog(first-1, &entry)
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return fmt.Errorf("read log entry %d: %w", first-1, err)
	}
	return l.mark.update(func(st *state) {
		if err != nil {
			st.index, st.term, st.entryCRC = l.snapshot.Load(), 0, 0
			return
		}
		st.index, st.term, st.entryCRC = entry.Index, entry.Term, entryCRC(&entry)
	})
}

// raise notes a durable snapshot.
func (l *log) raise(index, term uint64) error {
	if index > l.snapshot.Load() {
		l.snapshot.Store(index)
	}
	if l.mark.load().index >= index {
		return nil
	}
	err := l.mark.update(func(st *state) {
		if st.index < index {
			st.index, st.term, st.entryCRC = index, term, 0
		}
	})
	if err != nil {
		return l.fail(err)
	}
	return nil
}

// alive is asked before each use. Raft panics when it cannot store its term, so a use after the failure ends the same
// way as the failure.
func (l *log) alive() error {
	if l.failed.Load() {
		l.fatal(ErrFailed)
		return ErrFailed
	}
	return nil
}

// fail ends the trust in this store.
func (l *log) fail(err error) error {
	if l.failed.CompareAndSwap(false, true) {
		l.fatal(err)
	}
	return fmt.Errorf("%w: %w", ErrFailed, err)
}

// entryCRC covers what makes the entry: its place, its kind and its data. It is in Extensions and so travels along.
func entryCRC(e *raft.Log) uint32 {
	var head [17]byte
	binary.BigEndian.PutUint64(head[0:], e.Index)
	binary.BigEndian.PutUint64(head[8:], e.Term)
	head[16] = byte(e.Type)
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, e.Data)
}

// CheckEntry compares an entry with the checksum that it carries.
func CheckEntry(e *raft.Log) error { return checkAt(e.Index, e) }

func checkAt(index uint64, e *raft.Log) error {
	if e.Index != index || len(e.Extensions) != 4 || binary.BigEndian.Uint32(e.Extensions) != entryCRC(e) {
		return fmt.Errorf("log entry %d: %w", index, errDamaged)
	}
	return nil
}

// entrySize is about what an entry costs on disk.
func entrySize(e *raft.Log) uint32 { return uint32(len(e.Data) + 96) }
