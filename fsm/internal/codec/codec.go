// Package codec holds the bounds-checked reading and the appending that the log commands and the snapshot share.
//
// Numbers are unsigned varints (encoding/binary), strings and byte strings carry their length in front. A Cursor
// remembers its first error, after which every read gives zero values, so that a decoder checks once at its end.
package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrShort says that the input ended inside a value.
var ErrShort = errors.New("input ends inside a value")

// ErrValue says that a value is outside its range.
var ErrValue = errors.New("value out of range")

// Cursor reads values from the front of a byte slice. The zero Cursor is empty. Not safe for concurrent use.
type Cursor struct {
	rest []byte
	err  error
}

// NewCursor returns a cursor over b; what it hands out as bytes aliases b.
func NewCursor(b []byte) Cursor { return Cursor{rest: b} }

// Err is the first error met, or nil.
func (c *Cursor) Err() error { return c.err }

// Len is the number of bytes not yet read.
func (c *Cursor) Len() int { return len(c.rest) }

// Rest is what has not been read yet.
func (c *Cursor) Rest() []byte { return c.rest }

// Fail records err unless there is an earlier one, and empties the cursor.
func (c *Cursor) Fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.rest = nil
}

// Byte reads one byte.
func (c *Cursor) Byte() byte {
	if len(c.rest) == 0 {
		c.Fail(ErrShort)
		return 0
	}
	v := c.rest[0]
	c.rest = c.rest[1:]
	return v
}

// Uvarint reads an unsigned varint of at most 64 bits. Only the shortest form is taken: one value has one encoding,
// so that what is decoded and encoded again gives the same bytes.
func (c *Cursor) Uvarint() uint64 {
	v, n := binary.Uvarint(c.rest)
	if n <= 0 {
		c.Fail(ErrShort)
		return 0
	}
	if n > 1 && c.rest[n-1] == 0 {
		c.Fail(fmt.Errorf("varint is not in its shortest form: %w", ErrValue))
		return 0
	}
	c.rest = c.rest[n:]
	return v
}

// Uint32 reads a varint that must fit 32 bits.
func (c *Cursor) Uint32() uint32 { return uint32(c.Max(1<<32 - 1)) }

// Uint16 reads a varint that must fit 16 bits.
func (c *Cursor) Uint16() uint16 { return uint16(c.Max(1<<16 - 1)) }

// Max reads a varint that must not exceed limit.
func (c *Cursor) Max(limit uint64) uint64 {
	v := c.Uvarint()
	if v > limit {
		c.Fail(fmt.Errorf("%d is above %d: %w", v, limit, ErrValue))
		return 0
	}
	return v
}

// Count reads the length of a list whose elements take at least elementBytes each, so that a list never claims more
// elements than the bytes that follow can hold (memory is reserved for bytes that have arrived).
func (c *Cursor) Count(elementBytes int) int {
	v := c.Uvarint()
	if v > uint64(len(c.rest)/elementBytes) {
		c.Fail(fmt.Errorf("list of %d: %w", v, ErrShort))
		return 0
	}
	return int(v)
}

// Take reads n bytes, which alias the input.
func (c *Cursor) Take(n uint64) []byte {
	if n > uint64(len(c.rest)) {
		c.Fail(ErrShort)
		return nil
	}
	v := c.rest[:n:n]
	c.rest = c.rest[n:]
	return v
}

// Bytes reads a length and that many bytes, which alias the input. A length of zero gives nil.
func (c *Cursor) Bytes() []byte {
	n := c.Uvarint()
	if n == 0 {
		return nil
	}
	return c.Take(n)
}

// String reads a length and that many bytes as a string of its own.
func (c *Cursor) String() string { return string(c.Bytes()) }

// AppendString appends the length of s and s.
func AppendString[T string | []byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// AppendUvarint appends v.
func AppendUvarint[T ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~int](dst []byte, v T) []byte {
	return binary.AppendUvarint(dst, uint64(v))
}
