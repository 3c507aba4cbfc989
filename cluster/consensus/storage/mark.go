package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// state is what the mark says: the last entry reported as stored, and the vote.
type state struct {
	index, term uint64 // of the last entry in the log, or of the snapshot that replaced it
	entryCRC    uint32 // 0 when a snapshot stands in for the entry
	currentTerm uint64
	voteTerm    uint64
	voteCRC     uint32 // of the candidate's bytes
}

// slots is the durable place of a mark. write returns when the slot is durable.
type slots interface {
	read(i int) ([]byte, error)
	write(i int, slot []byte) error
	close() error
}

// mark keeps a state durable in two slots, written in turn: a torn write of one leaves the other, which says less and
// never more.
//
//	0   4  magic "QRMK"
//	4   4  version 1
//	8   8  sequence number of the write; the higher valid slot holds
//	16  8  index     24  8  term     32  4  entry CRC32C    36  4  vote CRC32C
//	40  8  current term     48  8  term of the vote
//	508 4  CRC32C of the slot
//
// Numbers are big endian. Slots lie in different blocks of 4 KiB, so that no torn block takes both.
type mark struct {
	slots slots
	// lock serialises writes. It is a channel and not a mutex because it is held over an fsync, which a simulation lets
	// take virtual time.
	lock chan struct{}
	seq  uint64 // guarded by lock
	now  atomic.Pointer[state]
}

const (
	slotBytes   = 512
	slotStride  = 4096
	markVersion = 1
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errSlot    = errors.New("no valid slot")
)

// createMark writes the empty state into both slots.
func createMark(s slots) (*mark, error) {
	m := &mark{slots: s, lock: make(chan struct{}, 1)}
	m.now.Store(&state{})
	for range 2 {
		if err := m.update(func(*state) {}); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// openMark reads the newer valid slot.
func openMark(s slots) (*mark, error) {
	m := &mark{slots: s, lock: make(chan struct{}, 1)}
	for i := range 2 {
		b, err := s.read(i)
		if err != nil {
			return nil, err
		}
		if st, seq, ok := decodeSlot(b); ok && seq > m.seq {
			m.seq = seq
			m.now.Store(&st)
		}
	}
	if m.seq == 0 {
		return nil, errSlot
	}
	return m, nil
}

func (m *mark) load() state { return *m.now.Load() }

// update makes a change durable before it returns, and visible after.
func (m *mark) update(change func(*state)) error {
	m.lock <- struct{}{}
	defer func() { <-m.lock }()
	st := m.load()
	change(&st)
	seq := m.seq + 1
	if err := m.slots.write(int(seq%2), appendSlot(make([]byte, 0, slotBytes), st, seq)); err != nil {
		return fmt.Errorf("write mark: %w", err)
	}
	m.seq = seq
	m.now.Store(&st)
	return nil
}

func appendSlot(dst []byte, st state, seq uint64) []byte {
	be := binary.BigEndian
	dst = append(dst, "QRMK"...)
	dst = be.AppendUint32(dst, markVersion)
	dst = be.AppendUint64(dst, seq)
	dst = be.AppendUint64(dst, st.index)
	dst = be.AppendUint64(dst, st.term)
	dst = be.AppendUint32(dst, st.entryCRC)
	dst = be.AppendUint32(dst, st.voteCRC)
	dst = be.AppendUint64(dst, st.currentTerm)
	dst = be.AppendUint64(dst, st.voteTerm)
	dst = append(dst, make([]byte, slotBytes-4-len(dst))...)
	return be.AppendUint32(dst, crc32.Checksum(dst, castagnoli))
}

func decodeSlot(b []byte) (st state, seq uint64, ok bool) {
	be := binary.BigEndian
	if len(b) != slotBytes || string(b[:4]) != "QRMK" || be.Uint32(b[4:]) != markVersion {
		return state{}, 0, false
	}
	if crc32.Checksum(b[:slotBytes-4], castagnoli) != be.Uint32(b[slotBytes-4:]) {
		return state{}, 0, false
	}
	return state{
		index: be.Uint64(b[16:]), term: be.Uint64(b[24:]),
		entryCRC: be.Uint32(b[32:]), voteCRC: be.Uint32(b[36:]),
		currentTerm: be.Uint64(b[40:]), voteTerm: be.Uint64(b[48:]),
	}, be.Uint64(b[8:]), true
}

// fileSlots keeps the slots in a preallocated file: one pwrite and one fdatasync a write, without a change of metadata.
type fileSlots struct{ f *os.File }

func createFileSlots(path string) (fileSlots, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fileSlots{}, err
	}
	if _, err := f.Write(make([]byte, 2*slotStride)); err != nil {
		return fileSlots{}, errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return fileSlots{}, errors.Join(err, f.Close())
	}
	return fileSlots{f}, nil
}

func openFileSlots(path string) (fileSlots, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	return fileSlots{f}, err
}

// read returns what there is of a slot: less than a slot is an invalid one, not an error.
func (s fileSlots) read(i int) ([]byte, error) {
	b := make([]byte, slotBytes)
	n, err := s.f.ReadAt(b, int64(i)*slotStride)
	if n < slotBytes {
		return nil, nil //nolint:nilerr // a file cut short shows as slots that are not valid
	}
	return b, err
}

func (s fileSlots) write(i int, slot []byte) error {
	if _, err := s.f.WriteAt(slot, int64(i)*slotStride); err != nil {
		return err
	}
	if err := unix.Fdatasync(int(s.f.Fd())); err != nil {
		return fmt.Errorf("fdatasync: %w", err)
	}
	return nil
}

func (s fileSlots) close() error { return s.f.Close() }
