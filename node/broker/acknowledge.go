package broker

import (
	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/fsm/mutant"
	"quorate/node/client"
	"quorate/node/session"
	"quorate/protocol/packet"
)

func (l *link) puback(p *packet.Puback) {
	l.mu.Lock()
	outcome := l.sends().Puback(p.PacketID)
	l.acknowledged(outcome)
}

func (l *link) pubrec(p *packet.Pubrec) {
	l.mu.Lock()
	outcome := l.sends().Pubrec(p.PacketID, p.ReasonCode.Failed())
	switch outcome {
	case session.Unknown:
		l.conn.SendIn(&packet.Pubrel{PacketID: p.PacketID, ReasonCode: packet.PacketIdentifierNotFound}, l.batch())
	case session.AskAgain:
		l.conn.SendIn(&packet.Pubrel{PacketID: p.PacketID}, l.batch())
	}
	l.acknowledged(outcome)
}

func (l *link) pubcomp(id uint16) {
	l.mu.Lock()
	outcome := l.sends().Pubcomp(id)
	l.acknowledged(outcome)
}

// acknowledged goes on after an acknowledgement of the client; the mutex is held and released here.
func (l *link) acknowledged(outcome session.Outcome) {
	due, urgent := l.out.Due()
	more := l.out.Waiting() || len(l.retained) > 0
	l.mu.Unlock()
	if outcome != session.Finished && outcome != session.Advanced {
		return
	}
	if due {
		l.b.progress.note(l, urgent)
	}
	if more || l.target.Load() != 0 {
		l.conn.KickIn(l.batch())
	}
}

// pubrel releases an inbound QoS 2 exchange.
func (l *link) pubrel(id uint16) error {
	if err := l.roomFor(0); err != nil {
		return err
	}
	l.mu.Lock()
	t := l.in.Request(packet.TypePubcomp, id, 0)
	if !l.durable {
		code := packet.PacketIdentifierNotFound
		if l.in.Open(id) {
			code = packet.Success
		}
		l.finish(t, code, nil, l.batch())
		l.mu.Unlock()
		return nil
	}
	if mutant.EarlyIdentifier {
		l.finish(t, packet.Success, nil, l.batch())
	}
	l.mu.Unlock()
	err := l.b.log.Propose(&command.Release{Ref: l.ref, PacketID: id}, func(r fsm.Result, err error) {
		if l.valid(&r, err) && !mutant.EarlyIdentifier {
			l.answer(t, r.Code, nil, l.b.applied())
		}
	})
	if err != nil {
		return overloaded() // a PUBCOMP with an error would end an exchange that is not released
	}
	return nil
}

// overloadedReason is why a connection is closed whose requests the log does not take or lost.
const overloadedReason = packet.ServerBusy

// overloaded ends a connection whose request the log does not take and which has no answer that says so.
func overloaded() error {
	return &packet.Error{Reason: overloadedReason, Text: "the log takes no more"}
}

// valid returns whether the result of a command may be acknowledged. If not, the connection is closed: an answer that
// never comes would hold up all later ones.
func (l *link) valid(r *fsm.Result, err error) bool {
	switch {
	case err != nil:
		l.conn.Close(overloadedReason, "")
		return false
	case r.Stale:
		l.b.metrics.Stale.Add(1)
		l.end(packet.SessionTakenOver)
		return false
	}
	return true
}

// applied is the batch for what a result of the log brings: its callback runs on the apply goroutine if there is one,
// and EntryApplied follows. Callbacks with an error may run elsewhere.
func (b *Broker) applied() *client.Batch { return &b.applying.batch }

// answer fixes an answer and sends those that are due. b is of the goroutine that calls.
func (l *link) answer(t session.Ticket, code packet.ReasonCode, codes []packet.ReasonCode, b *client.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finish(t, code, codes, b)
}

// finish is answer with the mutex held.
func (l *link) finish(t session.Ticket, code packet.ReasonCode, codes []packet.ReasonCode, b *client.Batch) {
	if l.closed || l.ended {
		return
	}
	l.in.Finish(t, code, codes)
	for {
		a, ok := l.in.Pop()
		if !ok {
			break
		}
		l.sendAnswer(&a, b)
	}
	l.signal()
}

func (l *link) sendAnswer(a *session.Answer, b *client.Batch) {
	switch a.Type {
	case packet.TypePuback:
		l.conn.SendIn(&packet.Puback{PacketID: a.ID, ReasonCode: a.Code}, b)
	case packet.TypePubrec:
		l.conn.SendIn(&packet.Pubrec{PacketID: a.ID, ReasonCode: a.Code}, b)
	case packet.TypePubcomp:
		l.conn.SendIn(&packet.Pubcomp{PacketID: a.ID, ReasonCode: a.Code}, b)
	case packet.TypeSuback:
		l.conn.SendIn(&packet.Suback{PacketID: a.ID, ReasonCodes: a.Codes}, b)
	case packet.TypeUnsuback:
		l.conn.SendIn(&packet.Unsuback{PacketID: a.ID, ReasonCodes: a.Codes}, b)
	}
}

// roomFor makes the reader wait until one more request of the given size may wait for the log.
func (l *link) roomFor(bytes int) error {
	return l.wait(func() bool {
		count, waiting := l.in.Waiting()
		return count < l.b.cfg.RequestsMax && (waiting == 0 || waiting+bytes <= l.b.cfg.ReceiveBytesMax)
	})
}
