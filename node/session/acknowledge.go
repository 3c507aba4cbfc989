package session

// Outcome says what an acknowledgement of the client did.
type Outcome byte

// The outcomes.
const (
	Unknown  Outcome = iota // no such exchange: ignored, or answered with Packet Identifier not found
	Advanced                // the exchange went on; Next may have something to send
	Finished                // the exchange ended: the client's window has room again
	AskAgain                // the client repeats itself: PUBREL is to be sent again
	NoChange                // the client repeats itself: the answer is on its way already
)

// Puback notes a PUBACK; a negative one ends the exchange as well [MQTT-4.4.0-2].
func (o *Outbound[M]) Puback(id uint16) Outcome {
	e, ok := o.inflight[id]
	if !ok || e.qos != 1 || e.phase != phaseSent {
		return Unknown
	}
	o.end(id, e)
	return Finished
}

// Pubrec notes a PUBREC. With failed (Reason Code of 0x80 or more) the exchange ends [MQTT-4.3.3-4]; else PUBREL
// follows once the PUBREC is committed.
func (o *Outbound[M]) Pubrec(id uint16, failed bool) Outcome {
	e, ok := o.inflight[id]
	if !ok || e.qos != 2 || e.phase == phaseEnded {
		return Unknown
	}
	switch {
	case failed && e.phase == phaseSent:
		o.end(id, e)
		return Finished
	case e.phase == phaseReleasing:
		return AskAgain
	case e.phase == phaseReceived:
		return NoChange
	case e.seq == 0:
		e.phase = phaseReleasing
		o.rels.push(id)
	default:
		e.phase = phaseReceived
		o.received = append(o.received, e.seq)
	}
	o.inflight[id] = e
	return Advanced
}

// Pubcomp notes a PUBCOMP, whatever its Reason Code says.
func (o *Outbound[M]) Pubcomp(id uint16) Outcome {
	e, ok := o.inflight[id]
	if !ok || e.phase != phaseReleasing {
		return Unknown
	}
	o.end(id, e)
	return Finished
}

// Drop ends the exchange that Next just began, because its PUBLISH cannot be sent after all: it is too large for the
// client [MQTT-3.1.2-25] or has expired. It counts as delivered.
func (o *Outbound[M]) Drop(id uint16) {
	e, ok := o.inflight[id]
	if !ok || e.phase != phaseSent {
		panic("session: drop of an exchange that was not just begun")
	}
	o.end(id, e)
}

func (o *Outbound[M]) end(id uint16, e exchange) {
	o.unfinished--
	if e.seq == 0 {
		delete(o.inflight, id)
		return
	}
	e.phase = phaseEnded
	o.inflight[id] = e
	o.endedIDs = append(o.endedIDs, id)
	o.finish(e.seq, e.qos == 2)
}
