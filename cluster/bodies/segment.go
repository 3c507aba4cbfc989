package bodies

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"sort"
)

// segment is one file of bodies and what of it is still in memory. All fields are guarded by Store.mu; the file's
// contents below the first chunk are immutable.
type segment struct {
	number uint64
	file   *os.File // nil until the first chunk is written
	chunks []chunk  // Invariant: contiguous, the last one ends at size; everything before the first is in file.
	size   int
	sealed bool // nothing is appended any more: the last chunk counts as full

	liveCount  int
	liveBytes  int64
	totalBytes int64

	scheduled int  // bytes [0, scheduled) were handed to the writer
	written   int  // bytes [0, written) are in the file. Invariant: written <= scheduled <= size
	queued    bool // is in Store.queue or being written
	retired   bool // nothing lives in it
}

// chunk is a part of a segment in memory. Its buffer has its final capacity from the start, so that the writer may read
// what is there while more is appended.
type chunk struct {
	offset int
	buf    []byte
}

func padded(n int) int { return (n + align - 1) &^ (align - 1) }

// room reports whether need more bytes fit into the segment's last chunk.
func (g *segment) room(need int) bool {
	last := len(g.chunks) - 1
	return last >= 0 && len(g.chunks[last].buf)+need <= cap(g.chunks[last].buf)
}

// append adds a body of need bytes with its header to the last chunk, which has room, and returns its offset.
func (g *segment) append(body []byte, need int) int {
	c := &g.chunks[len(g.chunks)-1]
	start := len(c.buf)
	c.buf = binary.LittleEndian.AppendUint32(c.buf, uint32(len(body)))
	c.buf = binary.LittleEndian.AppendUint32(c.buf, checksum(c.buf[start:start+4], body))
	c.buf = append(c.buf, body...)
	c.buf = c.buf[:start+need]
	g.size += need
	return c.offset + start
}

// full reports whether a segment has no room worth keeping it open for.
func (g *segment) full(segmentBytes int) bool { return g.size >= segmentBytes }

// fullBytes returns up to where the segment's chunks are final.
func (g *segment) fullBytes() int {
	if g.sealed || len(g.chunks) == 0 {
		return g.size
	}
	return g.chunks[len(g.chunks)-1].offset
}

// chunkAt returns what is in memory from offset on, nil if offset is in the file.
func (g *segment) chunkAt(offset int) []byte {
	i := sort.Search(len(g.chunks), func(i int) bool { return g.chunks[i].offset > offset }) - 1
	if i < 0 {
		return nil
	}
	return g.chunks[i].buf[offset-g.chunks[i].offset:]
}

// ready returns the chunks that were handed to the writer.
func (g *segment) ready() []chunk {
	n := 0
	for n < len(g.chunks) && g.chunks[n].offset+len(g.chunks[n].buf) <= g.scheduled {
		n++
	}
	return append([]chunk(nil), g.chunks[:n]...)
}

// wrote drops chunks that are now in the file and returns their size.
func (g *segment) wrote(chunks []chunk) int {
	last := chunks[len(chunks)-1]
	n := last.offset + len(last.buf) - g.written
	g.written += n
	g.chunks = append([]chunk(nil), g.chunks[len(chunks):]...)
	return n
}

func (g *segment) create(dir string) (*os.File, error) {
	path := filepath.Join(dir, fmt.Sprintf("%s%012d%s", filePrefix, g.number, fileSuffix))
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

func (g *segment) remove() error {
	if g.file == nil {
		return nil
	}
	if err := os.Remove(g.file.Name()); err != nil {
		_ = g.file.Close()
		return err
	}
	return g.file.Close()
}

// A size class is 5 bits of exponent and 3 of mantissa: sizes are rounded up by at most an eighth.

// classOf returns the smallest class that holds n bytes, n > 0.
func classOf(n int) byte {
	if n <= 8 {
		return byte(n)
	}
	shift := bits.Len(uint(n)) - 4
	mantissa := (n + 1<<shift - 1) >> shift // 8..16
	if mantissa == 16 {
		shift, mantissa = shift+1, 8
	}
	return byte((shift+1)<<3 | (mantissa - 8))
}

// classBytes returns the size of class c.
func classBytes(c byte) int {
	if c <= 8 {
		return int(c)
	}
	return int(c&7+8) << (c>>3 - 1)
}
