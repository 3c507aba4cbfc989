// Package bodies keeps message bodies in append-only segment files, so that a queued message costs memory for its place
// only. It implements fsm.Bodies.
//
// The files are scratch. Nothing is synced and nothing is read back at start: the Raft log and its snapshots hold every
// body, and a restarted node writes them anew. What is promised is only this: what Get returns is what Put was given,
// checked with CRC32C, and a failed write or a damaged body ends the process (Options.Fatal), because a state machine
// that lost a body silently would be a lie.
//
// # Layout
//
// A segment is one file of bodies, each a header (4 bytes length, 4 bytes CRC32C of length and body, little endian) and
// the body, padded to 8 bytes. Bodies that will stay for long (retained messages) have segments of their own, so that
// they do not keep the short-lived ones around. Put appends to a chunk in memory; full chunks are written by one
// goroutine, and a segment that empties before never touches the disk. A segment file is removed when nothing in it
// lives any more. Victim names a segment that is mostly dead; its owner (the machine) stores the rest anew and frees the
// old places.
//
// # A reference
//
// Bits 63..29 are the segment, 28..8 the offset in 8-byte units, 7..0 the size class, a rounded-up size, so that a body
// is read in one go and freed without reading. Segments are never numbered twice. Zero is no reference.
//
// # Why not the obvious other way
//
// Bodies in bbolt cost 20 to 60 times the time per message. A map of byte slices costs 360 bytes a message and a garbage
// collection of seconds. A mapped file turns a read error into a signal that kills the process without a word.
package bodies

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"quorate/fsm"
)

const (
	headerBytes  = 8
	align        = 8
	offsetBits   = 21
	classBits    = 8
	segmentShift = offsetBits + classBits

	// SegmentBytesLimit is the largest SegmentBytes that a reference can address.
	SegmentBytesLimit = align << offsetBits

	filePrefix, fileSuffix = "bodies-", ".seg"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Options tune a Store. Start from Default.
type Options struct {
	// SegmentBytes is the size of a segment file; a larger body gets one of its own. At most SegmentBytesLimit.
	SegmentBytes int
	// ChunkBytes is what is gathered in memory before it is written.
	ChunkBytes int
	// UnwrittenBytesMax bounds full chunks that wait for the disk; beyond it Put waits.
	UnwrittenBytesMax int
	// VictimLiveBelow is the live share under which a full segment is worth moving, in (0, 1).
	VictimLiveBelow float64
	// Fatal is told of a failed write or a damaged body and must not return in production: it ends the process. Nil
	// panics.
	Fatal func(error)
}

// Default returns the production settings.
func Default() Options {
	return Options{
		SegmentBytes:      SegmentBytesLimit,
		ChunkBytes:        256 << 10,
		UnwrittenBytesMax: 64 << 20,
		VictimLiveBelow:   0.25,
	}
}

func (o *Options) validate() error {
	switch {
	case o.SegmentBytes < 4096 || o.SegmentBytes > SegmentBytesLimit:
		return fmt.Errorf("segment size %d: want 4096 to %d", o.SegmentBytes, SegmentBytesLimit)
	case o.ChunkBytes < 512 || o.ChunkBytes > o.SegmentBytes:
		return fmt.Errorf("chunk size %d: want 512 to the segment size", o.ChunkBytes)
	case o.UnwrittenBytesMax < o.ChunkBytes:
		return fmt.Errorf("unwritten bytes %d: want at least one chunk", o.UnwrittenBytesMax)
	case o.VictimLiveBelow <= 0 || o.VictimLiveBelow >= 1:
		return fmt.Errorf("victim share %v: want between 0 and 1", o.VictimLiveBelow)
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) { panic(err) }
	}
	return nil
}

// Store keeps bodies on disk. All methods are safe for concurrent use.
type Store struct {
	dir string
	opt Options

	mu        sync.RWMutex
	roomy     sync.Cond // on mu: unwritten shrank, or the store closed
	segments  map[uint64]*segment
	active    [2]*segment // by retained
	next      uint64      // the next segment's number
	unwritten int         // bytes in full chunks that wait for the disk
	pins      pins
	zombies   []zombie // empty segments that a pin still protects
	doomed    []*segment
	queue     []*segment // segments with full chunks to write
	spares    [][]byte   // Invariant: at most sparesMax, empty, of ChunkBytes each
	closed    bool

	work chan struct{} // cap 1: the writer has something to do
	done chan struct{}

	liveBytes, liveCount atomic.Int64
}

var _ fsm.Bodies = (*Store)(nil)

