package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"quorate/cmd/quorate/internal/client"
	"quorate/protocol/packet"
)

// publisher sends messages and follows their exchanges over as many connections as it takes. One goroutine owns it.
type publisher struct {
	*mqttClient
	source  func() ([]byte, error)
	message packet.Publish // what all messages have in common
	delay   time.Duration  // between two messages

	payloads chan next
	over     bool // the source has ended
	window   int
	inflight []*exchange // Invariant: in the order of first sending; at most window long when the last was added
	lastID   uint16
	worst    int // exit code: the last failing Reason Code of an acknowledgement
}

// exchange is one QoS 1 or 2 message whose acknowledgement is not complete.
type exchange struct {
	message  packet.Publish
	received bool // PUBREC came: only PUBREL is owed
}

// next is what the source gave.
type next struct {
	payload []byte
	err     error
}

// incoming is what the reading goroutine got: an acknowledgement, or why there are no more.
type incoming struct {
	ack packet.Packet
	err error
}

func newPublisher(m *mqttClient, source func() ([]byte, error)) *publisher {
	p := &publisher{mqttClient: m, source: source, message: m.opt.message("publish"), delay: m.opt.pub.repeatDelay}
	p.message.Topic, p.message.QoS, p.message.Retain = m.opt.topics[0], m.opt.qos, m.opt.pub.retain
	p.payloads = make(chan next, 64)
	return p
}

// run publishes everything. It ends with an error when the first connection fails, or a later one for good.
func (p *publisher) run(ctx context.Context) error {
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	defer close(done)
	go p.feed(done)
	for {
		err := p.serve(ctx, conn)
		var gone *client.DisconnectedError
		var final *finalError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return errors.New("interrupted before everything was acknowledged")
		case errors.As(err, &final), errors.As(err, &gone) && forGood(gone.Reason):
			return err
		}
		if conn, err = p.reconnect(ctx, err); err != nil {
			return err
		}
	}
}

// finalError is one that another connection would not help against.
type finalError struct{ text string }

func (e *finalError) Error() string { return e.text }

// feed reads the source. It may wait for standard input for ever, so nobody waits for it.
func (p *publisher) feed(done <-chan struct{}) {
	for {
		payload, err := p.source()
		select {
		case p.payloads <- next{payload, err}:
		case <-done:
			return
		}
		if err != nil {
			return
		}
	}
}

