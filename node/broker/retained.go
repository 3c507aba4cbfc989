package broker

import (
	"bytes"

	"quorate/fsm"
	"quorate/node/client"
	"quorate/node/session"
)

// retainedJob is the sending of retained messages after a SUBSCRIBE, which goes on page by page as the client takes them:
// memory does not grow with the number of retained messages.
type retainedJob struct {
	filter string
	after  string // topic of the last one
	opts   *options
}

// Pages of retained messages. The first one is read at the state of the SUBSCRIBE itself; later ones at newer states,
// which can only show newer values: P5 holds for them as well.
const (
	retainedFirstPage = 16
	retainedPage      = 64
)

// readRetained sends one page of the first job; false when there is nothing to do or no room.
func (l *link) readRetained(max int) bool {
	l.mu.Lock()
	if l.closed || len(l.retained) == 0 {
		l.mu.Unlock()
		return false
	}
	job := l.retained[0]
	l.mu.Unlock()

	room := l.conn.Room()
	seen, stopped := 0, false
	after := job.after
	l.b.machine.Retained(job.filter, job.after, max, func(m *fsm.Message) bool {
		if room <= 0 {
			stopped = true
			return false
		}
		n, taken := l.sendRetained(m, job.opts)
		if !taken {
			stopped = true
			return false
		}
		room -= n
		seen++
		after = m.Topic
		return true
	})
	finished := !stopped && seen == 0 // a page may have less than max and not be the last one

	l.mu.Lock()
	defer l.mu.Unlock()
	// An UNSUBSCRIBE may have taken the job away meanwhile.
	if len(l.retained) > 0 && l.retained[0].opts == job.opts {
		l.retained[0].after = after
		if finished {
			l.retained = l.retained[1:]
			if len(l.retained) == 0 {
				l.retained = nil
			}
		}
	}
	if !finished || l.out != nil && l.out.Waiting() {
		l.conn.Kick()
	}
	return finished || seen > 0
}

// sendRetained sends one retained message, with RETAIN 1 whatever the subscription says; taken is false when the
// Session's queue is full.
func (l *link) sendRetained(m *fsm.Message, o *options) (n int, taken bool) {
	qos := min(m.QoS, o.qos)
	if qos > 0 && l.durable {
		return 0, true // the log owes it to the Session
	}
	now := l.b.now()
	msg := ofMachine(m)
	if msg.expired(now) {
		return 0, true
	}
	var ids []uint32
	if o.id != 0 {
		ids = []uint32{o.id}
	}
	if qos == 0 {
		if client.Shares(len(msg.payload)) {
			msg.payload = bytes.Clone(msg.payload)
		}
		h, _ := msg.appendHeader(nil, l.version, 0, true, ids, now)
		out := client.Message{Head: h.bytes, Payload: msg.payload}
		if l.conn.TooLarge(out.Bytes()) {
			l.b.metrics.Client.DroppedTooLarge.Add(1)
			return 0, true
		}
		l.conn.Publish(&out)
		l.b.metrics.Delivered[0].Add(1)
		return out.Bytes(), true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.in == nil || l.sends().LocalRoom() < l.b.cfg.QueueMessagesMax/2 {
		return 0, false
	}
	kept := msg.own()
	taken = l.out.Enqueue(session.Message[outgoing]{
		QoS: qos, Bytes: kept.bytes(), Value: outgoing{msg: kept, retain: true, subIDs: ids},
	})
	return kept.bytes(), taken
}
