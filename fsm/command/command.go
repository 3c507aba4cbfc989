// Package command holds one type for each command of the replicated log, with its encoding.
//
// A command is a kind byte and its fields: varints, length-prefixed strings, flag bytes. One value has exactly one
// encoding. Kinds and fields are part of the log format: kinds are only ever added, a kind's layout never changes
// (a new layout is a new kind), and testdata holds golden bytes of each. A kind that a node does not know stops it,
// because a state machine that skips what others apply has diverged.
//
// Commands travel in batches (Batch: one node's ordered stream), batches in entries (Entry: one Raft log entry with
// the leader's time stamp). The package has no state and does no I/O.
package command

import (
	"errors"
	"fmt"

	"quorate/fsm/internal/codec"
)

// NodeID is a node's Raft ServerID: the random id of its data directory, 16 hexadecimal digits.
type NodeID string

// Ref names one Network Connection's ownership of a session (P4: one owner). Slot finds the session, Epoch is the
// ownership, and never comes back. The zero Ref is nobody: an internal publisher.
type Ref struct {
	Slot  uint32
	Epoch uint64
}

// IsZero tells whether r names no connection.
func (r Ref) IsZero() bool { return r == Ref{} }

// Kind is the first byte of an encoded command.
type Kind byte

// The kinds of command. Kinds are only ever added; a number is never used again.
const (
	KindNodeUp      Kind = 1
	KindNodeDown    Kind = 2
	KindConfigure   Kind = 3
	KindConnect     Kind = 4
	KindDisconnect  Kind = 5
	KindPublish     Kind = 6
	KindRelease     Kind = 7
	KindSubscribe   Kind = 8
	KindUnsubscribe Kind = 9
	KindRoutes      Kind = 10
	KindProgress    Kind = 11
	KindSendMark    Kind = 12
	KindTick        Kind = 13
	KindKick        Kind = 14
)

// ErrUnknownKind says that the command was written by a newer version of the broker.
var ErrUnknownKind = errors.New("unknown kind of command")

// Command is what the log carries. Every command is a pointer type of this package.
type Command interface {
	// Kind tells which command it is.
	Kind() Kind
	// Append appends the whole encoding, kind byte first, to dst.
	Append(dst []byte) []byte
}

// decoder is what every command implements besides Command.
type decoder interface {
	Command
	decode(c *codec.Cursor)
}

// Decode reads one command from the front of b and says how many bytes it took. Byte slices of the command
// (payloads, properties) alias b; strings do not. Every error means that b is not what a node of a known version wrote.
func Decode(b []byte) (cmd Command, n int, err error) {
	if len(b) == 0 {
		return nil, 0, fmt.Errorf("decode command: %w", codec.ErrShort)
	}
	d := newCommand(Kind(b[0]))
	if d == nil {
		return nil, 0, fmt.Errorf("decode command of kind %d: %w", b[0], ErrUnknownKind)
	}
	n, err = decodeInto(d, b)
	if err != nil {
		return nil, 0, err
	}
	return d, n, nil
}

// DecodePublish reads a PUBLISH command from the front of b into p, which may be used again and again: the hot path
// of the machine needs no allocation but the topic's.
func DecodePublish(b []byte, p *Publish) (n int, err error) {
	if len(b) == 0 || Kind(b[0]) != KindPublish {
		return 0, fmt.Errorf("decode publish command: %w", codec.ErrValue)
	}
	c := codec.NewCursor(b[1:]) // not through the interface: the cursor stays on the stack
	p.decode(&c)
	if err := c.Err(); err != nil {
		return 0, fmt.Errorf("decode publish command: %w", err)
	}
	return len(b) - c.Len(), nil
}

func decodeInto(d decoder, b []byte) (n int, err error) {
	c := codec.NewCursor(b[1:])
	d.decode(&c)
	if err := c.Err(); err != nil {
		return 0, fmt.Errorf("decode command of kind %d: %w", b[0], err)
	}
	return len(b) - c.Len(), nil
}

func newCommand(k Kind) decoder {
	switch k {
	case KindNodeUp:
		return new(NodeUp)
	case KindNodeDown:
		return new(NodeDown)
	case KindConfigure:
		return new(Configure)
	case KindConnect:
		return new(Connect)
	case KindDisconnect:
		return new(Disconnect)
	case KindPublish:
		return new(Publish)
	case KindRelease:
		return new(Release)
	case KindSubscribe:
		return new(Subscribe)
	case KindUnsubscribe:
		return new(Unsubscribe)
	case KindRoutes:
		return new(Routes)
	case KindProgress:
		return new(Progress)
	case KindSendMark:
		return new(SendMark)
	case KindTick:
		return new(Tick)
	case KindKick:
		return new(Kick)
	}
	return nil
}

func appendKind(dst []byte, k Kind) []byte { return append(dst, byte(k)) }

func appendRef(dst []byte, r Ref) []byte {
	dst = codec.AppendUvarint(dst, r.Slot)
	return codec.AppendUvarint(dst, r.Epoch)
}

func decodeRef(c *codec.Cursor) Ref { return Ref{Slot: c.Uint32(), Epoch: c.Uvarint()} }

func appendStrings(dst []byte, list []string) []byte {
	dst = codec.AppendUvarint(dst, len(list))
	for _, s := range list {
		dst = codec.AppendString(dst, s)
	}
	return dst
}

func decodeStrings(c *codec.Cursor) []string {
	n := c.Count(1)
	if n == 0 {
		return nil
	}
	list := make([]string, 0, n)
	for range n {
		list = append(list, c.String())
	}
	return list
}

// appendSeqs writes sequences as they are: they are few, and their order is the caller's.
func appendSeqs(dst []byte, seqs []uint64) []byte {
	dst = codec.AppendUvarint(dst, len(seqs))
	for _, s := range seqs {
		dst = codec.AppendUvarint(dst, s)
	}
	return dst
}

func decodeSeqs(c *codec.Cursor) []uint64 {
	n := c.Count(1)
	if n == 0 {
		return nil
	}
	seqs := make([]uint64, 0, n)
	for range n {
		seqs = append(seqs, c.Uvarint())
	}
	return seqs
}

// flags packs up to eight booleans into a byte, the first in the lowest bit.
func flags(bits ...bool) byte {
	var f byte
	for i, b := range bits {
		if b {
			f |= 1 << i
		}
	}
	return f
}

// decodeFlags reads a flag byte and refuses bits above the used ones: they would be meant by a newer layout.
func decodeFlags(c *codec.Cursor, used int) byte {
	f := c.Byte()
	if f>>used != 0 {
		c.Fail(fmt.Errorf("flags %#x: %w", f, codec.ErrValue))
	}
	return f
}
