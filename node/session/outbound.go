package session

import (
	"fmt"
	"slices"
)

// Bounds of an Outbound. They bound memory and the size of what the log keeps for a Session.
const (
	// SpanMax is how many messages may lie between the cursor and the newest sent one.
	SpanMax = 1024
	// PulledMax is how many durable messages may wait in an Outbound before they are sent.
	PulledMax = 64
	// LazyAcks is how many finished exchanges may wait before they are reported.
	LazyAcks = 64
)

// Message is one message for the client.
type Message[M any] struct {
	Seq      uint64 // sequence of the replicated machine; 0: a local message
	QoS      byte   // effective QoS: the minimum of message and subscription
	Marked   bool   // the Session holds it itself (QoS 2, a send mark is committed)
	Received bool   // its PUBREC is committed: only PUBREL is still to be sent
	Bytes    int    // what it counts against the byte bound of local messages
	Value    M      // what the owner encodes
}

// Send is one packet to be sent now.
type Send[M any] struct {
	Pubrel bool   // PUBREL, else PUBLISH
	ID     uint16 // Packet Identifier; 0 for QoS 0
	Dup    bool   // it may have been sent before [MQTT-3.3.1-1]
	Msg    Message[M]
}

type phase byte

const (
	phaseSent      phase = iota // PUBLISH sent, PUBACK or PUBREC awaited
	phaseReceived               // PUBREC came, its commit is awaited
	phaseReleasing              // PUBREL sent or due, PUBCOMP awaited
	phaseEnded                  // finished, the identifier waits for the commit of the end
)

type exchange struct {
	seq   uint64
	qos   byte
	phase phase
}

// place is a durable message that is not handed over to a send mark, in the order of sequences.
type place struct {
	seq  uint64
	done bool
}

// Limits of an Outbound.
type Limits struct {
	ReceiveMaximum  int    // unfinished QoS 1 and 2 exchanges at once [MQTT-3.3.4-9]; at least 1
	Cursor          uint64 // where the log says the Session stands
	ResendBound     uint64 // durable messages at or below may have been sent before: DUP 1
	LocalMessageMax int    // local messages that may wait
	LocalBytesMax   int    // bytes of local messages that may wait
}

// Outbound is the sending side of a Session's exchanges on one Network Connection. Not safe for concurrent use.
type Outbound[M any] struct {
	limits Limits

	inflight   map[uint16]exchange
	unfinished int // Invariant: the number of inflight exchanges that are not phaseEnded; <= ReceiveMaximum.
	nextLocal  uint16

	durable    ring[Message[M]]
	local      ring[Message[M]]
	localBytes int
	localTurn  bool

	order   ring[place] // Invariant: sorted by seq; the first one is not done.
	scanned uint64      // everything at or below was looked at
	rels    ring[uint16]

	marking  []uint64 // a send mark for these is on its way
	marksOut bool

	report
}

// NewOutbound returns an Outbound for a connection that just began.
func NewOutbound[M any](l Limits) *Outbound[M] {
	if l.ReceiveMaximum < 1 {
		panic(fmt.Sprintf("session: receive maximum %d", l.ReceiveMaximum))
	}
	o := &Outbound[M]{limits: l}
	o.reported = l.Cursor
	return o
}

// Room returns how many durable messages may be pulled now.
func (o *Outbound[M]) Room() int {
	room := min(PulledMax-o.durable.len(), SpanMax-o.order.len())
	if o.unfinished >= o.limits.ReceiveMaximum {
		return 0
	}
	return max(room, 0)
}

// Scanned returns the sequence up to which messages were pulled: where the next pull begins.
func (o *Outbound[M]) Scanned() uint64 { return o.scanned }

// SetScanned notes that every message at or below seq was pushed or passed over.
func (o *Outbound[M]) SetScanned(seq uint64) {
	if seq > o.scanned {
		o.scanned = seq
	}
}

// Push adds a durable message. Messages come in the order of their sequences.
func (o *Outbound[M]) Push(m Message[M]) {
	if m.Seq == 0 {
		panic("session: push of a local message")
	}
	if !m.Marked {
		o.order.push(place{seq: m.Seq})
	}
	o.durable.push(m)
}

