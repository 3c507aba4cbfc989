package broker

import (
	"slices"
	"strings"

	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/node/session"
	"quorate/protocol/packet"
	"quorate/protocol/topic"
)

// subscribing is a SUBSCRIBE on its way through the log.
type subscribing struct {
	l      *link
	ticket session.Ticket
	id     uint32
	codes  []packet.ReasonCode // of the refused filters; the others come from the log
	asked  []int               // indexes of the filters that were proposed
	list   []command.Subscription
	routes []string // filters counted in routes
}

// subscribe handles a SUBSCRIBE of the client.
func (l *link) subscribe(p *packet.Subscribe) error {
	if err := l.roomFor(0); err != nil {
		return err
	}
	s := &subscribing{l: l, id: p.SubscriptionID, codes: make([]packet.ReasonCode, len(p.Subscriptions))}
	bytes := 0
	for i := range p.Subscriptions {
		f := &p.Subscriptions[i]
		bytes += len(f.Filter)
		if l.bridge && !strings.HasPrefix(f.Filter, sharePrefix) {
			// What version 5 has options for, older bridges expect: RETAIN as it was, and nothing of their own back.
			f.NoLocal, f.RetainAsPublished = true, true
		}
		code, skip, err := l.examineFilter(f, len(s.list))
		if err != nil {
			return err
		}
		s.codes[i] = code
		if code.Failed() || skip {
			continue
		}
		s.asked = append(s.asked, i)
		s.list = append(s.list, command.Subscription{
			Filter: f.Filter, QoS: f.QoS, NoLocal: f.NoLocal, RetainAsPublished: f.RetainAsPublished, RetainHandling: f.RetainHandling,
		})
		if !strings.HasPrefix(f.Filter, sharePrefix) {
			s.routes = append(s.routes, f.Filter)
		}
	}
	l.mu.Lock()
	s.ticket = l.in.Request(packet.TypeSuback, p.PacketID, bytes)
	l.mu.Unlock()
	if len(s.list) == 0 {
		l.answer(s.ticket, packet.Success, s.codes, l.batch())
		return nil
	}
	return s.propose()
}

// examineFilter decides on one Topic Filter. With skip, version 3.1 is told that it subscribes, because its SUBACK knows
// no refusal, and does not. An error ends the connection.
func (l *link) examineFilter(f *packet.Subscription, asked int) (code packet.ReasonCode, skip bool, err error) {
	_, inner, shared, perr := topic.ParseShared(f.Filter)
	switch {
	case shared && f.NoLocal:
		return 0, false, &packet.Error{Reason: packet.ProtocolError, Text: "no local on a shared subscription"} // [MQTT-3.8.3-4]
	case perr != nil || topic.ValidateFilter(f.Filter) != nil:
		l.b.metrics.RefusedTopic.Add(1)
		code = packet.TopicFilterInvalid
	case !l.b.cfg.Access.MaySubscribe(&l.who, inner):
		l.b.metrics.RefusedAccess.Add(1)
		code = packet.NotAuthorized
	default:
		l.mu.Lock()
		_, known := l.subs[f.Filter]
		full := !known && len(l.subs)+asked >= l.b.cfg.SubscriptionsMax
		l.mu.Unlock()
		if full {
			l.b.metrics.RefusedQuota.Add(1)
			code = packet.QuotaExceeded
		}
	}
	if code.Failed() && l.version == packet.V31 {
		return packet.ReasonCode(f.QoS), true, nil
	}
	return code, false, nil
}

func (s *subscribing) propose() error {
	l := s.l
	if err := l.b.routes.acquire(s.routes); err != nil {
		return s.overloaded()
	}
	c := &command.Subscribe{Ref: l.ref, ID: s.id, Subscriptions: s.list}
	l.subscribing.Add(1)
	if err := l.b.log.Propose(c, s.applied); err != nil {
		l.subscribing.Add(-1)
		l.b.routes.release(s.routes)
		return s.overloaded()
	}
	return nil
}

func (s *subscribing) overloaded() error {
	s.l.b.metrics.RefusedQuota.Add(1)
	if s.l.version != packet.V5 {
		return overloaded()
	}
	for _, i := range s.asked {
		s.codes[i] = packet.QuotaExceeded
	}
	s.l.answer(s.ticket, packet.Success, s.codes, s.l.batch())
	return nil
}

