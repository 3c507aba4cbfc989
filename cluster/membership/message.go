package membership

import (
	"encoding/binary"
	"errors"
	"fmt"

	"quorate/cluster/mesh"
	"quorate/fsm/command"
)

// op is what a membership frame asks or answers. Values are part of the wire format: only add.
type op byte

const (
	opAsk           op = 1 // founder: promise to help found ClusterID with exactly Members
	opPromise       op = 2 // answer: OK or the Reason why not
	opRelease       op = 3 // founder: ClusterID will never be; the promise is void
	opQuery         op = 4 // what has become of ClusterID?
	opFate          op = 5 // answer: Fate
	opRemove        op = 6 // to the leader: remove server Target
	opRemoved       op = 7 // answer: OK or the Reason why not
	opMax           op = opRemoved
	messageListMax     = 16
	reasonBytesMax     = 512
	messageBytesMax    = 8192
)

// fate is what a server knows of a founding.
type fate byte

const (
	fatePending fate = 0 // still promised, or being founded
	fateFormed  fate = 1 // the answerer belongs to it
	fateDead    fate = 2 // the founder: it will never be. A member: the answerer will never be part of it
)

// message is one membership frame:
//
//	1 byte   version (1)
//	1 byte   op
//	1 byte   OK
//	1 byte   fate
//	2 bytes  expect
//	8 bytes  request number
//	         cluster id, founder, target: 1 byte length and that many bytes each
//	         reason: 2 bytes length and that many bytes
//	1 byte   number of members, each 1 byte length and that many bytes
type message struct {
	Op        op
	OK        bool
	Fate      fate
	Expect    int
	Request   uint64
	ClusterID string
	Founder   command.NodeID
	Target    command.NodeID
	Reason    string
	Members   []command.NodeID
}

const messageVersion = 1

var errMessage = errors.New("malformed membership message")

func (m message) append(dst []byte) []byte {
	var ok byte
	if m.OK {
		ok = 1
	}
	dst = append(dst, messageVersion, byte(m.Op), ok, byte(m.Fate))
	dst = binary.BigEndian.AppendUint16(dst, uint16(m.Expect))
	dst = binary.BigEndian.AppendUint64(dst, m.Request)
	for _, s := range []string{m.ClusterID, string(m.Founder), string(m.Target)} {
		dst = appendShort(dst, s, 255)
	}
	reason := m.Reason[:min(len(m.Reason), reasonBytesMax)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(reason)))
	dst = append(dst, reason...)
	dst = append(dst, byte(len(m.Members)))
	for _, id := range m.Members {
		dst = appendShort(dst, string(id), 255)
	}
	return dst
}

func parseMessage(b []byte) (message, error) {
	if len(b) < 14 || len(b) > messageBytesMax || b[0] == 0 {
		return message{}, errMessage
	}
	m := message{
		Op: op(b[1]), OK: b[2] != 0, Fate: fate(b[3]),
		Expect:  int(binary.BigEndian.Uint16(b[4:])),
		Request: binary.BigEndian.Uint64(b[6:]),
	}
	if m.Op == 0 || m.Op > opMax || m.Fate > fateDead {
		return message{}, fmt.Errorf("%w: op %d, fate %d", errMessage, m.Op, m.Fate)
	}
	b = b[14:]
	var fields [3]string
	var err error
	for i := range fields {
		if fields[i], b, err = cutShort(b); err != nil {
			return message{}, fmt.Errorf("%w: field %d", errMessage, i)
		}
	}
	m.ClusterID, m.Founder, m.Target = fields[0], command.NodeID(fields[1]), command.NodeID(fields[2])
	if len(b) < 2 || len(b) < 3+int(binary.BigEndian.Uint16(b)) {
		return message{}, fmt.Errorf("%w: reason", errMessage)
	}
	n := int(binary.BigEndian.Uint16(b))
	m.Reason, b = string(b[2:2+n]), b[2+n:]
	count := int(b[0])
	if n > reasonBytesMax || count > messageListMax {
		return message{}, fmt.Errorf("%w: %d members", errMessage, count)
	}
	b = b[1:]
	for range count {
		var id string
		if id, b, err = cutShort(b); err != nil {
			return message{}, fmt.Errorf("%w: members", errMessage)
		}
		m.Members = append(m.Members, command.NodeID(id))
	}
	return m, nil
}

// letter is a message with its sender.
type letter struct {
	from command.NodeID
	message
}

// receive is mesh's handler of membership frames: it must not block, so a full inbox drops. Whoever needs an answer asks
// again.
func (m *Membership) receive(from command.NodeID, payload []byte) {
	msg, err := parseMessage(payload)
	if err != nil {
		m.logger.Warn("peer sent a membership message that cannot be read", "peer", from, "err", err)
		return
	}
	select {
	case m.inbox <- letter{from, msg}:
	default:
		m.logger.Warn("membership message dropped: inbox is full", "peer", from)
	}
}

// send sends a message and reports whether it was queued.
func (m *Membership) send(to command.NodeID, msg message) bool {
	kind := mesh.KindMember
	switch msg.Op {
	case opPromise, opFate, opRemoved:
		kind = mesh.KindMemberAnswer
	}
	return m.mesh.Send(to, kind, msg.append(nil))
}
