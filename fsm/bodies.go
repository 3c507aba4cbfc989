package fsm

import "errors"

// BodyRef is an opaque place of a message body. It is the node's own: it is never in a command, the digest or a snapshot.
type BodyRef uint64

// ErrFreed is what Bodies.Get returns for a body that was freed meanwhile.
var ErrFreed = errors.New("message body was freed")

// Bodies keeps the bodies of messages. All methods are safe for concurrent use. An implementation that cannot write, or
// reads a damaged body, ends the process: the state would be a lie.
type Bodies interface {
	// Put stores a copy of body. Retained says that it will probably stay for long. In the common case Put does not wait
	// for a disk.
	Put(body []byte, retained bool) BodyRef
	// Get appends the body to dst. The error is ErrFreed when it was freed and nothing pins it.
	Get(ref BodyRef, dst []byte) ([]byte, error)
	// Free gives a body up.
	Free(ref BodyRef)
	// Pin keeps everything stored now readable, also when freed later, until unpin is called.
	Pin() (unpin func())
	// Reset gives up everything.
	Reset()
}
