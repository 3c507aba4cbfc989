package command

import (
	"fmt"

	"quorate/fsm/internal/codec"
)

// EntryVersion is the first byte of every log entry.
const EntryVersion = 1

// EntryGroup is the second byte of every log entry: the Raft group it belongs to. There is one so far.
const EntryGroup = 0

// Batch is a run of commands of one node. The machine takes a node's batches in the order of their numbers, without
// gaps and each once, whatever happened to the leader in between.
type Batch struct {
	Node        NodeID
	Incarnation uint64
	// Number counts from 1 in each incarnation.
	Number uint64
	// Count is the number of commands in Commands, which holds them one after the other.
	Count    int
	Commands []byte
}

// AppendBatch appends b as it stands in an entry.
func AppendBatch(dst []byte, b *Batch) []byte {
	dst = codec.AppendString(dst, string(b.Node))
	dst = codec.AppendUvarint(dst, b.Incarnation)
	dst = codec.AppendUvarint(dst, b.Number)
	dst = codec.AppendUvarint(dst, b.Count)
	return codec.AppendString(dst, b.Commands)
}

// DecodeBatch reads one batch from the front of b and says how many bytes it took. Commands alias b and are not looked at.
func DecodeBatch(b []byte) (batch Batch, n int, err error) {
	c := codec.NewCursor(b)
	batch = decodeBatch(&c)
	if err := c.Err(); err != nil {
		return Batch{}, 0, fmt.Errorf("decode batch: %w", err)
	}
	return batch, len(b) - c.Len(), nil
}

func decodeBatch(c *codec.Cursor) Batch {
	b := Batch{Node: NodeID(c.String()), Incarnation: c.Uvarint(), Number: c.Uvarint()}
	count := c.Uvarint()
	b.Commands = c.Bytes()
	if count > uint64(len(b.Commands)) {
		c.Fail(fmt.Errorf("batch of %d commands in %d bytes: %w", count, len(b.Commands), codec.ErrValue))
		return Batch{}
	}
	b.Count = int(count)
	return b
}

// Entry is a Raft log entry: the leader's time stamp and batches, read one by one with Next.
type Entry struct {
	// Stamp is the cluster's time in milliseconds.
	Stamp uint64
	rest  codec.Cursor
}

// AppendEntryHeader appends what stands before the batches of an entry.
func AppendEntryHeader(dst []byte, stamp uint64) []byte {
	return codec.AppendUvarint(append(dst, EntryVersion, EntryGroup), stamp)
}

// DecodeEntry reads the header of an entry. Its batches alias b.
func DecodeEntry(b []byte) (Entry, error) {
	c := codec.NewCursor(b)
	if v := c.Byte(); v != EntryVersion && c.Err() == nil {
		c.Fail(fmt.Errorf("version %d: %w", v, codec.ErrValue))
	}
	if g := c.Byte(); g != EntryGroup && c.Err() == nil {
		c.Fail(fmt.Errorf("group %d: %w", g, codec.ErrValue))
	}
	e := Entry{Stamp: c.Uvarint()}
	if err := c.Err(); err != nil {
		return Entry{}, fmt.Errorf("decode entry: %w", err)
	}
	e.rest = c
	return e, nil
}

// Next reads the next batch; ok is false at the end of the entry.
func (e *Entry) Next() (batch Batch, ok bool, err error) {
	if e.rest.Len() == 0 {
		return Batch{}, false, nil
	}
	batch = decodeBatch(&e.rest)
	if err := e.rest.Err(); err != nil {
		return Batch{}, false, fmt.Errorf("decode batch of entry: %w", err)
	}
	return batch, true, nil
}
