package codec

import (
	"bytes"
	"errors"
	"testing"
)

func TestEveryValueIsReadAsItWasWritten(t *testing.T) {
	var b []byte
	for _, v := range []uint64{0, 1, 127, 128, 1<<32 - 1, 1<<64 - 1} {
		b = AppendUvarint(b, v)
	}
	b = AppendString(b, "text")
	b = AppendString(b, []byte{1, 2})
	b = append(b, 9)
	c := NewCursor(b)
	for _, want := range []uint64{0, 1, 127, 128, 1<<32 - 1, 1<<64 - 1} {
		if got := c.Uvarint(); got != want {
			t.Fatalf("%d, want %d", got, want)
		}
	}
	if s := c.String(); s != "text" {
		t.Fatalf("%q", s)
	}
	if s := c.Bytes(); !bytes.Equal(s, []byte{1, 2}) {
		t.Fatalf("%x", s)
	}
	if v := c.Byte(); v != 9 || c.Len() != 0 || c.Err() != nil {
		t.Fatalf("%d, %d left, %v", v, c.Len(), c.Err())
	}
}

func TestACursorKeepsItsFirstErrorAndReadsNothingMore(t *testing.T) {
	c := NewCursor([]byte{5, 1, 2})
	if b := c.Bytes(); b != nil || !errors.Is(c.Err(), ErrShort) {
		t.Fatalf("%x %v", b, c.Err())
	}
	c.Fail(ErrValue)
	if c.Byte() != 0 || c.Uvarint() != 0 || c.String() != "" || errors.Is(c.Err(), ErrValue) || c.Len() != 0 {
		t.Fatalf("%v", c.Err())
	}
}

func TestValuesOutsideTheirRangeAreErrors(t *testing.T) {
	f := func(b []byte, read func(c *Cursor), want error) {
		t.Helper()
		c := NewCursor(b)
		read(&c)
		if !errors.Is(c.Err(), want) {
			t.Fatalf("%x: %v", b, c.Err())
		}
	}
	f([]byte{0x80, 0x80, 0x04}, func(c *Cursor) { c.Uint16() }, ErrValue)
	f([]byte{0x80, 0x80, 0x80, 0x80, 0x10}, func(c *Cursor) { c.Uint32() }, ErrValue)
	f([]byte{0x80, 0x00}, func(c *Cursor) { c.Uvarint() }, ErrValue)
	f([]byte{0x80}, func(c *Cursor) { c.Uvarint() }, ErrShort)
	f(bytes.Repeat([]byte{0xFF}, 11), func(c *Cursor) { c.Uvarint() }, ErrShort)
	f([]byte{3, 1, 2}, func(c *Cursor) { c.Count(1) }, ErrShort)
	f([]byte{2, 1, 2}, func(c *Cursor) { c.Count(2) }, ErrShort)
}
