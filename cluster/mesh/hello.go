package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"quorate/fsm/command"
)

// Hello is what each side of a peer connection says about itself before anything else travels.
type Hello struct {
	// ClusterID names the cluster; empty for a server that belongs to none yet.
	ClusterID string
	// ServerID is the data directory's random id, the Raft ServerID.
	ServerID command.NodeID
	// Wanted is the server the sender means to speak to. A connection that reached another one is closed.
	Wanted command.NodeID
	// Name is the human name, a label only.
	Name string
	// Addr is where the sender can be reached ("host:port").
	Addr string
	// Incarnation counts the starts of this data directory.
	Incarnation uint64
	// DurableIndex is the last log index the sender has on disk. Above 1 it proves that its cluster once had a leader:
	// the entry of a bootstrap is 1, and only a leader appends a second.
	DurableIndex uint64
}

// Formed reports whether the sender's cluster is known to have had a leader.
func (h Hello) Formed() bool { return h.ClusterID != "" && h.DurableIndex > 1 }

// The hello on the wire:
//
//	1 byte   version (1)
//	2 bytes  length of the rest, big endian
//	         cluster id, server id, wanted server id, name, address: each 1 byte length and that many bytes
//	         incarnation, durable index: 8 bytes each, big endian
//	         (later versions append; a reader ignores what it does not know)
//
// and the answer: 1 byte verdict (0 = welcome, else a Refusal), the answerer's hello, 2 bytes length and a reason text.
const (
	helloVersion   = 1
	helloFieldMax  = 255
	helloBytesMax  = 4096
	reasonBytesMax = 512
)

var errHello = errors.New("malformed hello")

// appendHello appends the encoding of h. Fields longer than 255 bytes are cut: New and the handshake refuse them first.
func appendHello(dst []byte, h Hello) []byte {
	dst = append(dst, helloVersion, 0, 0)
	start := len(dst)
	for _, s := range []string{h.ClusterID, string(h.ServerID), string(h.Wanted), h.Name, h.Addr} {
		s = s[:min(len(s), helloFieldMax)]
		dst = append(dst, byte(len(s)))
		dst = append(dst, s...)
	}
	dst = binary.BigEndian.AppendUint64(dst, h.Incarnation)
	dst = binary.BigEndian.AppendUint64(dst, h.DurableIndex)
	binary.BigEndian.PutUint16(dst[start-2:], uint16(len(dst)-start))
	return dst
}

// readHello reads one hello and not a byte more.
func readHello(r io.Reader) (Hello, error) {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Hello{}, fmt.Errorf("read hello: %w", err)
	}
	if head[0] == 0 {
		return Hello{}, fmt.Errorf("%w: version 0", errHello)
	}
	n := int(binary.BigEndian.Uint16(head[1:]))
	if n > helloBytesMax {
		return Hello{}, fmt.Errorf("%w: %d bytes", errHello, n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return Hello{}, fmt.Errorf("read hello: %w", err)
	}
	return parseHello(body)
}

func parseHello(body []byte) (Hello, error) {
	var fields [5]string
	for i := range fields {
		if len(body) < 1 || len(body) < 1+int(body[0]) {
			return Hello{}, fmt.Errorf("%w: short field %d", errHello, i)
		}
		fields[i] = string(body[1 : 1+int(body[0])])
		body = body[1+int(body[0]):]
	}
	if len(body) < 16 {
		return Hello{}, fmt.Errorf("%w: short counters", errHello)
	}
	h := Hello{
		ClusterID:    fields[0],
		ServerID:     command.NodeID(fields[1]),
		Wanted:       command.NodeID(fields[2]),
		Name:         fields[3],
		Addr:         fields[4],
		Incarnation:  binary.BigEndian.Uint64(body),
		DurableIndex: binary.BigEndian.Uint64(body[8:]),
	}
	if h.ServerID == "" {
		return Hello{}, fmt.Errorf("%w: no server id", errHello)
	}
	return h, nil
}

// answer is the accepting side's reply to a hello.
type answer struct {
	verdict Refusal
	hello   Hello
	reason  string
}

func appendAnswer(dst []byte, a answer) []byte {
	dst = append(dst, byte(a.verdict))
	dst = appendHello(dst, a.hello)
	reason := a.reason[:min(len(a.reason), reasonBytesMax)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(reason)))
	return append(dst, reason...)
}

// readAnswer reads one answer and not a byte more.
func readAnswer(r io.Reader) (answer, error) {
	var a answer
	var one [1]byte
	if _, err := io.ReadFull(r, one[:]); err != nil {
		return a, fmt.Errorf("read answer to hello: %w", err)
	}
	a.verdict = Refusal(one[0])
	h, err := readHello(r)
	if err != nil {
		return a, err
	}
	a.hello = h
	var two [2]byte
	if _, err := io.ReadFull(r, two[:]); err != nil {
		return a, fmt.Errorf("read answer to hello: %w", err)
	}
	n := int(binary.BigEndian.Uint16(two[:]))
	if n > reasonBytesMax {
		return a, fmt.Errorf("%w: reason of %d bytes", errHello, n)
	}
	reason := make([]byte, n)
	if _, err := io.ReadFull(r, reason); err != nil {
		return a, fmt.Errorf("read answer to hello: %w", err)
	}
	a.reason = string(reason)
	return a, nil
}
