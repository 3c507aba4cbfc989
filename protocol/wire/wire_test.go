package wire

import (
	"bytes"
	"errors"
	"math"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestVariableByteIntegersHaveTheBytesOfTable11(t *testing.T) { // section 1.5.5, [MQTT-1.5.5-1]
	for v, want := range map[uint32][]byte{
		0: {0}, 127: {0x7F}, 128: {0x80, 1}, 321: {0xC1, 2}, 16383: {0xFF, 0x7F}, 16384: {0x80, 0x80, 1},
		2097151: {0xFF, 0xFF, 0x7F}, 2097152: {0x80, 0x80, 0x80, 1}, VarIntMax: {0xFF, 0xFF, 0xFF, 0x7F},
	} {
		b := AppendVarInt(nil, v)
		if !bytes.Equal(b, want) || VarIntLen(v) != len(want) {
			t.Errorf("%d: %x (%d), want %x", v, b, VarIntLen(v), want)
		}
		c := NewCursor(b)
		if got := c.VarInt(); got != v || c.Finish() != nil {
			t.Errorf("%x is %d, %v", b, got, c.Err())
		}
	}
}

func TestBadLengthsAreRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		b    []byte
		read func(c *Cursor)
		want error
	}{
		{"variable byte integer of five bytes", []byte{0xFF, 0xFF, 0xFF, 0xFF, 0x7F}, func(c *Cursor) { c.VarInt() }, ErrVarInt},
		{"variable byte integer cut", []byte{0x80}, func(c *Cursor) { c.VarInt() }, ErrShort},
		{"variable byte integer with a needless byte", []byte{0x80, 0}, func(c *Cursor) { c.VarInt() }, ErrNotMinimal},
		{"uvarint above 64 bits", bytes.Repeat([]byte{0xFF}, 11), func(c *Cursor) { c.Uvarint() }, ErrVarInt},
		{"uvarint cut", []byte{0xFF}, func(c *Cursor) { c.Uvarint() }, ErrShort},
		{"uvarint with a needless byte", []byte{0x81, 0}, func(c *Cursor) { c.Uvarint() }, ErrNotMinimal},
		{"uvarint above 32 bits", AppendUvarint(nil, 1<<32), func(c *Cursor) { c.Uint32V() }, ErrVarInt},
		{"string cut", []byte{0, 2, 'a'}, func(c *Cursor) { c.Bytes16() }, ErrShort},
		{"string without a length", []byte{0}, func(c *Cursor) { c.Bytes16() }, ErrShort},
		{"bytes of a great length", AppendUvarint(nil, math.MaxUint64), func(c *Cursor) { c.BytesV() }, ErrShort},
		{"negative count", []byte{1}, func(c *Cursor) { c.Bytes(-1) }, ErrShort},
		{"one byte", nil, func(c *Cursor) { c.Uint8() }, ErrShort},
		{"two bytes", []byte{1}, func(c *Cursor) { c.Uint16() }, ErrShort},
		{"four bytes", []byte{1, 2, 3}, func(c *Cursor) { c.Uint32() }, ErrShort},
		{"eight bytes", []byte{1, 2, 3, 4, 5, 6, 7}, func(c *Cursor) { c.Uint64() }, ErrShort},
	} {
		cur := NewCursor(c.b)
		c.read(&cur)
		if !errors.Is(cur.Err(), c.want) || cur.Len() != 0 {
			t.Errorf("%s: %v, want %v", c.name, cur.Err(), c.want)
		}
		if cur.Uint8() != 0 || cur.Bytes16() != nil || !errors.Is(cur.Finish(), c.want) {
			t.Errorf("%s: the failure is not kept", c.name)
		}
	}
	c := NewCursor([]byte{2})
	if c.Bool(); c.Err() == nil {
		t.Error("2 is a bool")
	}
	c = NewCursor([]byte{1, 1})
	if !c.Bool() || c.Finish() == nil {
		t.Error("bytes left over are no error")
	}
}

func TestWhatIsAppendedIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c, d := rapid.Uint16().Draw(t, "a"), rapid.Uint32().Draw(t, "b"), rapid.Uint64().Draw(t, "c"), rapid.Bool().Draw(t, "d")
		e, f := rapid.SliceOf(rapid.Byte()).Draw(t, "e"), rapid.String().Draw(t, "f")
		buf := AppendBool(AppendUint64(AppendUint32(AppendUint16(nil, a), b), c), d)
		buf = AppendUvarint(AppendBytes(AppendBytes16(buf, f), e), c)
		cur := NewCursor(buf)
		if cur.Uint16() != a || cur.Uint32() != b || cur.Uint64() != c || cur.Bool() != d || string(cur.Bytes16()) != f ||
			!bytes.Equal(cur.BytesV(), e) || cur.Uvarint() != c || cur.Finish() != nil {
			t.Fatalf("%x is read differently: %v", buf, cur.Err())
		}
	})
}

func TestStringsAreWellFormedUTF8WithoutNUL(t *testing.T) {
	for _, s := range []string{"", "a", "é", "\uFEFFa", "\U0010FFFF", "\uFFFF", "\x01"} {
		if !ValidString([]byte(s)) {
			t.Errorf("%q is refused", s)
		}
	}
	for _, s := range []string{"\x00", "a\x00", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xF0\x80\x80\x80", "\xED\xA0\x80", "\xED\xBF\xBF",
		"\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\x80", "\xC3", "é\x00"} {
		if ValidString([]byte(s)) {
			t.Errorf("%x is taken", s)
		}
	}
	for _, s := range []string{"\x01", "\x1F", "\x7F", "\u0080", "\u009F", "\uFDD0", "\uFDEF", "\uFFFE", "\U0001FFFF", "\U0010FFFE", "ab\n"} {
		if !HasControl([]byte(s)) || PrintableASCII([]byte(s)) {
			t.Errorf("%q has no control character", s)
		}
	}
	for _, s := range []string{"", " ~", "\u00A0", "\uFDCF", "\uFDF0", "\uFFFD", "中🎈"} {
		if HasControl([]byte(s)) {
			t.Errorf("%q has a control character", s)
		}
	}
}

func TestTooLongIsABrokenInvariant(t *testing.T) {
	for name, f := range map[string]func(){
		"length": func() { AppendVarInt(nil, VarIntMax+1) },
		"string": func() { AppendBytes16(nil, make([]byte, 65536)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

// FuzzCursor reads any bytes in any order of fields: never beyond the end, and an
// integer that is read has one encoding only.
func FuzzCursor(f *testing.F) {
	f.Add([]byte{0x80, 1, 0, 1, 'a', 0xFF, 2, 'b', 'c'}, []byte{0, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b, script []byte) {
		c := NewCursor(b)
		for _, op := range script {
			before := c.Len()
			left := b[len(b)-before:]
			var again []byte
			switch op % 5 {
			case 0:
				again = AppendVarInt(nil, c.VarInt())
			case 1:
				again = AppendUvarint(nil, c.Uvarint())
			case 2:
				again = AppendBytes16(nil, c.Bytes16())
			case 3:
				again = AppendBytes(nil, c.BytesV())
			case 4:
				again = AppendUint64(nil, c.Uint64())
			}
			if c.Err() != nil {
				if c.Len() != 0 {
					t.Fatal("bytes are left after a failure")
				}
				return
			}
			if used := before - c.Len(); !bytes.Equal(left[:used], again) {
				t.Fatalf("%x is written again as %x", left[:used], again)
			}
		}
	})
}

func FuzzStrings(f *testing.F) {
	f.Add([]byte("a\u0085b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if ValidString(b) != (utf8.Valid(b) && !bytes.Contains(b, []byte{0})) {
			t.Errorf("%x", b)
		}
		if PrintableASCII(b) && (!ValidString(b) || HasControl(b)) {
			t.Errorf("%x is printable", b)
		}
	})
}
