package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/protocol/topic"
)

// The kinds of frame between brokers.
const (
	// FramePublish is a QoS 0 message for the live subscribers of the receiving node.
	FramePublish byte = 5
	// FrameMember is a QoS 0 message for one member of a shared group.
	FrameMember byte = 6
	// FrameClosed says that a connection that was taken over is closed.
	FrameClosed byte = 9
)

// frameVersion is the first byte of FramePublish and FrameMember.
//
//	FramePublish: version, uvarint index that the receiver has applied first, uvarint publisher's Serial,
//	              uvarint expiry seconds + 1 (0: none), body
//	FrameMember:  version, ref, uvarint Subscription Identifier, then as FramePublish
//	FrameClosed:  version, ref
//
// A ref is 4 and 8 bytes, big endian; a body is that of command.Message.
const frameVersion = 1

var errFrame = errors.New("malformed frame")

// Handlers returns what the mesh calls for each kind of frame. A payload is valid only during the call.
func (b *Broker) Handlers() map[byte]func(from command.NodeID, payload []byte) {
	handler := func(f func(payload []byte) error) func(command.NodeID, []byte) {
		return func(from command.NodeID, payload []byte) {
			if err := f(payload); err != nil {
				b.logger.Warn("frame ignored", "node", from, "err", err)
			}
		}
	}
	return map[byte]func(command.NodeID, []byte){
		FramePublish: handler(b.publishFrame),
		FrameMember:  handler(b.memberFrame),
		FrameClosed: handler(func(payload []byte) error {
			ref, _, err := parseRef(payload)
			if err == nil {
				b.notices.arrived(ref)
			}
			return err
		}),
	}
}

func appendRef(dst []byte, ref command.Ref) []byte {
	dst = append(dst, frameVersion)
	dst = binary.BigEndian.AppendUint32(dst, ref.Slot)
	return binary.BigEndian.AppendUint64(dst, ref.Epoch)
}

func parseRef(b []byte) (ref command.Ref, rest []byte, err error) {
	if len(b) < 13 || b[0] != frameVersion {
		return ref, nil, fmt.Errorf("read ref: %w", errFrame)
	}
	return command.Ref{Slot: binary.BigEndian.Uint32(b[1:]), Epoch: binary.BigEndian.Uint64(b[5:])}, b[13:], nil
}

func appendFrameMessage(dst []byte, m *message, after, now uint64) []byte {
	dst = binary.AppendUvarint(dst, after)
	dst = binary.AppendUvarint(dst, m.publisher)
	expiry := uint64(0)
	if m.deadline != 0 {
		expiry = 1
		if m.deadline > now {
			expiry += (m.deadline - now + 999) / 1000
		}
	}
	dst = binary.AppendUvarint(dst, expiry)
	c := command.Message{Topic: m.topic, Forwarded: m.forwarded, Payload: m.payload}
	return c.AppendBody(dst)
}

// parseFrameMessage reads what appendFrameMessage wrote. The message aliases p.
func (b *Broker) parseFrameMessage(p []byte) (m message, after uint64, err error) {
	var fields [3]uint64
	for i := range fields {
		v, n := binary.Uvarint(p)
		if n <= 0 {
			return m, 0, fmt.Errorf("read message: %w", errFrame)
		}
		fields[i], p = v, p[n:]
	}
	m.publisher = fields[1]
	if m.topic, m.forwarded, m.payload, err = command.ParseBody(p); err != nil {
		return m, 0, err
	}
	if err := topic.ValidateName(m.topic); err != nil {
		return m, 0, fmt.Errorf("read message: %w", err)
	}
	if expiry := fields[2]; expiry > 0 {
		m.deadline = b.now() + min(expiry-1, never)*1000
	}
	return m, fields[0], nil
}

// forward sends a QoS 0 message to the other nodes that have live subscribers, and to one member of each shared group.
func (b *Broker) forward(m *message, r *fsm.Route, f *fanOut, after uint64) {
	encoded := false
	for _, peer := range r.Peers {
		if peer == b.cfg.Node {
			continue
		}
		if !encoded {
			f.frame = appendFrameMessage(append(f.frame[:0], frameVersion), m, after, b.now())
			encoded = true
		}
		b.sendFrame(peer, FramePublish, f.frame)
	}
	for i := range r.Groups {
		b.toMember(m, &r.Groups[i], f, after)
	}
}

func (b *Broker) sendFrame(to command.NodeID, kind byte, frame []byte) {
	if b.peers.Send(to, kind, frame) {
		b.metrics.FramesOut.Add(1)
	} else {
		b.metrics.DroppedFrame.Add(1)
	}
}

// toMember gives a QoS 0 message to one connected member of a group, in turn.
func (b *Broker) toMember(m *message, g *fsm.GroupTarget, f *fanOut, after uint64) {
	start := int(b.turn.Add(1) % uint64(max(len(g.Members), 1)))
	for i := range g.Members {
		member := &g.Members[(start+i)%len(g.Members)]
		if !member.Connected {
			continue
		}
		if member.Node == b.cfg.Node {
			b.deliverMember(f, member.Ref, member.SubID)
			return
		}
		frame := binary.AppendUvarint(appendRef(nil, member.Ref), uint64(member.SubID))
		b.sendFrame(member.Node, FrameMember, appendFrameMessage(frame, m, after, b.now()))
		return
	}
	b.metrics.DroppedNoMember.Add(1)
}

// deliverMember gives the message of f to the connection ref of this node.
func (b *Broker) deliverMember(f *fanOut, ref command.Ref, subID uint32) {
	l := b.links.get(ref)
	if l == nil {
		b.metrics.DroppedNoMember.Add(1)
		return
	}
	t := target{link: l}
	if subID != 0 {
		t.subIDs = []uint32{subID}
	}
	f.one(&t, direct)
}

func (b *Broker) publishFrame(p []byte) error {
	if len(p) == 0 || p[0] != frameVersion {
		return errFrame
	}
	m, after, err := b.parseFrameMessage(p[1:])
	if err != nil {
		return err
	}
	b.metrics.FramesIn.Add(1)
	b.whenApplied(after, &m, func(f *fanOut) { f.deliver(direct) })
	return nil
}

func (b *Broker) memberFrame(p []byte) error {
	ref, p, err := parseRef(p)
	if err != nil {
		return err
	}
	subID, n := binary.Uvarint(p)
	if n <= 0 {
		return errFrame
	}
	m, after, err := b.parseFrameMessage(p[n:])
	if err != nil {
		return err
	}
	b.metrics.FramesIn.Add(1)
	b.whenApplied(after, &m, func(f *fanOut) { b.deliverMember(f, ref, uint32(subID)) })
	return nil
}

// whenApplied delivers m once this node has applied index after: what the same publisher sent before through the log is
// delivered first (P8).
func (b *Broker) whenApplied(after uint64, m *message, deliver func(f *fanOut)) {
	run := func() {
		f := fanOuts.Get().(*fanOut)
		f.b = b
		f.begin(m)
		deliver(f)
		f.end()
		f.flush()
		fanOuts.Put(f)
	}
	if b.machine.Applied() >= after {
		run()
		return
	}
	size := int64(m.bytes())
	if b.frames.Add(size) > b.cfg.FrameBytesMax {
		b.frames.Add(-size)
		b.metrics.DroppedFrame.Add(1)
		return
	}
	m.payload, m.forwarded, m.owned = slices.Clone(m.payload), slices.Clone(m.forwarded), true
	b.machine.WaitApplied(after, func() {
		b.frames.Add(-size)
		run()
	})
}
