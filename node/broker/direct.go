package broker

import (
	"time"

	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/fsm/mutant"
	"quorate/node/client"
	"quorate/node/session"
	"quorate/protocol/packet"
)

// directWait is a QoS>0 message that this node's live subscribers have got and that is not acknowledged yet.
type directWait struct {
	ticket  session.Ticket
	applied uint64 // log index of the decision that nobody else wants it
	matched bool
	expiry  uint32
	msg     *message
}

// directRetryPause is the time between two read indexes while there is no leader.
const directRetryPause = 100 * time.Millisecond

// publishDirect hands a QoS 1 or 2 message to the live subscribers of this node. It is acknowledged after a read index
// that is asked for later: whoever subscribed before the client sent the message is known here by then (P2).
func (l *link) publishDirect(p *packet.Publish, t session.Ticket, d *decision) {
	m := l.message(p)
	kept := m.kept()
	f := l.fanOut()
	f.begin(kept)
	f.queued = kept
	f.deliverTo(d.matched, direct)
	matched := f.sent > 0
	f.end()
	l.straight[p.QoS].Add(1)
	l.b.metrics.Direct.Add(1)
	expiry := p.ExpirySeconds
	l.direct = append(l.direct, directWait{ticket: t, applied: d.applied, matched: matched, expiry: expiry, msg: kept})
}

// readIndex asks for one read index for all direct messages since the last one.
func (l *link) readIndex() {
	if len(l.direct) == 0 {
		return
	}
	waits := l.direct
	l.direct = nil
	if mutant.NoReadIndex {
		var batch client.Batch
		for i := range waits {
			l.straightDone(&waits[i], packet.Success, &batch)
		}
		batch.Flush()
		return
	}
	l.confirm(waits)
}

func (l *link) confirm(waits []directWait) {
	l.b.log.ReadIndex(func(err error) {
		if l.conn.Closing() {
			return
		}
		if err != nil {
			// Without a leader there is no acknowledgement (P9); the client waits, and is sent away after a while.
			time.AfterFunc(directRetryPause, func() { l.confirm(waits) })
			return
		}
		var batch client.Batch
		for i := range waits {
			l.confirmed(&waits[i], &batch)
		}
		batch.Flush()
	})
}

// confirmed acknowledges a direct message, unless somebody else wants it by now: then it is proposed after all.
func (l *link) confirmed(w *directWait, b *client.Batch) {
	if l.isEnded() {
		return
	}
	if w.applied != l.b.machine.Applied() {
		var r fsm.Route
		if l.b.machine.Route(w.msg.topic, &r); !onlyHere(&r, l.b.cfg.Node) {
			l.repropose(w, b)
			return
		}
	}
	code := packet.Success
	if !w.matched {
		code = packet.NoMatchingSubscribers
		l.b.metrics.Unmatched.Add(1)
	}
	l.straightDone(w, code, b)
}

// straightDone finishes a message of the direct road.
func (l *link) straightDone(w *directWait, code packet.ReasonCode, b *client.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.straight[w.msg.qos].Add(-1)
	l.finish(w.ticket, code, nil, b)
}

func (l *link) repropose(w *directWait, b *client.Batch) {
	l.b.metrics.Reproposed.Add(1)
	c := &command.Publish{Ref: l.ref, Local: true, Message: command.Message{
		Topic: w.msg.topic, QoS: w.msg.qos, HasExpiry: w.msg.deadline != 0, ExpirySeconds: w.expiry,
		Forwarded: w.msg.forwarded, Payload: w.msg.payload,
	}}
	err := l.b.log.Propose(c, func(r fsm.Result, err error) {
		if !l.valid(&r, err) {
			return
		}
		l.after.Store(l.b.machine.Applied() + 1)
		l.straightDone(w, r.Code, l.b.applied())
	})
	if err != nil {
		if l.version != packet.V5 {
			l.conn.Close(packet.QuotaExceeded, "")
			return
		}
		l.straightDone(w, packet.QuotaExceeded, b)
	}
}