// Open makes dir if needed, deletes the segments an earlier process left there, unread, and returns an empty Store.
func Open(dir string, opt Options) (*Store, error) {
	if err := opt.validate(); err != nil {
		return nil, fmt.Errorf("message bodies: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("message bodies: %w", err)
	}
	if err := removeSegments(dir); err != nil {
		return nil, fmt.Errorf("message bodies: %w", err)
	}
	s := &Store{
		dir: dir, opt: opt, segments: make(map[uint64]*segment), next: 1,
		work: make(chan struct{}, 1), done: make(chan struct{}),
	}
	s.roomy.L = &s.mu
	go s.write()
	return s, nil
}

func removeSegments(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filePrefix) && strings.HasSuffix(e.Name(), fileSuffix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Put stores a copy of body and returns its place. It waits for the disk only when UnwrittenBytesMax is reached.
func (s *Store) Put(body []byte, retained bool) fsm.BodyRef {
	need := padded(headerBytes + len(body))
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.unwritten > s.opt.UnwrittenBytesMax && !s.closed {
		s.roomy.Wait()
	}
	seg := s.activeFor(need, retained)
	if !seg.room(need) {
		seg.chunks = append(seg.chunks, chunk{offset: seg.size, buf: s.buffer(need)})
	}
	offset := seg.append(body, need)
	class := classOf(headerBytes + len(body))
	seg.liveCount++
	seg.liveBytes += int64(classBytes(class))
	seg.totalBytes += int64(classBytes(class))
	s.liveCount.Add(1)
	s.liveBytes.Add(int64(classBytes(class)))
	if seg.full(s.opt.SegmentBytes) {
		s.seal(retained)
	}
	s.schedule(seg)
	return fsm.BodyRef(seg.number<<segmentShift | uint64(offset/align)<<classBits | uint64(class))
}

// sparesMax bounds the written chunks kept for reuse: without them each byte put is one more to collect
// (BenchmarkPutAndFree256: 268 B/op without, 95 with).
const sparesMax = 8

// buffer returns an empty chunk buffer for need bytes. The caller holds s.mu.
func (s *Store) buffer(need int) []byte {
	if n := len(s.spares); n > 0 && need <= s.opt.ChunkBytes {
		b := s.spares[n-1]
		s.spares = s.spares[:n-1]
		return b
	}
	return make([]byte, 0, max(s.opt.ChunkBytes, need))
}

// recycle keeps the buffers of chunks that nobody reads any more. The caller holds s.mu.
func (s *Store) recycle(chunks []chunk) {
	for _, c := range chunks {
		if cap(c.buf) == s.opt.ChunkBytes && len(s.spares) < sparesMax {
			s.spares = append(s.spares, c.buf[:0])
		}
	}
}

// activeFor returns the segment that takes need more bytes. The caller holds s.mu.
func (s *Store) activeFor(need int, retained bool) *segment {
	seg := s.active[index(retained)]
	if seg != nil && seg.size+need > s.opt.SegmentBytes {
		s.seal(retained)
		seg = nil
	}
	if seg == nil {
		seg = &segment{number: s.next}
		s.next++
		s.segments[seg.number] = seg
		s.active[index(retained)] = seg
	}
	return seg
}

// seal ends the active segment: its last chunk is full, whatever its size. The caller holds s.mu.
func (s *Store) seal(retained bool) {
	seg := s.active[index(retained)]
	s.active[index(retained)] = nil
	seg.sealed = true
	s.schedule(seg)
	if seg.liveCount == 0 {
		s.retire(seg)
	}
}

// schedule hands full chunks of seg to the writer. The caller holds s.mu.
func (s *Store) schedule(seg *segment) {
	n := seg.fullBytes()
	if n == seg.scheduled {
		return
	}
	s.unwritten += n - seg.scheduled
	seg.scheduled = n
	if !seg.queued {
		seg.queued = true
		s.queue = append(s.queue, seg)
	}
	s.signal()
}

func (s *Store) signal() {
	select {
	case s.work <- struct{}{}:
	default:
	}
}

func index(retained bool) int {
	if retained {
		return 1
	}
	return 0
}

// Get appends the body at ref to dst. The error is fsm.ErrFreed when its segment is gone; a body that was freed while
// its segment lives on may still be returned, whole.
func (s *Store) Get(ref fsm.BodyRef, dst []byte) ([]byte, error) {
	offset := int(ref>>classBits) & (1<<offsetBits - 1) * align
	size := classBytes(byte(ref))
	s.mu.RLock()
	seg := s.segments[uint64(ref)>>segmentShift]
	if seg == nil {
		s.mu.RUnlock()
		return dst, fsm.ErrFreed
	}
	if chunk := seg.chunkAt(offset); chunk != nil {
		out, err := appendBody(dst, chunk)
		s.mu.RUnlock()
		return out, s.checked(ref, err)
	}
	file := seg.file
	s.mu.RUnlock()

	start := len(dst)
	dst = grow(dst, size)
	n, err := file.ReadAt(dst[start:], int64(offset))
	if errors.Is(err, os.ErrClosed) {
		return dst[:start], fsm.ErrFreed
	}
	body, err := bodyOf(dst[start:start+n], err)
	if err != nil {
		return dst[:start], s.checked(ref, err)
	}
	return dst[:start+copy(dst[start:], body)], nil
}

// checked ends the process for a body that cannot be read.
func (s *Store) checked(ref fsm.BodyRef, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("message body %#x in %s: %w", uint64(ref), s.dir, err)
	s.opt.Fatal(err)
	return err
}

func grow(dst []byte, n int) []byte {
	if cap(dst)-len(dst) < n {
		bigger := make([]byte, len(dst), len(dst)+n)
		copy(bigger, dst)
		dst = bigger
	}
	return dst[:len(dst)+n]
}

var errDamaged = errors.New("damaged")

// bodyOf checks a header and the body behind it. readErr is what reading b said; it counts only if b is too short.
func bodyOf(b []byte, readErr error) ([]byte, error) {
	if len(b) < headerBytes {
		return nil, errors.Join(fmt.Errorf("%w: no header", errDamaged), readErr)
	}
	length := int(binary.LittleEndian.Uint32(b))
	if length > len(b)-headerBytes {
		return nil, errors.Join(fmt.Errorf("%w: %d of %d bytes", errDamaged, len(b)-headerBytes, length), readErr)
	}
	body := b[headerBytes : headerBytes+length]
	if checksum(b[:4], body) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, fmt.Errorf("%w: checksum does not match", errDamaged)
	}
	return body, nil
}

func appendBody(dst, b []byte) ([]byte, error) {
	body, err := bodyOf(b, nil)
	if err != nil {
		return dst, err
	}
	return append(dst, body...), nil
}

func checksum(length, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, body)
}

