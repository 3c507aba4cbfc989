package fsm

import (
	"slices"
	"strings"
)

// options of a subscription, packed: QoS, No Local, Retain As Published, Retain Handling.
type options uint8

func (o options) qos() byte            { return byte(o & 3) }
func (o options) noLocal() bool        { return o&4 != 0 }
func (o options) rap() bool            { return o&8 != 0 }
func (o options) retainHandling() byte { return byte(o >> 4 & 3) }

// span is a stretch of sequences during which a subscription had the same options: a message belongs to the span that
// holds its sequence. So subscribing never delivers the past, unsubscribing completes what was started
// [MQTT-3.10.4-3], and changed options do not rewrite what is pending.
type span struct {
	// The messages of the span have from < seq, and seq <= until unless until is 0: still open.
	from, until uint64
	id          uint32
	opts        options
}

func (s *span) open() bool            { return s.until == 0 }
func (s *span) holds(seq uint64) bool { return seq > s.from && (s.until == 0 || seq <= s.until) }

// subscription is a session's subscription to one filter: its spans in the order of time.
//
// Invariant: only the last span may be open or have QoS 0; a span with QoS 0 is open (nothing is pending under it);
// spans do not overlap; there is at least one.
type subscription struct {
	filter *filter
	spans  []span
	// seen is the stream's place of the first message that the session has not passed: what the stream has removed
	// beyond it is lost to the session.
	seen uint64
}

// current is the open span, nil after an unsubscribe.
func (b *subscription) current() *span {
	if n := len(b.spans); n > 0 && b.spans[n-1].open() {
		return &b.spans[n-1]
	}
	return nil
}

// queued tells whether the subscription takes part in the stream.
func (b *subscription) queued() bool { return len(b.spans) > 0 && b.spans[0].opts.qos() > 0 }

// live tells whether it gets new messages from the stream.
func (b *subscription) live() bool {
	c := b.current()
	return c != nil && c.opts.qos() > 0
}

// position is the sequence up to which the stream is nothing to the subscription.
func (b *subscription) position(cursor uint64) uint64 { return max(cursor, b.spans[0].from) }

// spanOf is the span with a QoS above 0 that holds seq, or nil.
func (b *subscription) spanOf(seq uint64) *span {
	for i := range b.spans {
		if s := &b.spans[i]; s.holds(seq) && s.opts.qos() > 0 {
			return s
		}
	}
	return nil
}

// change lets mutate change the spans and keeps the stream's counts of the subscription right.
func (st *state) change(s *session, b *subscription, mutate func()) {
	f := b.filter
	wasQueued, wasLive, cursor := b.queued(), b.live(), s.d.cursor
	var before uint64
	if wasQueued {
		before = b.position(cursor)
	}
	mutate()
	if b.queued() && f.stream == nil {
		st.touchFilter(f)
		f.stream = &stream{last: st.seq}
		st.streams++
	}
	m := f.stream
	switch {
	case wasQueued && b.queued():
		m.positions.move(before, b.position(cursor), m.last)
	case wasQueued:
		m.positions.remove(before, m.last)
	case b.queued():
		m.positions.add(b.position(cursor), m.last)
		b.seen = m.base + uint64(st.search(m, b.position(cursor)))
	}
	if b.live() && !wasLive {
		m.open++
	} else if !b.live() && wasLive {
		m.open--
	}
}

// settle removes the spans in which nothing is pending any more, and trims the stream.
func (st *state) settle(s *session, b *subscription) {
	for len(b.spans) > 0 && st.finished(s, b) {
		st.effect(effectSpanClose, s.serial, b.spans[0].from)
		st.change(s, b, func() { b.spans = slices.Delete(b.spans, 0, 1) })
	}
	if b.filter.stream != nil {
		st.trimStream(b.filter, trimUnits)
	}
}

// finished tells whether the first span is closed and the session is done with it.
func (st *state) finished(s *session, b *subscription) bool {
	first := &b.spans[0]
	if first.open() {
		return false
	}
	pos := b.position(s.d.cursor)
	if first.until <= pos || first.opts.qos() == 0 {
		return true
	}
	m := b.filter.stream
	i := st.search(m, pos)
	return i == m.slots.count || st.seqAt(m, i) > first.until
}

// findSub finds a session's subscription to a filter, or where it belongs.
func (d *durable) findSub(name string) (int, bool) {
	return slices.BinarySearchFunc(d.subs, name, func(b subscription, name string) int {
		return strings.Compare(b.filter.name, name)
	})
}

// removeSub forgets a subscription without spans.
func (st *state) removeSub(s *session, i int) {
	f := s.d.subs[i].filter
	st.effect(effectSubscriptionGone, s.serial, uint64(f.index))
	s.d.subs = slices.Delete(s.d.subs, i, i+1)
	f.subs--
	st.dropFilter(f)
}

// leaveFilter takes an ending session's subscription from its filter.
func (st *state) leaveFilter(s *session, b *subscription) {
	st.change(s, b, func() { b.spans = nil })
	b.filter.subs--
	if b.filter.stream != nil {
		st.trimStream(b.filter, trimUnits)
	}
	st.dropFilter(b.filter)
}