// applied is the callback of the Subscribe command, on the apply goroutine: from here on the live tree serves the
// subscription, and the retained messages are read at exactly this state (P5).
func (s *subscribing) applied(r fsm.Result, err error) {
	l := s.l
	l.subscribing.Add(-1)
	if !l.valid(&r, err) {
		l.b.routes.release(s.routes)
		return
	}
	var surplus []string // filters that were counted and need not be
	var jobs []retainedJob
	for n, i := range s.asked {
		f := &s.list[n]
		code := packet.ReasonCode(f.QoS)
		if n < len(r.Codes) {
			code = r.Codes[n]
		}
		s.codes[i] = code
		shared := strings.HasPrefix(f.Filter, sharePrefix)
		switch {
		case code.Failed():
			if !shared {
				surplus = append(surplus, f.Filter)
			}
			continue
		case shared:
			l.shared.Store(true)
			l.wake(everything, l.b.applied())
			continue // no retained messages for shared subscriptions
		}
		o := &options{link: l, id: s.id, qos: byte(code), noLocal: f.NoLocal, rap: f.RetainAsPublished}
		existed := !l.setSubscription(f.Filter, o)
		if existed {
			surplus = append(surplus, f.Filter)
		}
		if f.RetainHandling == 0 || f.RetainHandling == 1 && !existed {
			jobs = append(jobs, retainedJob{filter: f.Filter, opts: o})
		}
	}
	l.b.routes.release(surplus)
	l.suback(s, jobs)
	l.wake(everything, l.b.applied())
}

// suback sends the SUBACK and then the retained messages, as far as they fit.
func (l *link) suback(s *subscribing, jobs []retainedJob) {
	l.mu.Lock()
	if l.version == packet.V311 {
		for i, c := range s.codes {
			if c.Failed() {
				s.codes[i] = packet.UnspecifiedError // the one failure code of 3.1.1 [MQTT-3.9.3-2]
			}
		}
	}
	l.finish(s.ticket, packet.Success, s.codes, l.b.applied())
	first := len(l.retained) == 0
	if !l.closed {
		l.retained = append(l.retained, jobs...)
	}
	l.mu.Unlock()
	if first && len(jobs) > 0 {
		l.readRetained(retainedFirstPage)
	}
}

// setSubscription adds or replaces a subscription in the live tree; added is true when it was not there.
func (l *link) setSubscription(filter string, o *options) (added bool) {
	o.link = l
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if s, ok := l.subs[filter]; ok {
		s.opts.Store(o)
		return false
	}
	s := &sub{}
	s.opts.Store(o)
	if l.subs == nil {
		l.subs = make(map[string]*sub)
	}
	l.subs[filter] = s
	l.b.live.add(filter, s)
	return true
}

// unsubscribe handles an UNSUBSCRIBE of the client.
func (l *link) unsubscribe(p *packet.Unsubscribe) error {
	if err := l.roomFor(0); err != nil {
		return err
	}
	bytes := 0
	for _, f := range p.Filters {
		bytes += len(f)
	}
	filters := slices.Clone(p.Filters)
	l.mu.Lock()
	t := l.in.Request(packet.TypeUnsuback, p.PacketID, bytes)
	l.mu.Unlock()
	err := l.b.log.Propose(&command.Unsubscribe{Ref: l.ref, Filters: filters}, func(r fsm.Result, err error) {
		l.unsubscribed(filters, t, &r, err)
	})
	if err != nil {
		return overloaded()
	}
	return nil
}

// unsubscribed is the callback of the Unsubscribe command, on the apply goroutine.
func (l *link) unsubscribed(filters []string, t session.Ticket, r *fsm.Result, err error) {
	if !l.valid(r, err) {
		return
	}
	codes := make([]packet.ReasonCode, len(filters))
	var removed []string
	l.mu.Lock()
	for i, f := range filters {
		s, ok := l.subs[f]
		switch {
		case l.durable || strings.HasPrefix(f, sharePrefix):
			if i < len(r.Codes) {
				codes[i] = r.Codes[i]
			}
		case !ok: // the log does not know the plain subscriptions of a transient Session
			codes[i] = packet.NoSubscriptionExisted
		}
		if !ok {
			continue
		}
		delete(l.subs, f)
		l.b.live.remove(f, s)
		removed = append(removed, f)
		l.retained = slices.DeleteFunc(l.retained, func(j retainedJob) bool { return j.filter == f })
	}
	l.finish(t, packet.Success, codes, l.b.applied())
	l.mu.Unlock()
	l.b.routes.release(removed)
}