// serve goes on with the messages on one connection, and closes it. Nil means that all is done.
func (p *publisher) serve(ctx context.Context, conn *client.Conn) error {
	acks := make(chan incoming, 64)
	stop := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() { readAcks(conn, acks, stop) })
	defer reading.Wait()
	defer close(stop)
	defer conn.Close()

	if err := p.resume(conn); err != nil {
		return err
	}
	var pause <-chan time.Time
	for !p.over || len(p.inflight) > 0 {
		var payloads <-chan next
		if !p.over && pause == nil && len(p.inflight) < p.window {
			payloads = p.payloads
		}
		if len(payloads) == 0 && len(acks) == 0 { // about to wait
			if err := conn.Flush(); err != nil {
				return err
			}
		}
		select {
		case n := <-payloads:
			if n.err != nil {
				if p.over = true; !errors.Is(n.err, io.EOF) {
					return &finalError{"read standard input: " + n.err.Error()}
				}
				continue
			}
			p.publish(conn, n.payload)
			if p.delay > 0 {
				pause = time.After(p.delay)
			}
		case in := <-acks:
			if in.err != nil {
				return in.err
			}
			p.acknowledge(conn, in.ack)
		case <-pause:
			pause = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	conn.Disconnect(p.opt.disconnect())
	return nil
}

// readAcks passes acknowledgements on until the connection ends.
func readAcks(conn *client.Conn, to chan<- incoming, stop <-chan struct{}) {
	for {
		got, err := conn.Next()
		in := incoming{err: err}
		switch ack := got.(type) { // copied: a packet is valid only until the next
		case *packet.Puback:
			in.ack = &packet.Puback{PacketID: ack.PacketID, ReasonCode: ack.ReasonCode}
		case *packet.Pubrec:
			in.ack = &packet.Pubrec{PacketID: ack.PacketID, ReasonCode: ack.ReasonCode}
		case *packet.Pubcomp:
			in.ack = &packet.Pubcomp{PacketID: ack.PacketID, ReasonCode: ack.ReasonCode}
		case nil:
		default:
			continue
		}
		select {
		case to <- in:
		case <-stop:
			return
		}
		if err != nil {
			return
		}
	}
}

// resume checks what this broker can do, and sends what an earlier connection left unfinished: again in the session, or
// as new messages where the broker has no session [MQTT-4.4.0-1].
func (p *publisher) resume(conn *client.Conn) error {
	q := &conn.Connack.Properties
	switch {
	case q.HasMaximumQoS && p.message.QoS > q.MaximumQoS:
		return &finalError{fmt.Sprintf("the broker takes no more than QoS %d", q.MaximumQoS)}
	case q.RetainUnavailable && p.message.Retain:
		return &finalError{"the broker keeps no retained messages"}
	}
	p.window = p.opt.pub.inflight
	if q.ReceiveMaximum != 0 {
		p.window = min(p.window, int(q.ReceiveMaximum))
	}
	present := conn.Connack.SessionPresent
	// Without a session a message whose PUBREC came is done: the broker has taken it, and there is nothing to release.
	p.inflight = slices.DeleteFunc(p.inflight, func(e *exchange) bool { return e.received && !present })
	for _, e := range p.inflight {
		if e.received {
			conn.Queue(&packet.Pubrel{PacketID: e.message.PacketID})
			continue
		}
		e.message.Dup = present
		conn.Queue(&e.message)
	}
	return nil
}

// publish sends one new message.
func (p *publisher) publish(conn *client.Conn, payload []byte) {
	m := p.message
	m.Payload = payload
	if most := conn.Connack.Properties.MaximumPacketSize; most != 0 && m.Size(p.opt.version) > int(most) {
		p.complain("Warning: the message is larger than the broker takes (%d bytes): not sent.", most)
		p.worst = int(packet.PacketTooLarge)
		return
	}
	if m.QoS > 0 {
		m.PacketID = p.freeID()
		p.inflight = append(p.inflight, &exchange{message: m})
	}
	conn.Queue(&m)
}

// freeID is the next Packet Identifier that is not in use.
func (p *publisher) freeID() uint16 {
	for {
		p.lastID++
		if p.lastID != 0 && p.find(p.lastID) < 0 {
			return p.lastID
		}
	}
}

func (p *publisher) find(id uint16) int {
	return slices.IndexFunc(p.inflight, func(e *exchange) bool { return e.message.PacketID == id })
}

// acknowledge takes an exchange one step on.
func (p *publisher) acknowledge(conn *client.Conn, ack packet.Packet) {
	switch ack := ack.(type) {
	case *packet.Puback:
		p.finish(ack.PacketID, ack.ReasonCode)
	case *packet.Pubrec:
		if ack.ReasonCode.Failed() {
			p.finish(ack.PacketID, ack.ReasonCode)
			return
		}
		if i := p.find(ack.PacketID); i >= 0 {
			p.inflight[i].received = true
		}
		conn.Queue(&packet.Pubrel{PacketID: ack.PacketID})
	case *packet.Pubcomp:
		// Not found says that the exchange was complete before the connection was lost.
		p.finish(ack.PacketID, packet.Success)
	}
}

func (p *publisher) finish(id uint16, reason packet.ReasonCode) {
	i := p.find(id)
	if i < 0 {
		return
	}
	p.inflight = slices.Delete(p.inflight, i, i+1)
	if reason.Failed() {
		p.complain("Warning: Publish %d failed: %s.", id, reason)
		p.worst = int(reason)
	}
}
