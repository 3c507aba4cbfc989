package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame is
//
//	4 bytes  length of what follows, big endian: 2 + len(payload)
//	1 byte   kind
//	1 byte   Raft group, 0 today
//	...      payload
const (
	frameHeaderBytes = 6
	// PayloadBytesMax is the largest payload of a frame; Send refuses a larger one, and a peer that announces one is
	// cut off before anything is reserved for it.
	PayloadBytesMax = 16 << 20

	readBufferBytes    = 64 << 10
	readBufferKeepMax  = 256 << 10
	readBufferBytesMax = frameHeaderBytes + PayloadBytesMax
)

var errFrame = errors.New("malformed frame")

// appendFrame appends one frame to dst. len(payload) must not exceed PayloadBytesMax.
func appendFrame(dst []byte, kind, group byte, payload []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(2+len(payload)))
	dst = append(dst, kind, group)
	return append(dst, payload...)
}

// frameReader cuts a byte stream into frames. Its buffer grows only with bytes that have arrived and shrinks again once
// a large frame is through.
type frameReader struct {
	r          io.Reader
	buf        []byte
	start, end int // Invariant: buf[start:end] is read and not yet returned.
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{r: r, buf: make([]byte, readBufferBytes)}
}

// next returns the next frame. The payload is valid until the following call. The error is io.EOF only at a frame
// border.
func (f *frameReader) next() (kind, group byte, payload []byte, err error) {
	for {
		have := f.buf[f.start:f.end]
		if len(have) >= 4 {
			length := binary.BigEndian.Uint32(have)
			if length < 2 || length > 2+PayloadBytesMax {
				return 0, 0, nil, fmt.Errorf("%w: length %d", errFrame, length)
			}
			total := 4 + int(length)
			if len(have) >= total {
				f.start += total
				return have[4], have[5], have[frameHeaderBytes:total:total], nil
			}
		}
		if err := f.fill(); err != nil {
			if err == io.EOF && f.end > f.start {
				err = io.ErrUnexpectedEOF
			}
			return 0, 0, nil, err
		}
	}
}

// fill reads once more, making room first.
func (f *frameReader) fill() error {
	if f.start == f.end {
		f.start, f.end = 0, 0
		if len(f.buf) > readBufferKeepMax {
			f.buf = make([]byte, readBufferBytes)
		}
	}
	if f.end == len(f.buf) {
		if f.start > 0 {
			f.end = copy(f.buf, f.buf[f.start:f.end])
			f.start = 0
		} else {
			grown := make([]byte, min(2*len(f.buf), readBufferBytesMax))
			copy(grown, f.buf)
			f.buf = grown
		}
	}
	n, err := f.r.Read(f.buf[f.end:])
	f.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}
