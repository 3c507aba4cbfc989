package client

import (
	"slices"
	"time"

	"quorate/protocol/packet"
	"quorate/scripts/faults/check"
)

// Publication is one PUBLISH on its way.
type Publication struct {
	op       uint64
	packet   packet.Publish
	attempts int
	released bool          // QoS 2: PUBREC came, PUBREL is sent instead
	done     chan struct{} // closed when it has ended
	err      error         // set before done is closed
}

// Done is closed when the broker owns the message (PUBACK; PUBCOMP for QoS
// 2), has refused it, or has lost the session it belonged to.
func (p *Publication) Done() <-chan struct{} { return p.done }

// Err returns, after Done, nil, a *Refused, or another error if it is not
// known whether the message was published.
func (p *Publication) Err() error { return p.err }

// Publish sends one PUBLISH on the connection that is there and returns
// without waiting. QoS 0 is done at once. Others stay with the client, also
// over connections, until they are acknowledged.
func (c *Client) Publish(name, value string, qos byte, retain bool) (*Publication, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.cur
	if k == nil {
		return nil, ErrNotConnected
	}
	p := &Publication{
		op:       c.opt.History.NextID(),
		packet:   packet.Publish{QoS: qos, Retain: retain, Topic: name, Payload: []byte(value)},
		attempts: 1,
		done:     make(chan struct{}),
	}
	if qos == 0 {
		close(p.done)
	} else {
		p.packet.PacketID = c.freeID()
		c.byID[p.packet.PacketID] = p
		c.out = append(c.out, p)
	}
	k.record(p.event(check.Publish, check.Invoke))
	k.write(&p.packet)
	return p, nil
}

// Unacked returns how many publishes have not ended.
func (c *Client) Unacked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.out)
}

func (p *Publication) event(op check.Op, phase check.Phase) check.Event {
	return check.Event{
		Op: op, Phase: phase, ID: p.op, Topic: p.packet.Topic, Value: string(p.packet.Payload),
		QoS: p.packet.QoS, Retain: p.packet.Retain, Dup: p.packet.Dup, PacketID: p.packet.PacketID,
	}
}

// connack handles the CONNACK of k and reports whether the connection goes on.
func (c *Client) connack(k *conn, ack *packet.Connack) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.signal()
	present := ack.SessionPresent
	if c.opt.Version == packet.V31 {
		present = c.known && !c.opt.CleanStart // 3.1 has no such flag: its clients believe it
	}
	e := check.Event{Op: check.Connect, ID: k.op, Present: present, Clean: c.opt.CleanStart, Keep: !c.opt.Transient}
	if ack.ReasonCode >= packet.UnspecifiedError {
		e.Phase, e.Reason = check.Fail, byte(ack.ReasonCode)
		k.record(e)
		k.refused = &Refused{ack.ReasonCode}
		close(k.ready)
		return false
	}
	e.Phase = check.OK
	k.record(e)
	if !present {
		c.forget()
	}
	c.known = !c.opt.Transient
	c.resend(k)
	c.cur = k
	k.present = present
	close(k.ready)
	return true
}

// forget drops the client's half of a session that the broker does not have.
// Called with mu held.
func (c *Client) forget() {
	if len(c.out) > 0 || len(c.in2) > 0 || len(c.subscribed) > 0 {
		c.sessionLost++
	}
	for _, p := range c.out {
		p.err = errSessionLost
		close(p.done)
	}
	c.out = nil
	clear(c.byID)
	clear(c.in2)
	clear(c.subscribed)
}

// resend sends again what has not ended, in the order it was first sent, with
// the same identifiers [MQTT-4.4.0-1] [MQTT-4.6.0-1]. Called with mu held.
func (c *Client) resend(k *conn) {
	for _, p := range c.out {
		if p.released {
			k.write(&packet.Pubrel{PacketID: p.packet.PacketID})
			continue
		}
		p.attempts++
		p.packet.Dup = true
		k.record(p.event(check.Resend, check.Note))
		k.write(&p.packet)
	}
}

// lost cleans up after k has ended.
func (c *Client) lost(k *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.signal()
	if c.cur != k {
		return
	}
	c.cur = nil
	for id, r := range c.requests {
		r.answer <- ErrLost
		delete(c.requests, id)
	}
}

