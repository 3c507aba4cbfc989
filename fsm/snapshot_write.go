package fsm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"quorate/fsm/internal/codec"
)

const (
	// sweepRecords and sweepBytes bound what the writer takes under one hold of the machine's lock: well under 1 ms.
	sweepRecords = 512
	sweepBytes   = 256 << 10
	// sweepScan bounds the cells looked at under one hold.
	sweepScan = 8192
	// chunkCost is what copying a message chunk counts for in sweepBytes.
	chunkCost = chunkSlots * 8
)

// errWritten says that a snapshot is written once only.
var errWritten = errors.New("snapshot has been written or released")

// WriteTo writes the snapshot while Apply goes on, reading message bodies as they were when it began.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	if s.written || s.unpin == nil {
		return 0, errWritten
	}
	s.written = true
	out := newSnapshotWriter(w, s.st.bodies)
	out.begin(s.header)
	for table := range tables {
		for i := uint32(0); i < s.cells[table] && out.err == nil; {
			i = s.sweep(table, i, out)
			s.between()
		}
	}
	// What was captured after the sweep passed its table has been written with the next sweep; this is the last of it.
	s.m.mu.Lock()
	if s.st.snap == s {
		s.st.snap = nil
	}
	rest := s.captured
	s.captured = nil
	s.m.mu.Unlock()
	out.records(rest)
	return out.end()
}

// sweep takes some cells of a table from i on, and writes them and what Apply has captured meanwhile.
func (s *Snapshot) sweep(table int, i uint32, out *snapshotWriter) uint32 {
	out.taken = out.taken[:0]
	end := min(s.cells[table], i+sweepScan)
	s.m.mu.Lock()
	bytes := 0
	for ; i < end && len(out.taken) < s.records && bytes < sweepBytes; i++ {
		if r, ok := s.st.take(table, i); ok {
			out.taken = append(out.taken, r)
			bytes += len(r.body) + 24*len(r.list.chunks)
			if r.chunk != nil {
				bytes += chunkCost
			}
		}
	}
	captured := s.captured
	s.captured = nil
	s.m.mu.Unlock()
	out.records(captured)
	out.records(out.taken)
	clear(out.taken)
	return i
}

// snapshotWriter writes records and keeps the first error.
type snapshotWriter struct {
	out    *bufio.Writer
	crc    hash.Hash32
	bodies Bodies
	count  uint64
	bytes  int64
	err    error
	// taken, buf and body are used again.
	taken []record
	buf   []byte
	body  []byte
}

func newSnapshotWriter(w io.Writer, bodies Bodies) *snapshotWriter {
	return &snapshotWriter{out: bufio.NewWriterSize(w, 256<<10), crc: crc32.New(crc32.MakeTable(crc32.Castagnoli)), bodies: bodies}
}

func (w *snapshotWriter) write(parts ...[]byte) {
	for _, p := range parts {
		if w.err != nil {
			return
		}
		w.crc.Write(p)
		n, err := w.out.Write(p)
		w.bytes += int64(n)
		w.err = err
	}
}

func (w *snapshotWriter) begin(header []byte) {
	w.write([]byte(snapshotMagic), []byte{snapshotVersion})
	w.record(recordHeader, header)
}

// record writes one record, whose body may come in parts.
func (w *snapshotWriter) record(kind byte, parts ...[]byte) {
	length := 0
	for _, p := range parts {
		length += len(p)
	}
	w.write(codec.AppendUvarint([]byte{kind}, length))
	w.write(parts...)
	w.count++
}

func (w *snapshotWriter) records(list []record) {
	for i := range list {
		r := &list[i]
		switch r.kind {
		case recordChunk:
			w.chunk(r)
		case recordFilter:
			w.record(r.kind, r.body)
			w.slots(recordFilterSlots, r)
		case recordGroup:
			w.record(r.kind, r.body)
			w.slots(recordGroupSlots, r)
		default:
			w.record(r.kind, r.body)
		}
		if w.err != nil {
			return
		}
	}
}

// slots writes the list of a filter or group.
func (w *snapshotWriter) slots(kind byte, r *record) {
	n := 0
	w.buf = codec.AppendUvarint(w.buf[:0], r.index)
	r.list.all(func(slot uint32) {
		w.buf = codec.AppendUvarint(w.buf, slot)
		n++
		if n%listSlotsMax == 0 {
			w.record(kind, w.buf)
			w.buf = codec.AppendUvarint(w.buf[:0], r.index)
		}
	})
	if n%listSlotsMax != 0 {
		w.record(kind, w.buf)
	}
}

// chunk writes a message chunk and the bodies of its slots.
func (w *snapshotWriter) chunk(r *record) {
	w.buf = appendChunk(w.buf[:0], r.index, r.chunk)
	w.record(recordChunk, w.buf)
	for i := range r.chunk.slots {
		s := &r.chunk.slots[i]
		if s.refs == 0 || s.is(slotGone) {
			continue
		}
		body, err := w.bodies.Get(s.body, w.body[:0])
		if err != nil {
			w.err = fmt.Errorf("read message body of sequence %d: %w", s.seq, err)
			return
		}
		w.body = body
		w.record(recordBody, codec.AppendUvarint(nil, r.index*chunkSlots+uint32(i)), body)
		if w.err != nil {
			return
		}
	}
}

// end writes the end record.
func (w *snapshotWriter) end() (int64, error) {
	if w.err == nil {
		body := codec.AppendUvarint(nil, w.count)
		w.write(codec.AppendUvarint([]byte{recordEnd}, len(body)+4), body)
		w.write(binary.LittleEndian.AppendUint32(nil, w.crc.Sum32()))
	}
	if w.err == nil {
		w.err = w.out.Flush()
	}
	if w.err != nil {
		return w.bytes, fmt.Errorf("write snapshot: %w", w.err)
	}
	return w.bytes, nil
}
