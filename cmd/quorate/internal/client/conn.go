// Package client is the MQTT client under "quorate pub" and "quorate sub": one Network Connection to a broker, its
// CONNECT, its Keep Alive, and packets both ways. QoS exchanges and reconnecting are the callers', who need them in
// different ways. It is no general client library.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"quorate/protocol/packet"
)

// Bounds of a connection.
const (
	// outBytesMax is how much is collected before it is written while more packets wait to be read.
	outBytesMax = 32 << 10
	// farewell bounds how long Close waits for the broker to close.
	farewell = time.Second
	// packetBytesMax is the largest packet taken when CONNECT names no smaller one: what MQTT can express.
	packetBytesMax = 268_435_460
)

// ErrKeepAlive ends a connection on which the broker no longer answers.
var ErrKeepAlive = errors.New("the broker does not answer")

// RefusedError is a CONNACK that is no success.
type RefusedError struct {
	Version packet.Version
	Reason  packet.ReasonCode
	// ServerReference names other brokers, "" none.
	ServerReference string
	ReasonString    string
}

// Error is the reason in words.
func (e *RefusedError) Error() string {
	if e.ReasonString != "" {
		return e.Reason.String() + ": " + e.ReasonString
	}
	return e.Reason.String()
}

// DisconnectedError is a DISCONNECT from the broker.
type DisconnectedError struct {
	Reason          packet.ReasonCode
	ServerReference string
	ReasonString    string
}

// Error is the reason in words.
func (e *DisconnectedError) Error() string {
	if e.ReasonString != "" {
		return "the broker disconnected: " + e.Reason.String() + ": " + e.ReasonString
	}
	return "the broker disconnected: " + e.Reason.String()
}

// Options of a connection.
type Options struct {
	// Connect is sent first.
	Connect *packet.Connect
	// Timeout bounds the CONNECT handshake and each write.
	Timeout time.Duration
	// Trace is told of every packet, for --debug; nil: nobody.
	Trace func(sent bool, p packet.Packet)
	// Idle is called before Next waits for the broker: time to write what was collected elsewhere. Nil: nothing.
	Idle func() error
}

// Conn is one Network Connection after its CONNACK. Next is for one goroutine; the other methods are for any.
type Conn struct {
	// Connack is the broker's answer. Not changed.
	Connack *packet.Connack
	// ClientID is the own Client Identifier, the assigned one if the broker assigned it.
	ClientID string

	nc      net.Conn
	opt     Options
	version packet.Version
	reader  *packet.Reader
	cancel  func() bool // ends the watch over the context
	pings   chan struct{}
	pinger  sync.WaitGroup
	once    sync.Once

	began  time.Time
	sent   atomic.Int64 // when something was last sent, since began
	silent atomic.Int64 // when a PINGREQ was sent since which nothing was received, since began; 0: none
	dead   atomic.Bool  // the Keep Alive ran out

	mu  sync.Mutex
	out []byte // Invariant: complete packets that are not written yet
}

