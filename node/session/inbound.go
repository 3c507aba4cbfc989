package session

import "quorate/protocol/packet"

// Answer is a packet the broker owes the client: PUBACK, PUBREC, PUBCOMP, SUBACK or UNSUBACK.
type Answer struct {
	Type  packet.Type
	ID    uint16
	Code  packet.ReasonCode
	Codes []packet.ReasonCode // SUBACK and UNSUBACK
}

// Ticket names an Answer that is owed.
type Ticket uint64

type owed struct {
	Answer
	bytes int
	done  bool
	again bool // PUBREC of a PUBLISH that repeats an unfinished one
}

// Inbound is the receiving side of a Session's exchanges on one Network Connection. Answers leave it in the order in
// which the requests came [MQTT-4.6.0-2] [MQTT-4.6.0-3], whatever order they are finished in. Not safe for concurrent use.
type Inbound struct {
	receiveMaximum int
	durable        bool
	queue          ring[owed]
	first          Ticket
	bytes          int

	qos1 int                 // PUBLISH of QoS 1 without PUBACK
	qos2 map[uint16]struct{} // PUBLISH of QoS 2 without PUBCOMP
}

// NewInbound returns an Inbound with the broker's Receive Maximum, which is at least 1. durable says that the identifiers
// of QoS 2 exchanges are committed with their messages; otherwise this Inbound is all that remembers them.
func NewInbound(receiveMaximum int, durable bool) *Inbound {
	return &Inbound{receiveMaximum: receiveMaximum, durable: durable}
}

// Exceeded returns whether a PUBLISH with this QoS and Packet Identifier would exceed the Receive Maximum
// [MQTT-3.3.4-7]. Repeating an unfinished QoS 2 PUBLISH does not count twice.
func (in *Inbound) Exceeded(qos byte, id uint16) bool {
	if _, open := in.qos2[id]; open && qos == 2 {
		return false
	}
	return qos > 0 && in.qos1+len(in.qos2) >= in.receiveMaximum
}

// Publish notes a PUBLISH of QoS 1 or 2 and returns its ticket. again is true when the identifier is that of a QoS 2
// exchange that is still open on this connection: without a durable set it is not published a second time.
func (in *Inbound) Publish(qos byte, id uint16, bytes int) (t Ticket, again bool) {
	if qos == 1 {
		in.qos1++
		return in.push(owed{Answer: Answer{Type: packet.TypePuback, ID: id}, bytes: bytes}), false
	}
	if _, again = in.qos2[id]; !again {
		if in.qos2 == nil {
			in.qos2 = make(map[uint16]struct{})
		}
		in.qos2[id] = struct{}{}
	}
	return in.push(owed{Answer: Answer{Type: packet.TypePubrec, ID: id}, bytes: bytes, again: again}), again
}

// Open returns whether a QoS 2 exchange with this identifier is open on this connection.
func (in *Inbound) Open(id uint16) bool {
	_, open := in.qos2[id]
	return open
}

// Request notes a PUBREL, SUBSCRIBE or UNSUBSCRIBE, which is answered with a packet of type answer.
func (in *Inbound) Request(answer packet.Type, id uint16, bytes int) Ticket {
	return in.push(owed{Answer: Answer{Type: answer, ID: id}, bytes: bytes})
}

func (in *Inbound) push(o owed) Ticket {
	in.queue.push(o)
	in.bytes += o.bytes
	return in.first + Ticket(in.queue.len()-1)
}

// Finish fixes an answer. It leaves with the next Pop that reaches it.
func (in *Inbound) Finish(t Ticket, code packet.ReasonCode, codes []packet.ReasonCode) {
	if t < in.first || t >= in.first+Ticket(in.queue.len()) {
		panic("session: finish of an answer that is not owed")
	}
	o := in.queue.at(int(t - in.first))
	o.Code, o.Codes, o.done = code, codes, true
}

// Pop returns the next answer that may be sent.
func (in *Inbound) Pop() (Answer, bool) {
	head, ok := in.queue.front()
	if !ok || !head.done {
		return Answer{}, false
	}
	o, _ := in.queue.pop()
	in.first++
	in.bytes -= o.bytes
	switch o.Type {
	case packet.TypePuback:
		in.qos1--
	case packet.TypePubrec:
		o = in.popPubrec(o)
	case packet.TypePubcomp:
		delete(in.qos2, o.ID)
	}
	return o.Answer, true
}

func (in *Inbound) popPubrec(o owed) owed {
	_, open := in.qos2[o.ID]
	switch {
	case o.again && !open && !in.durable && o.Code < packet.UnspecifiedError:
		o.Code = packet.UnspecifiedError // the first PUBLISH with this identifier was refused, and this one not published
	case o.Code >= packet.UnspecifiedError:
		delete(in.qos2, o.ID) // the identifier is new again [MQTT-4.3.3-9]
	case !open:
		in.qos2[o.ID] = struct{}{}
	}
	return o
}

// Waiting returns how many answers are owed, and the bytes of the packets they answer.
func (in *Inbound) Waiting() (count, bytes int) { return in.queue.len(), in.bytes }

// Publishing returns how many PUBLISH of QoS 1 or 2 are unfinished.
func (in *Inbound) Publishing() int { return in.qos1 + len(in.qos2) }

// Unanswered returns whether any answer is owed.
func (in *Inbound) Unanswered() bool { return in.queue.len() > 0 }