// Skip notes a durable message that is finished without being sent: expired, or too large for the client.
func (o *Outbound[M]) Skip(seq uint64, marked bool) {
	if !marked {
		o.order.push(place{seq: seq})
	}
	o.finish(seq, marked)
	// Until the end is committed, another connection might still send it: its identifier is not free.
	id := PacketID(seq)
	if _, taken := o.inflight[id]; !taken {
		o.hold(id, exchange{seq: seq, phase: phaseEnded})
		o.endedIDs = append(o.endedIDs, id)
	}
}

// finish notes the end of a durable message, marked or not.
func (o *Outbound[M]) finish(seq uint64, marked bool) {
	if !marked {
		o.finishPlace(seq)
	}
	o.done = append(o.done, finished{seq, marked})
	o.ended++
}

// Enqueue adds a local message, or returns false when the bound of waiting local messages is reached; then the
// message is dropped and the caller counts it.
func (o *Outbound[M]) Enqueue(m Message[M]) bool {
	if o.local.len() >= o.limits.LocalMessageMax || o.localBytes+m.Bytes > o.limits.LocalBytesMax {
		return false
	}
	o.localBytes += m.Bytes
	o.local.push(m)
	return true
}

// Direct begins the exchange of a local message of QoS 1 or 2 that is sent at once, and returns its Packet Identifier; ok
// is false when something waits before it or the window is full: Enqueue it then.
func (o *Outbound[M]) Direct(qos byte) (id uint16, ok bool) {
	if o.local.len() > 0 || o.unfinished >= o.limits.ReceiveMaximum {
		return 0, false
	}
	if id, ok = o.freeID(); ok {
		o.begin(id, exchange{qos: qos, phase: phaseSent})
	}
	return id, ok
}

// LocalRoom returns how many local messages may still be queued.
func (o *Outbound[M]) LocalRoom() int { return o.limits.LocalMessageMax - o.local.len() }

// LocalWaiting returns the number of local messages that wait to be sent.
func (o *Outbound[M]) LocalWaiting() int { return o.local.len() }

// Unfinished returns the number of exchanges that count against the client's Receive Maximum.
func (o *Outbound[M]) Unfinished() int { return o.unfinished }

// Next returns the next packet that may be sent now; ok is false when everything waits for the client or the log.
func (o *Outbound[M]) Next() (s Send[M], ok bool) {
	if id, ok := o.rels.pop(); ok {
		return Send[M]{Pubrel: true, ID: id}, true
	}
	// The two queues take turns, so that neither starves the other.
	o.localTurn = !o.localTurn
	if o.localTurn {
		if s, ok = o.nextLocalMessage(); ok {
			return s, true
		}
		return o.nextDurable()
	}
	if s, ok = o.nextDurable(); ok {
		return s, true
	}
	return o.nextLocalMessage()
}

func (o *Outbound[M]) nextDurable() (s Send[M], ok bool) {
	m, ok := o.durable.front()
	if !ok {
		return s, false
	}
	if m.QoS == 0 {
		msg := *m
		o.durable.pop()
		o.finish(msg.Seq, false)
		return Send[M]{Msg: msg}, true
	}
	if m.QoS == 2 && !m.Marked || o.unfinished >= o.limits.ReceiveMaximum {
		return s, false
	}
	id := PacketID(m.Seq)
	if e, taken := o.inflight[id]; taken {
		// Two messages that share an identifier wait for each other; when only the commit is missing, hurry it.
		o.collision = e.phase == phaseEnded
		return s, false
	}
	msg := *m
	o.durable.pop()
	e := exchange{seq: msg.Seq, qos: msg.QoS, phase: phaseSent}
	if msg.Received {
		e.phase = phaseReleasing
	}
	o.begin(id, e)
	return Send[M]{Pubrel: msg.Received, ID: id, Dup: msg.Seq <= o.limits.ResendBound, Msg: msg}, true
}