// Free gives the body at ref up. Freeing a body twice is a broken invariant that is noticed only when its segment's
// count falls below zero.
func (s *Store) Free(ref fsm.BodyRef) {
	size := int64(classBytes(byte(ref)))
	s.mu.Lock()
	defer s.mu.Unlock()
	seg := s.segments[uint64(ref)>>segmentShift]
	if seg == nil || seg.retired {
		return // Reset came between
	}
	seg.liveCount--
	seg.liveBytes -= size
	s.liveCount.Add(-1)
	s.liveBytes.Add(-size)
	if seg.liveCount < 0 {
		panic(fmt.Sprintf("bodies: segment %d: a body was freed twice", seg.number))
	}
	if seg.liveCount == 0 && seg.sealed {
		s.retire(seg)
	}
}

// Reset gives everything up. Bodies that a pin protects stay readable until it is released.
func (s *Store) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = [2]*segment{}
	for _, seg := range s.segments {
		if !seg.retired {
			seg.sealed = true
			s.liveCount.Add(-int64(seg.liveCount))
			s.liveBytes.Add(-seg.liveBytes)
			s.retire(seg)
		}
	}
}

// Victim returns a test for the places in one full segment of which little lives, or false when no segment is worth it.
// The caller stores what it holds there anew and frees the old places; the segment then disappears.
func (s *Store) Victim() (func(fsm.BodyRef) bool, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var best *segment
	share := s.opt.VictimLiveBelow
	for _, seg := range s.segments {
		if !seg.sealed || seg.retired {
			continue
		}
		if live := float64(seg.liveBytes) / float64(max(seg.totalBytes, 1)); live < share {
			best, share = seg, live
		}
	}
	if best == nil {
		return nil, false
	}
	number := best.number
	return func(ref fsm.BodyRef) bool { return uint64(ref)>>segmentShift == number }, true
}

// Stats describe what a Store holds.
type Stats struct {
	// Bodies and LiveBytes are what was put and not freed (sizes rounded up by at most an eighth).
	Bodies, LiveBytes int64
	// Segments and FileBytes are what is on disk or will be.
	Segments  int
	FileBytes int64
	// UnwrittenBytes wait for the disk.
	UnwrittenBytes int
}

// Stats returns what the store holds.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := Stats{Bodies: s.liveCount.Load(), LiveBytes: s.liveBytes.Load(), Segments: len(s.segments), UnwrittenBytes: s.unwritten}
	for _, seg := range s.segments {
		st.FileBytes += int64(seg.size)
	}
	return st
}

// Close waits for the writer, and closes and removes all files. It may be called twice. Nothing may be put afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.roomy.Broadcast()
	s.mu.Unlock()
	s.signal()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for number, seg := range s.segments {
		errs = append(errs, seg.remove())
		delete(s.segments, number)
	}
	return errors.Join(errs...)
}
