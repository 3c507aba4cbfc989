package broker

import (
	"strconv"
	"strings"
	"time"

	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/fsm/mutant"
	"quorate/node/session"
	"quorate/protocol/packet"
	"quorate/protocol/topic"
)

// Prefixes of topics and filters that mean something to the broker.
const (
	sharePrefix   = "$share/"
	delayedPrefix = "$delayed/"
	sysPrefix     = "$SYS/"
)

// publish handles a PUBLISH of the client. p is valid only during the call.
func (l *link) publish(p *packet.Publish) error {
	f := l.fanOut()
	f.published[p.QoS]++
	f.publishedBytes += uint64(len(p.Payload))
	if err := l.resolveAlias(p); err != nil {
		return err
	}
	delay, code := l.admit(p)
	if p.QoS == 0 {
		if !code.Failed() {
			l.publishQoS0(p, delay)
		}
		return nil
	}
	t, again, err := l.receive(p)
	if err != nil {
		return err
	}
	if code.Failed() {
		return l.refuse(t, code)
	}
	if again && !l.durable {
		l.answer(t, packet.Success, nil, l.batch()) // PUBREC again, and no second publish [MQTT-4.3.3-10]
		return nil
	}
	return l.publishAcked(p, t, delay)
}

// resolveAlias puts the topic of a Topic Alias into the packet, or remembers it.
func (l *link) resolveAlias(p *packet.Publish) error {
	if p.TopicAlias == 0 {
		return nil
	}
	alias := int(p.TopicAlias)
	if alias > l.b.cfg.TopicAliasMaximum {
		return &packet.Error{Reason: packet.TopicAliasInvalid, Text: "topic alias above the maximum"} // [MQTT-3.2.2-17]
	}
	if l.aliases == nil {
		l.aliases = make([]string, l.b.cfg.TopicAliasMaximum+1)
	}
	if p.Topic == "" {
		if p.Topic = l.aliases[alias]; p.Topic == "" {
			return &packet.Error{Reason: packet.ProtocolError, Text: "topic alias that was not set"}
		}
		return nil
	}
	l.aliasBytes += len(p.Topic) - len(l.aliases[alias])
	if l.aliasBytes > l.b.cfg.AliasBytesMax {
		return &packet.Error{Reason: packet.TopicAliasInvalid, Text: "topics of the aliases are too long together"}
	}
	l.aliases[alias] = p.Topic
	return nil
}

// tooDeep reports whether a Topic Name has more levels than any Topic Filter may have. The decoder has checked the rest.
func tooDeep(name string) bool { return strings.Count(name, "/") >= topic.MaxLevels }

// admit decides whether the client may publish this, and takes $delayed/SECONDS/ off the topic.
func (l *link) admit(p *packet.Publish) (delay uint32, code packet.ReasonCode) {
	if tooDeep(p.Topic) {
		l.b.metrics.RefusedTopic.Add(1)
		return 0, packet.TopicNameInvalid
	}
	if p.Topic[0] == '$' {
		if delay, code = l.special(p); code.Failed() {
			l.b.metrics.RefusedTopic.Add(1)
			return 0, code
		}
	}
	if !l.mayPublish(p.Topic) {
		l.b.metrics.RefusedAccess.Add(1)
		return 0, packet.NotAuthorized
	}
	return delay, packet.Success
}

func (l *link) special(p *packet.Publish) (delay uint32, code packet.ReasonCode) {
	if strings.HasPrefix(p.Topic, sharePrefix) {
		return 0, packet.TopicNameInvalid
	}
	rest, delayed := strings.CutPrefix(p.Topic, delayedPrefix)
	if !delayed {
		return 0, packet.Success
	}
	seconds, name, found := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(seconds, 10, 32)
	if !found || err != nil || n > uint64(l.b.cfg.DelayMax/time.Second) || topic.ValidateName(name) != nil ||
		strings.HasPrefix(name, sharePrefix) || strings.HasPrefix(name, delayedPrefix) {
		return 0, packet.TopicNameInvalid
	}
	p.Topic = name
	return uint32(n), packet.Success
}

// receive notes that an answer is owed, within the bounds of the connection.
func (l *link) receive(p *packet.Publish) (t session.Ticket, again bool, err error) {
	size := len(p.Topic) + len(p.Forwarded) + len(p.Payload)
	if l.version == packet.V5 {
		l.mu.Lock()
		exceeded := l.in.Exceeded(p.QoS, p.PacketID)
		l.mu.Unlock()
		if exceeded {
			return 0, false, &packet.Error{Reason: packet.ReceiveMaximumExceeded, Text: "more than Receive Maximum unfinished"}
		}
	}
	if err := l.roomFor(size); err != nil {
		return 0, false, err
	}
	l.mu.Lock()
	t, again = l.in.Publish(p.QoS, p.PacketID, size)
	l.mu.Unlock()
	return t, again, nil
}