func (o *Outbound[M]) nextLocalMessage() (s Send[M], ok bool) {
	m, ok := o.local.front()
	if !ok {
		return s, false
	}
	msg := *m
	if msg.QoS == 0 {
		o.local.pop()
		o.localBytes -= msg.Bytes
		return Send[M]{Msg: msg}, true
	}
	if o.unfinished >= o.limits.ReceiveMaximum {
		return s, false
	}
	id, ok := o.freeID()
	if !ok {
		return s, false
	}
	o.local.pop()
	o.localBytes -= msg.Bytes
	o.begin(id, exchange{qos: msg.QoS, phase: phaseSent})
	return Send[M]{ID: id, Msg: msg}, true
}

func (o *Outbound[M]) begin(id uint16, e exchange) {
	o.hold(id, e)
	o.unfinished++
}

func (o *Outbound[M]) hold(id uint16, e exchange) {
	if o.inflight == nil {
		o.inflight = make(map[uint16]exchange)
	}
	o.inflight[id] = e
}

// freeID returns an identifier that no exchange holds. It gives up after a few steps past a full table.
func (o *Outbound[M]) freeID() (uint16, bool) {
	for range len(o.inflight) + 1 {
		o.nextLocal++
		if o.nextLocal == 0 {
			o.nextLocal = 1
		}
		if _, taken := o.inflight[o.nextLocal]; !taken {
			return o.nextLocal, true
		}
	}
	return 0, false
}

// Marks returns the sequences of QoS 2 messages that could be sent next if a send mark for them were committed, and
// notes that it is on its way; none while another one is. The caller proposes it and then calls Marked.
func (o *Outbound[M]) Marks() []uint64 {
	if o.marksOut {
		return nil
	}
	seqs := o.marking[:0]
	free := o.limits.ReceiveMaximum - o.unfinished
	for i := 0; i < o.durable.len() && free > 0; i++ {
		m := o.durable.at(i)
		if m.QoS == 2 && !m.Marked {
			seqs = append(seqs, m.Seq)
		}
		if m.QoS > 0 {
			free--
		}
	}
	o.marking = seqs
	o.marksOut = len(seqs) > 0
	return slices.Clone(seqs)
}

// Marked notes that the send mark of the last Marks is committed. held tells, for the i-th of its sequences, whether the
// Session holds the message; one that it does not hold was trimmed meanwhile and is not sent.
func (o *Outbound[M]) Marked(held func(i int) bool) {
	o.marksOut = false
	kept := make([]Message[M], 0, o.durable.len())
	next := 0
	for {
		m, ok := o.durable.pop()
		if !ok {
			break
		}
		if next < len(o.marking) && m.Seq == o.marking[next] {
			m.Marked = held(next)
			o.finishPlace(m.Seq)
			next++
			if !m.Marked {
				o.done = append(o.done, finished{seq: m.Seq})
				continue
			}
		}
		kept = append(kept, m)
	}
	for _, m := range kept {
		o.durable.push(m)
	}
	o.marking = o.marking[:0]
}

// Unmarked notes that the send mark of the last Marks was not proposed after all: Marks will ask again.
func (o *Outbound[M]) Unmarked() {
	o.marksOut = false
	o.marking = o.marking[:0]
}

// Waiting returns whether messages or PUBRELs wait to be sent.
func (o *Outbound[M]) Waiting() bool {
	return o.local.len() > 0 || o.durable.len() > 0 || o.rels.len() > 0
}

// finishPlace notes that the cursor may pass seq.
func (o *Outbound[M]) finishPlace(seq uint64) {
	lo, hi := 0, o.order.len()
	for lo < hi {
		mid := (lo + hi) / 2
		if o.order.at(mid).seq < seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == o.order.len() || o.order.at(lo).seq != seq {
		panic(fmt.Sprintf("session: finish of sequence %d, which is not open", seq))
	}
	o.order.at(lo).done = true
	for {
		p, ok := o.order.front()
		if !ok || !p.done {
			return
		}
		o.order.pop()
	}
}
