package client

import (
	"io"
	"sync"
	"time"

	"quorate/protocol/packet"
)

// Close ends the connection: with a DISCONNECT when the client has version 5 and was accepted, else just so. Only the
// first call counts. reference is the Server Reference, for UseAnotherServer; "" for none.
func (c *Conn) Close(reason packet.ReasonCode, reference string) {
	c.out.mu.Lock()
	accepted := c.out.accepted
	if c.out.reason == 0 && !c.out.closing {
		c.out.reason = reason
	}
	c.out.mu.Unlock()
	if !accepted || c.deal.Receiver.Version != packet.V5 || !reason.Failed() || !reason.ValidFor(packet.TypeDisconnect, packet.FromServer) {
		c.shut(nil)
		return
	}
	d := &packet.Disconnect{ReasonCode: reason}
	d.Properties.ServerReference = reference
	enc, _ := c.deal.Receiver.Append(nil, d)
	if len(enc) == 0 && reference != "" {
		enc, _ = c.deal.Receiver.Append(nil, &packet.Disconnect{ReasonCode: reason})
	}
	c.shut(enc)
}

// shut stops reading and queueing; last is the last packet, nil for none. What is queued goes out within CloseTimeout.
func (c *Conn) shut(last []byte) {
	o := &c.out
	o.mu.Lock()
	if o.closing {
		o.mu.Unlock()
		return
	}
	start := false
	if len(last) > 0 {
		start = c.queue(last, packet.TypeDisconnect)
	}
	c.markClosing()
	o.mu.Unlock()
	c.start(start, nil)
}

// markClosing begins the end; out.mu is held.
func (c *Conn) markClosing() {
	o := &c.out
	if o.closing {
		return
	}
	o.closing = true
	c.open.Store(false)
	if c.done == nil {
		c.done = ended
	} else {
		close(c.done)
	}
	now := time.Now()
	// Errors mean that the connection is closed already.
	_ = c.nc.SetReadDeadline(now)
	_ = c.nc.SetWriteDeadline(now.Add(c.cfg.CloseTimeout))
}

// fail ends the connection without writing any more; out.mu is held.
func (c *Conn) fail() {
	c.out.failed = true
	c.out.sealed, c.out.buf = nil, nil
	c.markClosing()
	_ = c.nc.SetWriteDeadline(time.Now())
}

// Bounds of lingering: a socket closed with unread bytes resets the connection, and the client may lose our last packet.
const (
	lingerBytesMax = 64 << 10
	lingerTimeMax  = 200 * time.Millisecond
)

// finish waits for the writer, then closes the socket.
func (c *Conn) finish() {
	o := &c.out
	o.mu.Lock()
	c.markClosing()
	for o.writing {
		if o.idle == nil {
			o.idle = sync.NewCond(&o.mu)
		}
		o.idle.Wait()
	}
	linger := !o.failed && o.reason != 0
	o.mu.Unlock()
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok && linger && half.CloseWrite() == nil {
		if c.nc.SetReadDeadline(time.Now().Add(lingerTimeMax)) == nil {
			_, _ = io.CopyN(io.Discard, c.nc, lingerBytesMax)
		}
	}
	_ = c.nc.Close()
}