// handle handles one packet and reports whether the connection goes on.
func (c *Client) handle(k *conn, p packet.Packet) bool {
	switch p := p.(type) {
	case *packet.Publish:
		return c.publish(k, p)
	case *packet.Puback:
		c.acked(k, p.PacketID, p.ReasonCode, 1)
	case *packet.Pubrec:
		c.acked(k, p.PacketID, p.ReasonCode, 2)
	case *packet.Pubcomp:
		c.completed(p.PacketID)
	case *packet.Pubrel:
		c.mu.Lock()
		delete(c.in2, p.PacketID)
		c.mu.Unlock()
		k.write(&packet.Pubcomp{PacketID: p.PacketID})
	case *packet.Suback:
		c.answered(k, p.PacketID, p.ReasonCodes)
	case *packet.Unsuback:
		c.answered(k, p.PacketID, p.ReasonCodes)
	case *packet.Pingresp:
		k.pong()
	case *packet.Disconnect:
		k.mu.Lock()
		k.reason = p.ReasonCode
		k.mu.Unlock()
		return false
	default:
		return false
	}
	return true
}

// publish takes a PUBLISH from the broker.
func (c *Client) publish(k *conn, p *packet.Publish) bool {
	m := Message{Topic: p.Topic, Payload: string(p.Payload), QoS: p.QoS, Dup: p.Dup, Retain: p.Retain, PacketID: p.PacketID, conn: k}
	c.mu.Lock()
	if p.QoS == 2 && c.in2[p.PacketID] {
		c.mu.Unlock()
		c.Ack(m)
		return true
	}
	if !k.deliver(m) {
		c.mu.Unlock()
		return false
	}
	if p.QoS == 2 {
		c.in2[p.PacketID] = true
	}
	if p.Retain && k.retained != nil && p.Topic == k.readTopic {
		k.retained <- m.Payload
		k.retained = nil
	}
	c.mu.Unlock()
	if c.opt.OnMessage != nil {
		c.opt.OnMessage(m)
	}
	if !c.opt.ManualAck {
		c.Ack(m)
	}
	return true
}

// deliver records m, and reports false if the client has given k up: then it
// has not seen m.
func (k *conn) deliver(m Message) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.c.opt.Quiet {
		return !k.dead
	}
	return k.recordLocked(check.Event{
		Op: check.Deliver, Phase: check.Note, Topic: m.Topic, Value: m.Payload,
		QoS: m.QoS, Dup: m.Dup, Retain: m.Retain, PacketID: m.PacketID,
	})
}

// Ack acknowledges m on the connection it came by: PUBACK, or PUBREC.
func (c *Client) Ack(m Message) {
	switch m.QoS {
	case 1:
		m.conn.write(&packet.Puback{PacketID: m.PacketID})
	case 2:
		m.conn.write(&packet.Pubrec{PacketID: m.PacketID})
	}
}

// acked handles PUBACK and PUBREC: from here on the broker owns the message.
func (c *Client) acked(k *conn, id uint16, reason packet.ReasonCode, qos byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.signal()
	p := c.byID[id]
	if p == nil || p.packet.QoS != qos {
		if qos == 2 {
			k.write(&packet.Pubrel{PacketID: id}) // of a session that is over: end it
		}
		return
	}
	if p.released {
		k.write(&packet.Pubrel{PacketID: id})
		return
	}
	e := p.event(check.Publish, check.OK)
	e.Reason = byte(reason)
	if reason >= packet.UnspecifiedError {
		e.Phase = check.Fail
		if p.attempts > 1 {
			e.Phase = check.Unknown // an earlier attempt may have been taken
		}
		k.record(e)
		c.remove(p, &Refused{reason})
		return
	}
	k.record(e)
	if qos == 2 {
		p.released = true
		k.write(&packet.Pubrel{PacketID: id})
		return
	}
	c.remove(p, nil)
}

// completed handles PUBCOMP: the identifier is free again.
func (c *Client) completed(id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.signal()
	if p := c.byID[id]; p != nil && p.released {
		c.remove(p, nil)
	}
}

// remove ends p. Called with mu held.
func (c *Client) remove(p *Publication, err error) {
	delete(c.byID, p.packet.PacketID)
	c.out = slices.DeleteFunc(c.out, func(o *Publication) bool { return o == p })
	p.err = err
	close(p.done)
}

// answered handles SUBACK and UNSUBACK; every request has one Topic Filter.
func (c *Client) answered(k *conn, id uint16, codes []packet.ReasonCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.requests[id]
	if r == nil {
		return
	}
	delete(c.requests, id)
	e := r.event
	e.Phase = check.OK
	var err error
	// A version 3 UNSUBACK has no codes.
	if len(codes) > 0 && codes[0] >= packet.UnspecifiedError {
		e.Phase, e.Reason = check.Fail, byte(codes[0])
		err = &Refused{codes[0]}
	}
	if e.Op != "" {
		k.record(e)
		if err == nil {
			c.subscribed[e.Topic] = e.Op == check.Subscribe
		}
	}
	r.answer <- err
}

func (k *conn) pong() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pinged = time.Time{}
}
