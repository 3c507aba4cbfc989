package consensus

import (
	"encoding/binary"

	"quorate/fsm/command"
)

// The frame kinds of consensus; the composition root registers Handlers with the mesh. The payload of KindPropose is a
// command.Batch; the others are the structs below: fields in order, eight bytes each, big endian. Readers ignore what
// follows, so that fields can be added.
const (
	KindPropose         byte = 1
	KindProposeNack     byte = 2
	KindReadIndex       byte = 3
	KindReadIndexAnswer byte = 4
	KindProbe           byte = 7 // the mesh calls it clock request
	KindProbeAnswer     byte = 8
	KindPing            byte = 10
	KindPong            byte = 11
)

// nack tells an origin that its batch was not taken.
type nack struct {
	incarnation uint64 // of the batch
	expected    uint64 // the number the leader waits for; 0: the receiver is not the leader
}

// readAsk and readAnswer are a request for a read index; ok is 0 when the receiver is not the leader.
type (
	readAsk    struct{ id uint64 }
	readAnswer struct{ id, ok, index uint64 }
)

// probe asks a voter for its term and its wall clock (milliseconds since 1970).
type (
	probe       struct{ round, term uint64 }
	probeAnswer struct{ round, term, wall uint64 }
)

// ping goes to every server; the leader answers with a pong once it knows that it still leads.
type (
	ping struct{ seq, incarnation, committed, flags uint64 }
	pong struct{ seq, term, commit, flags uint64 }
)

const (
	flagDiskLow   = 1 << 0 // ping: this node's disk is short; pong: nothing may be stored
	flagNotMember = 1 << 1 // pong: the asker is not in the leader's configuration
)

func appendFields(dst []byte, fields ...uint64) []byte {
	for _, f := range fields {
		dst = binary.BigEndian.AppendUint64(dst, f)
	}
	return dst
}

// readFields fills fields from b; false when b is too short.
func readFields(b []byte, fields ...*uint64) bool {
	if len(b) < 8*len(fields) {
		return false
	}
	for i, f := range fields {
		*f = binary.BigEndian.Uint64(b[8*i:])
	}
	return true
}

// Handlers returns what to call for each frame kind. A handler does not block, and does not keep the payload.
func (n *Node) Handlers() map[byte]func(from command.NodeID, payload []byte) {
	return map[byte]func(command.NodeID, []byte){
		KindPropose:         n.handlePropose,
		KindProposeNack:     n.handleNack,
		KindReadIndex:       n.handleReadIndex,
		KindReadIndexAnswer: n.handleReadIndexAnswer,
		KindProbe:           n.handleProbe,
		KindProbeAnswer:     n.handleProbeAnswer,
		KindPing:            n.handlePing,
		KindPong:            n.handlePong,
	}
}

// send gives a small frame to another node. What is lost is asked for again.
func (n *Node) send(to command.NodeID, kind byte, fields ...uint64) bool {
	return n.cfg.Peers.Send(to, kind, appendFields(make([]byte, 0, 8*len(fields)), fields...))
}

func (n *Node) handlePropose(from command.NodeID, payload []byte) {
	if s := n.session.Load(); s != nil {
		if no, ok := s.packer.accept(from, payload, false); !ok {
			n.send(from, KindProposeNack, no.incarnation, no.expected)
		}
		return
	}
	if b, _, err := command.DecodeBatch(payload); err == nil {
		n.send(from, KindProposeNack, b.Incarnation, 0)
	}
}

func (n *Node) handleNack(_ command.NodeID, payload []byte) {
	var no nack
	if readFields(payload, &no.incarnation, &no.expected) {
		n.nacked(no)
	}
}

func (n *Node) handleReadIndex(from command.NodeID, payload []byte) {
	var ask readAsk
	if !readFields(payload, &ask.id) {
		return
	}
	if s := n.session.Load(); s == nil || !s.verifier.ask(question{read: true, from: from, id: ask.id}) {
		n.send(from, KindReadIndexAnswer, ask.id, 0, 0)
	}
}

func (n *Node) handleReadIndexAnswer(_ command.NodeID, payload []byte) {
	var a readAnswer
	if readFields(payload, &a.id, &a.ok, &a.index) {
		n.reads.answer(a)
	}
}

// handleProbe answers with the term as it is now. No vote for a later term has left this node when it does.
func (n *Node) handleProbe(from command.NodeID, payload []byte) {
	var p probe
	if readFields(payload, &p.round, &p.term) {
		n.send(from, KindProbeAnswer, p.round, n.raft.CurrentTerm(), uint64(n.cfg.Clock.Wall().UnixMilli()))
	}
}

func (n *Node) handleProbeAnswer(from command.NodeID, payload []byte) {
	var a probeAnswer
	if !readFields(payload, &a.round, &a.term, &a.wall) {
		return
	}
	if s := n.session.Load(); s != nil {
		s.verifier.answer(from, a)
	}
}

func (n *Node) handlePing(from command.NodeID, payload []byte) {
	var p ping
	if !readFields(payload, &p.seq, &p.incarnation, &p.committed, &p.flags) {
		return
	}
	n.cfg.Storage.Book.Note(from, p.incarnation, p.committed)
	if s := n.session.Load(); s != nil {
		s.heard(from, p)
	}
}

func (n *Node) handlePong(_ command.NodeID, payload []byte) {
	var p pong
	if readFields(payload, &p.seq, &p.term, &p.commit, &p.flags) {
		n.contact.pong(p)
	}
}
