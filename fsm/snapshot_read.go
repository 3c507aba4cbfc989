package fsm

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"quorate/fsm/internal/codec"
)

// ErrSnapshot says that what was read is not a whole and unchanged snapshot of a known version.
var ErrSnapshot = errors.New("bad snapshot")

// Restore replaces the whole state by a snapshot. It is called on the apply goroutine. A snapshot that is truncated,
// changed, or contradicts itself is refused, and the state stays as it was. Afterwards Applied is the snapshot's index.
//
// A machine without messages resets its bodies first. One that has some keeps them until the new ones are complete, so
// that a refusal costs nothing; the price is the room for both.
func (m *Machine) Restore(r io.Reader) error {
	m.mu.RLock()
	old := m.st
	m.mu.RUnlock()
	if old.slab.used == 0 && old.snap == nil {
		m.bodies.Reset()
	}
	b := newBuilder(m.self, m.bodies)
	if err := b.read(r); err != nil {
		b.discard()
		return fmt.Errorf("restore snapshot: %w", err)
	}
	m.mu.Lock()
	m.st = b.st
	m.mu.Unlock()
	for i := range old.slab.index.all() {
		if s := old.slab.at(i); !s.is(slotGone) {
			m.bodies.Free(s.body)
		}
	}
	if m.obs != nil {
		m.obs.Restored()
	}
	m.reached(b.st.applied)
	return nil
}

// builder makes a state from the records of a snapshot. What it reads is not believed until the checksum is; until
// then indexes live in maps, so that a wild one reserves no memory.
type builder struct {
	st *state

	nodes    map[uint32]*rawNode
	lives    map[uint32]*rawLife
	filters  map[uint32]*filter
	groups   map[uint32]*rawGroup
	sessions map[uint32]*rawSession
	retained map[uint32]*retained
	delayed  map[uint32]*delayed
	chunks   map[uint32]*chunk
	// bodies are the slots whose body has been stored.
	bodies map[uint32]struct{}
}

type rawNode struct {
	node
	life uint32 // plus one, 0 for none
}

type rawLife struct {
	life
	node uint32
}

type rawGroup struct {
	group
	filter uint32 // plus one, 0 for none
}

type rawSession struct {
	session
	life   uint32
	subs   []rawSub
	shares []rawShare
}

type rawSub struct {
	filter uint32
	seen   uint64
	spans  []span
}

type rawShare struct {
	group uint32
	last  uint64
	id    uint32
	opts  options
}

// read reads a whole snapshot.
func (b *builder) read(r io.Reader) error {
	in := &snapshotReader{in: bufio.NewReaderSize(r, 256<<10)}
	if err := in.begin(); err != nil {
		return err
	}
	for n := uint64(0); ; n++ {
		kind, body, err := in.record()
		if err != nil {
			return err
		}
		if (n == 0) != (kind == recordHeader) {
			return fmt.Errorf("header record is not the first: %w", ErrSnapshot)
		}
		if kind == recordEnd {
			if err := in.end(body, n); err != nil {
				return err
			}
			return b.link()
		}
		if err := b.add(kind, body); err != nil {
			return fmt.Errorf("record %d of kind %d: %w", n, kind, errors.Join(err, ErrSnapshot))
		}
	}
}

// discard gives up the bodies stored by a restore that was refused.
func (b *builder) discard() {
	for i := range b.bodies {
		b.st.bodies.Free(b.chunks[i/chunkSlots].slots[i%chunkSlots].body)
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshotReader reads records and keeps the checksum.
type snapshotReader struct {
	in  *bufio.Reader
	crc uint32
	buf bytes.Buffer
}

func (r *snapshotReader) sum(b []byte) { r.crc = crc32.Update(r.crc, castagnoli, b) }

func (r *snapshotReader) begin() error {
	head := make([]byte, len(snapshotMagic)+1)
	if _, err := io.ReadFull(r.in, head); err != nil {
		return fmt.Errorf("read magic: %w", errors.Join(err, ErrSnapshot))
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return fmt.Errorf("magic %q: %w", head[:len(snapshotMagic)], ErrSnapshot)
	}
	if v := head[len(snapshotMagic)]; v != snapshotVersion {
		return fmt.Errorf("version %d: %w", v, ErrSnapshot)
	}
	r.sum(head)
	return nil
}

// record reads one record. Its body is valid until the next call. Of the end record, the checksum is not summed.
func (r *snapshotReader) record() (kind byte, body []byte, err error) {
	kind, err = r.in.ReadByte()
	if err != nil {
		return 0, nil, fmt.Errorf("snapshot ends without an end record: %w", errors.Join(err, ErrSnapshot))
	}
	length, err := binary.ReadUvarint(r.in)
	if err != nil || length > recordBytesMax || kind == recordEnd && length < 4 {
		return 0, nil, fmt.Errorf("record of kind %d and %d bytes: %w", kind, length, errors.Join(err, ErrSnapshot))
	}
	r.sum(codec.AppendUvarint([]byte{kind}, length))
	r.buf.Reset()
	// Copied as it arrives: a length alone reserves nothing.
	if _, err := io.CopyN(&r.buf, r.in, int64(length)); err != nil {
		return 0, nil, fmt.Errorf("read record of kind %d: %w", kind, errors.Join(err, ErrSnapshot))
	}
	body = r.buf.Bytes()
	if kind == recordEnd {
		r.sum(body[:len(body)-4])
	} else {
		r.sum(body)
	}
	return kind, body, nil
}

// end checks the end record: nothing may be missing, changed or left over.
func (r *snapshotReader) end(body []byte, count uint64) error {
	c := codec.NewCursor(body[:len(body)-4])
	want := c.Uvarint()
	if c.Err() != nil || c.Len() != 0 || want != count {
		return fmt.Errorf("%d records where %d were written: %w", count, want, ErrSnapshot)
	}
	if sum := binary.LittleEndian.Uint32(body[len(body)-4:]); sum != r.crc {
		return fmt.Errorf("checksum %08x, want %08x: %w", r.crc, sum, ErrSnapshot)
	}
	if _, err := r.in.ReadByte(); err != io.EOF {
		return fmt.Errorf("bytes after the end record: %w", ErrSnapshot)
	}
	return nil
}
