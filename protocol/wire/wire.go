// Package wire is the byte level under every codec of Quorate: a bounds-checked
// Cursor that reads, and Append functions that write. It knows the encodings
// that MQTT 5.0 section 1.5 defines (Two and Four Byte Integers, Variable Byte
// Integers, UTF-8 Encoded Strings, Binary Data) and the ones that the log and
// the frames between nodes use (uvarints, byte strings with a uvarint length).
//
// It is not a framework: there is no reflection and no schema. Formats that need
// versions, kinds or checksums put them on top.
package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"unicode/utf8"
)

// VarIntMax is the largest value of a Variable Byte Integer (four bytes of
// seven bits), and so the largest Remaining Length. [MQTT-1.5.5-1]
const VarIntMax = 268_435_455

// What can be wrong with bytes. A Cursor reports the first of them; compare
// with errors.Is.
var (
	// ErrShort says that a field reaches beyond the end of the input.
	ErrShort = errors.New("input ends inside a field")
	// ErrVarInt says that a variable-length integer is longer than its limit.
	ErrVarInt = errors.New("variable-length integer is too long")
	// ErrNotMinimal says that a variable-length integer has needless bytes.
	ErrNotMinimal = errors.New("variable-length integer is not in its shortest form")
)

// AppendUint16 appends v in two bytes, the high one first.
func AppendUint16(dst []byte, v uint16) []byte { return append(dst, byte(v>>8), byte(v)) }

// AppendUint32 appends v in four bytes, the highest first.
func AppendUint32(dst []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(dst, v) }

// AppendUint64 appends v in eight bytes, the highest first.
func AppendUint64(dst []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(dst, v) }

// AppendUvarint appends v as an unsigned LEB128 integer (1 to 10 bytes), as
// encoding/binary does.
func AppendUvarint(dst []byte, v uint64) []byte { return binary.AppendUvarint(dst, v) }

// AppendVarInt appends v as a Variable Byte Integer in its shortest form
// [MQTT-1.5.5-1]. It panics above VarIntMax: the caller bounds its lengths.
func AppendVarInt(dst []byte, v uint32) []byte {
	if v > VarIntMax {
		panic("wire: variable byte integer out of range")
	}
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

// VarIntLen returns how many bytes AppendVarInt writes for v.
func VarIntLen(v uint32) int {
	switch {
	case v < 1<<7:
		return 1
	case v < 1<<14:
		return 2
	case v < 1<<21:
		return 3
	}
	return 4
}

// AppendBytes16 appends b behind a two byte length, which is both the UTF-8
// Encoded String and the Binary Data of MQTT. It panics above 65,535 bytes.
func AppendBytes16[T ~string | ~[]byte](dst []byte, b T) []byte {
	if len(b) > 0xFFFF {
		panic("wire: string of more than 65535 bytes")
	}
	return append(AppendUint16(dst, uint16(len(b))), b...)
}

// AppendBytes appends b behind its length as a uvarint.
func AppendBytes[T ~string | ~[]byte](dst []byte, b T) []byte {
	return append(AppendUvarint(dst, uint64(len(b))), b...)
}

// AppendBool appends 1 for true and 0 for false.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// PrintableASCII reports whether every byte of s is from U+0020 to U+007E: then it
// is valid and needs neither ValidString nor HasControl.
func PrintableASCII(s []byte) bool {
	for _, b := range s {
		if b-0x20 > 0x7E-0x20 {
			return false
		}
	}
	return true
}

// ValidString reports whether s is a UTF-8 Encoded String as section 1.5.4 has
// it: well-formed, without surrogates [MQTT-1.5.4-1] and without U+0000
// [MQTT-1.5.4-2]. The byte order mark is a character like others [MQTT-1.5.4-3].
func ValidString(s []byte) bool { return bytes.IndexByte(s, 0) < 0 && utf8.Valid(s) }

// HasControl reports whether well-formed s holds a control character (U+0001 to
// U+001F, U+007F to U+009F) or a noncharacter (U+FDD0 to U+FDEF, U+xxFFFE,
// U+xxFFFF), which a receiver may refuse (MQTT 5.0 section 1.5.4).
func HasControl(s []byte) bool {
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			if b < 0x20 || b == 0x7F {
				return true
			}
			i++
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		if r <= 0x9F || (r >= 0xFDD0 && r <= 0xFDEF) || r&0xFFFE == 0xFFFE {
			return true
		}
		i += size
	}
	return false
}
