package broker

import (
	"sync"

	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/node/client"
	"quorate/node/session"
	"quorate/protocol/packet"
)

// Sizes of one pull: it begins small and grows while the messages are small, so that one pull holds about pullBytes.
const (
	pullMin   = 4
	pullBytes = 128 << 10
)

// pulls holds the slices of deliveries: a Session that is not being filled has none.
var pulls = sync.Pool{New: func() any { s := make([]fsm.Delivery, 0, session.PulledMax); return &s }}

// everything is the target of a pull that goes on until the machine has nothing more.
const everything = ^uint64(0)

// want notes that there is something to pull up to a sequence.
func (l *link) want(seq uint64) {
	for {
		t := l.target.Load()
		if t >= seq || l.target.CompareAndSwap(t, seq) {
			return
		}
	}
}

// wake is want, and fills the connection. b may be nil.
func (l *link) wake(seq uint64, b *client.Batch) {
	if !l.durable && !l.shared.Load() {
		return
	}
	l.want(seq)
	l.conn.KickIn(b)
}

// Fill implements client.Pump: it moves messages from the Session to the connection until the connection has enough, the
// client's window is full, or nothing is left.
func (l *link) Fill() {
	for {
		l.sendDue()
		if l.conn.Room() <= 0 {
			l.conn.Kick() // go on when this is written
			return
		}
		if !l.readRetained(retainedPage) && !l.pull() {
			return
		}
	}
}

// sendDue sends what may be sent now, and asks the log for what has to be committed before more may be.
func (l *link) sendDue() {
	var scratch []byte
	now := l.b.now()
	l.mu.Lock()
	if l.closed || l.ended || l.out == nil {
		l.mu.Unlock()
		return
	}
	room := l.conn.Room()
	for room > 0 {
		s, ok := l.out.Next()
		if !ok {
			break
		}
		var n int
		n, scratch = l.send(&s, now, scratch[:0])
		room -= n
	}
	marks := l.out.Marks()
	due, urgent := l.out.Due()
	l.mu.Unlock()
	if due {
		l.b.progress.note(l, urgent)
	}
	if len(marks) > 0 {
		l.mark(marks)
	}
}

// send sends one packet of the Session; the mutex is held.
func (l *link) send(s *session.Send[outgoing], now uint64, scratch []byte) (n int, rest []byte) {
	if s.Pubrel {
		l.conn.Send(&packet.Pubrel{PacketID: s.ID})
		return 4, scratch
	}
	o := &s.Msg.Value
	if o.msg.expired(now) && !s.Msg.Marked {
		l.b.metrics.DroppedExpired.Add(1)
		l.drop(s)
		return 0, scratch
	}
	h, scratch := o.msg.appendHeader(scratch, l.version, s.Msg.QoS, o.retain, o.subIDs, now)
	m := client.Message{Head: h.bytes, Payload: o.msg.payload, IDOffset: h.idOffset, ID: s.ID, Dup: s.Dup && s.Msg.QoS > 0}
	if l.conn.TooLarge(m.Bytes()) {
		l.b.metrics.Client.DroppedTooLarge.Add(1) // as if delivered [MQTT-3.1.2-25]
		l.drop(s)
		return 0, scratch
	}
	l.conn.Publish(&m)
	l.b.metrics.Delivered[s.Msg.QoS].Add(1)
	return m.Bytes(), scratch
}

func (l *link) drop(s *session.Send[outgoing]) {
	if s.ID != 0 {
		l.out.Drop(s.ID)
	}
}

// mark proposes a send mark for QoS 2 messages: they are sent once it is committed.
func (l *link) mark(seqs []uint64) {
	c := &command.SendMark{Ref: l.ref, Seqs: seqs}
	err := l.b.log.Propose(c, func(r fsm.Result, err error) {
		if !l.valid(&r, err) {
			return
		}
		l.mu.Lock()
		l.out.Marked(func(i int) bool { return i >= len(r.Codes) || !r.Codes[i].Failed() })
		l.mu.Unlock()
		l.conn.Kick()
	})
	if err != nil {
		l.mu.Lock()
		l.out.Unmarked()
		l.mu.Unlock()
		l.b.progress.later(l)
	}
}

// pull takes the next messages of the Session from the machine; false when there is nothing to do.
func (l *link) pull() bool {
	if !l.durable && !l.shared.Load() {
		return false
	}
	target := l.target.Load()
	l.mu.Lock()
	if l.closed || l.ended || l.in == nil || target == 0 {
		l.mu.Unlock()
		return false
	}
	room, after := l.sends().Room(), l.sends().Scanned()
	size := max(l.pullSize, pullMin)
	l.mu.Unlock()
	if room == 0 {
		return false // the client's next acknowledgement goes on
	}
	want := min(room, size)
	list := pulls.Get().(*[]fsm.Delivery)
	got, scanned, ok := l.b.machine.Pull(l.ref, after, want, (*list)[:0])
	if !ok {
		l.end(packet.SessionTakenOver)
		return false
	}
	// A pull may give less than asked for and still not be at the end. It is done when it has come as far as it was
	// woken for, or does not come any further.
	if scanned == after || target != everything && scanned >= target {
		l.target.CompareAndSwap(target, 0)
	}
	l.push(got, scanned)
	clear(got)
	*list = got[:0]
	pulls.Put(list)
	return scanned > after
}

// push gives what was pulled to the Session.
func (l *link) push(got []fsm.Delivery, scanned uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.ended {
		return
	}
	bytes := 1
	for i := range got {
		d := &got[i]
		bytes += len(d.Payload) + len(d.Topic) + len(d.Forwarded)
		l.out.Push(session.Message[outgoing]{
			Seq: d.Seq, QoS: d.QoS, Marked: d.Marked, Received: d.Received, Value: ofDelivery(d),
		})
	}
	l.out.SetScanned(scanned)
	if len(got) > 0 {
		l.pullSize = min(max(pullBytes/(bytes/len(got)+1), pullMin), session.PulledMax)
	}
}
