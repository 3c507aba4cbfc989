package wire

import (
	"encoding/binary"
	"fmt"
)

// Cursor reads fields from the front of a byte slice. It never reads beyond the
// slice and never allocates. Its first failure is kept: from then on every read
// returns a zero value, so that a decoder may read a row of fields and ask Err
// once. Slices that it returns alias the input. The zero Cursor is empty. A
// Cursor is for one goroutine.
type Cursor struct {
	b   []byte // what is left; nil after a failure
	err error
}

// NewCursor returns a Cursor at the start of b.
func NewCursor(b []byte) Cursor { return Cursor{b: b} }

// Err returns the first failure, or nil.
func (c *Cursor) Err() error { return c.err }

// Len returns how many bytes are left; 0 after a failure.
func (c *Cursor) Len() int { return len(c.b) }

// Fail makes err the Cursor's failure unless it has one, and drops what is
// left. A decoder calls it for a value that is out of its range.
func (c *Cursor) Fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

// Finish returns the first failure; input that is left over is one too.
func (c *Cursor) Finish() error {
	if c.err == nil && len(c.b) > 0 {
		return fmt.Errorf("%d bytes are left over", len(c.b))
	}
	return c.err
}

// Bytes returns the next n bytes.
func (c *Cursor) Bytes(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.Fail(ErrShort)
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

// Rest returns all that is left.
func (c *Cursor) Rest() []byte { return c.Bytes(len(c.b)) }

// Uint8 reads one byte.
func (c *Cursor) Uint8() byte {
	if len(c.b) < 1 {
		c.Fail(ErrShort)
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

// Bool reads one byte, which has to be 0 or 1.
func (c *Cursor) Bool() bool {
	v := c.Uint8()
	if v > 1 {
		c.Fail(fmt.Errorf("byte %d is neither 0 nor 1", v))
		return false
	}
	return v == 1
}

// Uint16 reads a Two Byte Integer, high byte first.
func (c *Cursor) Uint16() uint16 {
	if len(c.b) < 2 {
		c.Fail(ErrShort)
		return 0
	}
	v := binary.BigEndian.Uint16(c.b)
	c.b = c.b[2:]
	return v
}

// Uint32 reads a Four Byte Integer, highest byte first.
func (c *Cursor) Uint32() uint32 {
	if len(c.b) < 4 {
		c.Fail(ErrShort)
		return 0
	}
	v := binary.BigEndian.Uint32(c.b)
	c.b = c.b[4:]
	return v
}

// Uint64 reads an eight byte integer, highest byte first.
func (c *Cursor) Uint64() uint64 {
	if len(c.b) < 8 {
		c.Fail(ErrShort)
		return 0
	}
	v := binary.BigEndian.Uint64(c.b)
	c.b = c.b[8:]
	return v
}

// Uvarint reads an unsigned LEB128 integer in its shortest form, so that a
// value has one encoding only.
func (c *Cursor) Uvarint() uint64 {
	if len(c.b) > 0 && c.b[0] < 0x80 {
		v := c.b[0]
		c.b = c.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(c.b)
	switch {
	case n == 0:
		c.Fail(ErrShort)
		return 0
	case n < 0:
		c.Fail(ErrVarInt)
		return 0
	case c.b[n-1] == 0: // n is at least 2 here
		c.Fail(ErrNotMinimal)
		return 0
	}
	c.b = c.b[n:]
	return v
}

// Uint32V reads a uvarint that has to fit 32 bits.
func (c *Cursor) Uint32V() uint32 {
	v := c.Uvarint()
	if v > 0xFFFF_FFFF {
		c.Fail(ErrVarInt)
		return 0
	}
	return uint32(v)
}

// VarInt reads a Variable Byte Integer: at most four bytes, shortest form only
// [MQTT-1.5.5-1].
func (c *Cursor) VarInt() uint32 {
	v, n, err := VarInt(c.b)
	if err != nil {
		c.Fail(err)
		return 0
	}
	if n > 1 && c.b[n-1] == 0 {
		c.Fail(ErrNotMinimal)
		return 0
	}
	c.b = c.b[n:]
	return v
}

// Bytes16 reads bytes behind a two byte length: a UTF-8 Encoded String, whose
// content is not checked here, or Binary Data.
func (c *Cursor) Bytes16() []byte {
	b := c.b
	if len(b) >= 2 {
		if n := int(b[0])<<8 | int(b[1]); n <= len(b)-2 {
			c.b = b[2+n:]
			return b[2 : 2+n : 2+n]
		}
	}
	c.Fail(ErrShort)
	return nil
}

// BytesV reads bytes behind a uvarint length.
func (c *Cursor) BytesV() []byte {
	n := c.Uvarint()
	if n > uint64(len(c.b)) {
		c.Fail(ErrShort)
		return nil
	}
	return c.Bytes(int(n))
}

// VarInt decodes the Variable Byte Integer at the front of b and returns how
// many bytes it took. It accepts a form that is longer than needed (its last
// byte is 0 and n > 1); Cursor.VarInt does not. Errors: ErrShort when b ends
// inside it, ErrVarInt when a fourth byte asks for a fifth.
func VarInt(b []byte) (v uint32, n int, err error) {
	for n < 4 {
		if n == len(b) {
			return 0, 0, ErrShort
		}
		v |= uint32(b[n]&0x7F) << (7 * n)
		n++
		if b[n-1] < 0x80 {
			return v, n, nil
		}
	}
	return 0, 0, ErrVarInt
}