// Connect does the CONNECT handshake on nc and takes it over: it is closed on any error. When ctx ends, reading fails
// with its cause. The error is a *RefusedError when the broker refuses.
func Connect(ctx context.Context, nc net.Conn, opt Options) (*Conn, error) {
	bytesMax := packetBytesMax
	if m := opt.Connect.Properties.MaximumPacketSize; m != 0 {
		bytesMax = int(m)
	}
	c := &Conn{
		nc: nc, opt: opt, version: opt.Connect.Version, reader: packet.NewReader(nc, bytesMax, packet.FromServer),
		ClientID: opt.Connect.ClientID, pings: make(chan struct{}), began: time.Now(),
	}
	c.reader.SetVersion(c.version)
	// A broker may break off at any moment, so a failing deadline is found by the read or write that follows.
	_ = nc.SetDeadline(time.Now().Add(opt.Timeout))
	c.cancel = context.AfterFunc(ctx, func() { _ = nc.SetReadDeadline(time.Unix(1, 0)) })
	if err := c.handshake(); err != nil {
		c.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	_ = nc.SetReadDeadline(time.Time{})
	if ctx.Err() != nil { // it may have ended just before the line above
		_ = nc.SetReadDeadline(time.Unix(1, 0))
	}
	c.startKeepAlive()
	return c, nil
}

func (c *Conn) handshake() error {
	if err := c.Send(c.opt.Connect); err != nil {
		return err
	}
	p, err := c.reader.Next()
	if err != nil {
		return fmt.Errorf("wait for CONNACK: %w", noEOF(err))
	}
	ack, ok := p.(*packet.Connack)
	if !ok {
		return fmt.Errorf("the broker answered CONNECT with %s", p.Type())
	}
	c.trace(false, ack)
	kept := *ack
	c.Connack = &kept
	if ack.ReasonCode != packet.Success {
		q := &ack.Properties
		return &RefusedError{Version: c.version, Reason: ack.ReasonCode, ServerReference: q.ServerReference, ReasonString: q.ReasonString}
	}
	if id := ack.Properties.AssignedClientID; id != "" {
		c.ClientID = id
	}
	return nil
}

// keepAlive is the interval in force, 0 for none [MQTT-3.1.2-21].
func (c *Conn) keepAlive() time.Duration {
	s := c.opt.Connect.KeepAlive
	if c.Connack.Properties.HasServerKeepAlive {
		s = c.Connack.Properties.ServerKeepAlive
	}
	return time.Duration(s) * time.Second
}

// startKeepAlive sends PINGREQ when nothing else was sent for half the Keep Alive. It looks every quarter, so that never
// more than three quarters pass in silence [MQTT-3.1.2-20].
func (c *Conn) startKeepAlive() {
	interval := c.keepAlive()
	if interval == 0 {
		return
	}
	c.pinger.Go(func() {
		ticker := time.NewTicker(interval / 4)
		defer ticker.Stop()
		for {
			select {
			case <-c.pings:
				return
			case <-ticker.C:
			}
			now := time.Since(c.began)
			since := time.Duration(c.silent.Load())
			if since > 0 && now-since >= interval {
				c.dead.Store(true)
				_ = c.nc.Close()
				return
			}
			if since == 0 && now-time.Duration(c.sent.Load()) >= interval/2 {
				c.silent.Store(int64(now))
				if c.Send(&packet.Pingreq{}) != nil {
					return // the reader finds out why
				}
			}
		}
	})
}

// Next returns the next packet of the broker. It is valid until the next call. What was queued is written before Next
// waits. A DISCONNECT comes as a *DisconnectedError.
func (c *Conn) Next() (packet.Packet, error) {
	for {
		if err := c.beforeWait(); err != nil {
			return nil, err
		}
		p, err := c.reader.Next()
		if err != nil {
			if c.dead.Load() {
				return nil, ErrKeepAlive
			}
			return nil, noEOF(err)
		}
		c.silent.Store(0)
		c.trace(false, p)
		switch p := p.(type) {
		case *packet.Pingresp:
		case *packet.Disconnect:
			q := &p.Properties
			return nil, &DisconnectedError{Reason: p.ReasonCode, ServerReference: q.ServerReference, ReasonString: q.ReasonString}
		default:
			return p, nil
		}
	}
}

// beforeWait writes what waits when there is nothing more to read, or too much of it.
func (c *Conn) beforeWait() error {
	idle := c.reader.Buffered() == 0
	if idle && c.opt.Idle != nil {
		if err := c.opt.Idle(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if idle || len(c.out) > outBytesMax {
		return c.flush()
	}
	return nil
}

// Queue collects p, to be written before Next waits, or with the next Send.
func (c *Conn) Queue(p packet.Packet) {
	c.trace(true, p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = p.Append(c.out, c.version)
}

// Send writes p and what was queued before it.
func (c *Conn) Send(p packet.Packet) error {
	c.Queue(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flush()
}

// Flush writes what was queued.
func (c *Conn) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flush()
}

func (c *Conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	c.sent.Store(int64(time.Since(c.began)))
	_ = c.nc.SetWriteDeadline(time.Now().Add(c.opt.Timeout))
	_, err := c.nc.Write(c.out)
	c.out = c.out[:0]
	if cap(c.out) > 4*outBytesMax {
		c.out = nil
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// Disconnect sends d, waits until the broker closes, at most a second, and closes. Only so is it certain that the broker
// got what was sent last: closing with unread input would reset the connection.
func (c *Conn) Disconnect(d *packet.Disconnect) {
	c.once.Do(func() {
		c.cancel()
		if c.Send(d) == nil {
			if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
			_ = c.nc.SetReadDeadline(time.Now().Add(farewell))
			_, _ = io.Copy(io.Discard, c.nc)
		}
		c.release()
	})
}

// Close ends the connection without DISCONNECT: the broker publishes the Will.
func (c *Conn) Close() { c.once.Do(c.release) }

// release closes what the connection holds; c.once guards it.
func (c *Conn) release() {
	c.cancel()
	_ = c.nc.Close()
	close(c.pings)
	c.pinger.Wait()
}

func (c *Conn) trace(sent bool, p packet.Packet) {
	if c.opt.Trace != nil {
		c.opt.Trace(sent, p)
	}
}

// noEOF gives a connection that the other side closed its own words.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return errClosed
	}
	return err
}

var errClosed = errors.New("the broker closed the connection")