// refuse answers a QoS>0 PUBLISH that is not taken. Version 3 has no answer for that: what the client may not do is
// acknowledged and dropped, anything else ends the connection.
func (l *link) refuse(t session.Ticket, code packet.ReasonCode) error {
	if l.version != packet.V5 && code != packet.NotAuthorized {
		return &packet.Error{Reason: code, Text: "publish refused"}
	}
	l.answer(t, code, nil, l.batch())
	return nil
}

// publishQoS0 sends a QoS 0 message on its way. It is dropped where a bound is hit.
func (l *link) publishQoS0(p *packet.Publish, delay uint32) {
	// Behind an own message that is on its way through the log, order asks for the log as well (P8).
	if p.Retain || delay > 0 || l.logged[0].Load() > 0 {
		l.logged[0].Add(1)
		c := l.command(p, delay)
		err := l.b.log.Propose(&c, func(r fsm.Result, err error) {
			l.after.Store(l.b.machine.Applied() + 1)
			l.logged[0].Add(-1)
		})
		if err != nil {
			l.logged[0].Add(-1)
			l.b.metrics.DroppedOverload.Add(1)
			return
		}
		l.b.metrics.Logged.Add(1)
		return
	}
	d := l.decision(p.Topic)
	f := l.fanOut()
	f.msg = l.message(p)
	f.begin(&f.msg)
	f.deliverTo(d.matched, direct)
	l.b.forward(f.m, &d.route, f, l.after.Load())
	if f.sent == 0 && len(d.route.Peers) == 0 && len(d.route.Groups) == 0 {
		l.b.metrics.Unmatched.Add(1)
	}
	f.end()
}

// message makes a message of a PUBLISH. It aliases the packet.
func (l *link) message(p *packet.Publish) message {
	m := message{
		topic: p.Topic, forwarded: p.Forwarded, payload: p.Payload, qos: p.QoS, retain: p.Retain, publisher: l.serial,
	}
	if p.HasExpiry {
		m.deadline = l.b.now() + uint64(p.ExpirySeconds)*1000
	}
	return m
}

func (l *link) command(p *packet.Publish, delay uint32) command.Publish {
	c := command.Publish{Ref: l.ref, DelaySeconds: delay, Message: command.Message{
		Topic: p.Topic, QoS: p.QoS, Retain: p.Retain, HasExpiry: p.HasExpiry, ExpirySeconds: p.ExpirySeconds,
		Forwarded: p.Forwarded, Payload: p.Payload,
	}}
	if p.QoS == 2 && l.durable {
		c.PacketID = p.PacketID
	}
	return c
}

// publishAcked sends a QoS 1 or 2 message on its way and sees to its acknowledgement.
func (l *link) publishAcked(p *packet.Publish, t session.Ticket, delay uint32) error {
	if !p.Retain && delay == 0 && !(p.QoS == 2 && l.durable) && l.logged[p.QoS].Load() == 0 {
		if d := l.decision(p.Topic); d.local(l.b.cfg.Node) {
			l.publishDirect(p, t, d)
			return nil
		}
	}
	if l.straight[p.QoS].Load() > 0 {
		// A publisher changes road only when its earlier messages on the other one are finished (P8).
		if err := l.wait(func() bool { return l.straight[p.QoS].Load() == 0 }); err != nil {
			return err
		}
	}
	c := l.command(p, delay)
	return l.publishLogged(&c, t)
}

// publishLogged proposes a message and answers when it is applied here.
func (l *link) publishLogged(c *command.Publish, t session.Ticket) error {
	qos := c.QoS
	l.logged[qos].Add(1)
	err := l.b.log.Propose(c, func(r fsm.Result, err error) {
		l.after.Store(l.b.machine.Applied() + 1)
		l.logged[qos].Add(-1)
		if !mutant.AckBeforeCommit {
			l.published(t, &r, err, c.DelaySeconds > 0)
		}
	})
	if err == nil {
		if mutant.AckBeforeCommit {
			l.answer(t, packet.Success, nil, l.batch())
		}
		l.b.metrics.Logged.Add(1)
		return nil
	}
	l.logged[qos].Add(-1)
	l.b.metrics.RefusedQuota.Add(1)
	return l.refuse(t, packet.QuotaExceeded)
}

// published answers a PUBLISH that was on the log road; on the apply goroutine.
func (l *link) published(t session.Ticket, r *fsm.Result, err error, delayed bool) {
	if !l.valid(r, err) {
		return
	}
	code := r.Code
	switch {
	case code.Failed():
		l.b.metrics.RefusedQuota.Add(1)
		if l.version != packet.V5 {
			l.conn.Close(code, "")
			return
		}
	case r.Duplicate || delayed:
		code = packet.Success
	case !r.Matched && code == packet.Success:
		code = packet.NoMatchingSubscribers
	}
	l.answer(t, code, nil, l.b.applied())
}
