package broker

import (
	"quorate/node/client"
	"quorate/node/session"
)

// target is one connection that a message is for, with what its matching subscriptions come to.
type target struct {
	link   *link
	qos    byte
	retain bool
	subIDs []uint32
}

// mode says which of the subscribers of a message are served.
type mode byte

const (
	// live serves all: QoS 0, and QoS>0 for transient Sessions. Persistent ones with a QoS>0 subscription are woken.
	live mode = iota
	// direct is live for a message that is not in the log: there is nothing to wake for.
	direct
	// wakes serves only those that have to be woken: the others were served when the message came (Publish.Local).
	wakes
)

// deliver hands the message of f to every matching connection of this node.
func (f *fanOut) deliver(how mode) {
	f.matched = f.b.live.match(f.m.topic, f.matched[:0])
	f.deliverTo(f.matched, how)
}

// deliverTo is deliver for subscriptions that were matched before. A connection with several matching subscriptions gets
// one copy, at the highest QoS and with all Subscription Identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-4].
func (f *fanOut) deliverTo(matched [][]*sub, how mode) {
	switch len(matched) {
	case 0:
		return
	case 1:
		for _, s := range matched[0] {
			if o := s.opts.Load(); o != nil && !f.own(o) {
				f.single(o, how)
			}
		}
		return
	}
	largest := 0
	for i := range matched {
		if len(matched[i]) > len(matched[largest]) {
			largest = i
		}
	}
	f.mergeAllBut(matched, largest)
	for _, s := range matched[largest] {
		o := s.opts.Load()
		if o == nil || f.own(o) {
			continue
		}
		if i, overlaps := f.merged[o.link]; overlaps {
			f.overlap[i].add(f, o)
			continue
		}
		f.single(o, how)
	}
	for i := range f.overlap {
		f.one(&f.overlap[i], how)
	}
	clear(f.merged)
	clear(f.overlap)
	f.overlap = f.overlap[:0]
}

// mergeAllBut merges the subscriptions of all filters but the one with the most, which is walked only once.
func (f *fanOut) mergeAllBut(matched [][]*sub, largest int) {
	if f.merged == nil {
		f.merged = make(map[*link]int)
	}
	for i, subs := range matched {
		if i == largest {
			continue
		}
		for _, s := range subs {
			o := s.opts.Load()
			if o == nil || f.own(o) {
				continue
			}
			at, known := f.merged[o.link]
			if !known {
				at = len(f.overlap)
				f.merged[o.link] = at
				f.overlap = append(f.overlap, target{link: o.link})
			}
			f.overlap[at].add(f, o)
		}
	}
}

// own returns whether the subscription is No Local and the message of its own client [MQTT-3.8.3-3].
func (f *fanOut) own(o *options) bool {
	return o.noLocal && f.m.publisher != 0 && o.link.serial == f.m.publisher
}

func (t *target) add(f *fanOut, o *options) {
	t.qos = max(t.qos, o.qos)
	t.retain = t.retain || o.rap && f.m.retain
	if o.id != 0 {
		t.subIDs = append(t.subIDs, o.id)
	}
}

func (f *fanOut) single(o *options, how mode) {
	t := target{link: o.link, qos: o.qos, retain: o.rap && f.m.retain}
	if o.id != 0 {
		f.ids = append(f.ids[:0], o.id)
		t.subIDs = f.ids
	}
	f.one(&t, how)
}

// one serves one connection.
func (f *fanOut) one(t *target, how mode) {
	f.sent++
	l := t.link
	qos := min(t.qos, f.m.qos)
	switch {
	case qos > 0 && l.durable:
		if how != direct {
			l.wake(f.m.seq, &f.batch)
		}
	case how == wakes:
	case qos == 0:
		f.qos0(l, t)
	default:
		l.deliverLocal(f, qos, t)
	}
}

func (f *fanOut) qos0(l *link, t *target) {
	h := f.head(l.version, 0, t.retain, t.subIDs)
	if client.Shares(len(f.m.payload)) {
		f.m.own()
	}
	m := client.Message{Head: h.bytes, Payload: f.m.payload}
	if l.conn.PublishQoS0(&m, &f.batch) {
		f.delivered[0]++
	}
}

// deliverLocal gives a QoS 1 or 2 message to a transient Session: at once when its window is open and nothing waits
// before it, else into its queue.
func (l *link) deliverLocal(f *fanOut, qos byte, t *target) {
	h := f.head(l.version, qos, t.retain, t.subIDs)
	size := len(h.bytes) + len(f.m.payload)
	if l.conn.TooLarge(size) {
		l.b.metrics.Client.DroppedTooLarge.Add(1) // as if delivered [MQTT-3.1.2-25]
		return
	}
	if client.Shares(len(f.m.payload)) {
		f.m.own()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.in == nil {
		return
	}
	if l.conn.Open() && l.conn.Room() > 0 {
		if id, ok := l.sends().Direct(qos); ok {
			m := client.Message{Head: h.bytes, Payload: f.m.payload, IDOffset: h.idOffset, ID: id}
			l.conn.PublishIn(&m, &f.batch)
			f.delivered[qos]++
			return
		}
	}
	if f.queued == nil {
		f.queued = f.m.kept()
	}
	o := outgoing{msg: f.queued, retain: t.retain, subIDs: append([]uint32(nil), t.subIDs...)}
	if !l.sends().Enqueue(session.Message[outgoing]{QoS: qos, Bytes: f.queued.bytes(), Value: o}) {
		l.b.metrics.DroppedQueue.Add(1)
	}
	l.conn.KickIn(&f.batch)
}
