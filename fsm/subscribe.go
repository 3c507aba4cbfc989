package fsm

import (
	"slices"

	"quorate/fsm/command"
	"quorate/protocol/packet"
	"quorate/protocol/topic"
)

// parseFilter takes a filter of a SUBSCRIBE apart and checks all of it.
func parseFilter(name string) (share, inner string, shared bool, err error) {
	share, inner, shared, err = topic.ParseShared(name)
	if err == nil {
		err = topic.ValidateFilter(inner)
	}
	return share, inner, shared, err
}

// subscribe applies a SUBSCRIBE.
func (st *state) subscribe(c *command.Subscribe, l *life, r *Result) {
	st.changeRoutes(c.Routes, nil, l)
	s := st.owned(c.Ref)
	if s == nil {
		r.Stale = true
		return
	}
	st.touchSession(s)
	r.Seq = st.seq
	for i := range c.Subscriptions {
		b := &c.Subscriptions[i]
		code, existed := st.subscribeOne(s, b, c.ID)
		r.Codes = append(r.Codes, code)
		r.Existed = append(r.Existed, existed)
		wanted := b.RetainHandling == 0 || b.RetainHandling == 1 && !existed
		if code == packet.ReasonCode(b.QoS) && b.QoS > 0 && wanted {
			st.owe(s, b, c.ID)
		}
	}
	if s.d != nil && len(s.d.owed) > 0 {
		st.copyOwed(s, tickUnits)
	}
}

// subscribeOne makes or replaces one subscription [MQTT-3.8.4-3].
func (st *state) subscribeOne(s *session, c *command.Subscription, id uint32) (code packet.ReasonCode, existed bool) {
	share, inner, shared, err := parseFilter(c.Filter)
	if err != nil {
		return packet.TopicFilterInvalid, false
	}
	if shared {
		return st.joinGroup(s, c, share, inner, id)
	}
	if !s.persistent {
		return packet.ReasonCode(c.QoS), false
	}
	d := s.d
	i, found := d.findSub(c.Filter)
	if !found {
		if len(d.subs)+len(d.shares) >= int(st.limits.MaxSubscriptionsPerSession) {
			return packet.QuotaExceeded, false
		}
		f := st.filterFor(c.Filter)
		f.subs++
		d.subs = slices.Insert(d.subs, i, subscription{filter: f})
	}
	b := &d.subs[i]
	existed = b.current() != nil
	if !st.openSpan(s, b, span{from: st.seq, id: id, opts: packOptions(c)}) {
		return packet.QuotaExceeded, existed
	}
	return packet.ReasonCode(c.QoS), existed
}

func packOptions(c *command.Subscription) options {
	o := options(c.QoS&3) | options(c.RetainHandling&3)<<4
	if c.NoLocal {
		o |= 4
	}
	if c.RetainAsPublished {
		o |= 8
	}
	return o
}

// openSpan puts the subscription under new options from now on. It refuses when the pending spans are too many.
func (st *state) openSpan(s *session, b *subscription, next span) bool {
	if c := b.current(); c != nil && c.id == next.id && c.opts == next.opts {
		return true
	}
	if len(b.spans) >= max(1, int(st.limits.MaxSpans)) && !st.replaces(b) {
		return false
	}
	st.effect(effectSpanOpen, s.serial, uint64(b.filter.index))
	st.effect(effectSpanOpen, next.from, uint64(next.opts)<<32|uint64(next.id))
	st.change(s, b, func() {
		st.closeSpan(b)
		b.spans = append(b.spans, next)
	})
	st.settle(s, b)
	return true
}

// replaces tells whether closing the open span leaves nothing of it.
func (st *state) replaces(b *subscription) bool {
	c := b.current()
	return c != nil && (c.opts.qos() == 0 || c.from == st.seq)
}

// closeSpan ends the open span; one in which nothing can be pending goes at once.
func (st *state) closeSpan(b *subscription) {
	c := b.current()
	if c == nil {
		return
	}
	if st.replaces(b) {
		b.spans = b.spans[:len(b.spans)-1]
		return
	}
	c.until = st.seq
}

// unsubscribe applies an UNSUBSCRIBE.
func (st *state) unsubscribe(c *command.Unsubscribe, l *life, r *Result) {
	s := st.owned(c.Ref)
	if s == nil {
		// The routes are the node's, not the connection's.
		st.changeRoutes(nil, c.Routes, l)
		r.Stale = true
		return
	}
	st.touchSession(s)
	for _, name := range c.Filters {
		r.Codes = append(r.Codes, st.unsubscribeOne(s, name))
	}
	st.changeRoutes(nil, c.Routes, l)
}

func (st *state) unsubscribeOne(s *session, name string) packet.ReasonCode {
	share, inner, shared, err := parseFilter(name)
	switch {
	case err != nil:
		return packet.TopicFilterInvalid
	case shared:
		return st.leaveGroup(s, share, inner)
	case !s.persistent:
		return packet.Success // the node knows whether there was one
	}
	i, found := s.d.findSub(name)
	if !found || s.d.subs[i].current() == nil {
		return packet.NoSubscriptionExisted
	}
	b := &s.d.subs[i]
	st.effect(effectSpanClose, s.serial, uint64(b.filter.index))
	st.change(s, b, func() { st.closeSpan(b) })
	st.settle(s, b)
	if len(b.spans) == 0 {
		st.removeSub(s, i)
	}
	s.d.disown(name)
	return packet.Success
}
