package client

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"time"

	"quorate/protocol/packet"
)

// ErrDisconnected is what Exchange.Packet returns after a DISCONNECT of the client: the connection is closed at once.
var ErrDisconnected = errors.New("client disconnected")

// ErrPanic is in End.Err when a bug ended the connection; its text has the stack.
var ErrPanic = errors.New("panic")

// End says how a connection ended.
type End struct {
	// Reason is the code that describes the end, sent or not: NormalDisconnection after a DISCONNECT of the client,
	// UnspecifiedError when the network failed.
	Reason packet.ReasonCode
	// Err is what happened, for the log: for debugging, unless it is ErrPanic.
	Err error
}

// deadlineReader reads from the network and keeps the read deadline: it is moved when it is reached, not with every
// packet, because setting one costs as much as a short read.
type deadlineReader Conn

// Read implements io.Reader.
func (d *deadlineReader) Read(p []byte) (int, error) {
	c := (*Conn)(d)
	for {
		n, err := c.nc.Read(p)
		if n > 0 {
			c.bytesIn += uint64(n)
			return n, nil
		}
		if err := c.awake(err); err != nil {
			return n, err
		}
	}
}

// awake decides whether reading goes on after err.
func (c *Conn) awake(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return c.extend()
}

var (
	errKeepAlive = &packet.Error{Reason: packet.KeepAliveTimeout, Text: "nothing came within the keep alive"}
	errConnect   = errors.New("no CONNECT within the time allowed")
	errClosing   = errors.New("connection is closing")
)

// extend moves the read deadline, or returns why the time is up.
func (c *Conn) extend() error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.closing {
		return errClosing
	}
	if c.reader.Version() == 0 {
		return errConnect
	}
	now := time.Since(c.base)
	if c.deal.KeepAlive == 0 {
		return c.nc.SetReadDeadline(time.Time{})
	}
	due := time.Duration(c.lastRead) + c.deal.KeepAlive + c.deal.KeepAlive/2
	if due <= now {
		if !c.handler.Holding() {
			return errKeepAlive
		}
		due = now + c.deal.KeepAlive
	}
	return c.nc.SetReadDeadline(c.base.Add(due))
}

// Serve handles the connection until it is closed, and closes it. It returns when nothing of it runs any more.
func (c *Conn) Serve() {
	c.metrics.Connections.Add(1)
	c.metrics.Accepted.Add(1)
	defer c.metrics.Connections.Add(-1)
	defer c.finish()
	end := c.run()
	if c.open.Swap(false) || c.out.accepted {
		c.metrics.Ended[end.Reason].Add(1)
	}
	c.countRead()
	c.protect(func() { c.handler.Closed(end) })
}

// protect is the last line against a bug that one client's packets reach: the connection ends, the node does not.
func (c *Conn) protect(f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			c.metrics.Panics.Add(1)
			err = fmt.Errorf("%w: %v\n%s", ErrPanic, r, debug.Stack())
		}
	}()
	f()
	return nil
}

func (c *Conn) run() (end End) {
	var cause error
	if err := c.protect(func() { cause = c.serve() }); err != nil {
		cause = err
	}
	end = End{Reason: packet.UnspecifiedError, Err: cause}
	var perr *packet.Error
	switch {
	case errors.Is(cause, ErrDisconnected):
		end.Reason = packet.NormalDisconnection
		c.shut(nil)
		return end
	case errors.As(cause, &perr):
		end.Reason = perr.Reason
	}
	c.out.mu.Lock()
	if c.out.bug != nil {
		end.Err = c.out.bug // of the writer: the reader saw only the close
	}
	if c.out.reason != 0 {
		end.Reason = c.out.reason // closed by the broker: what the reader saw is only the echo
	}
	c.out.mu.Unlock()
	c.Close(end.Reason, "")
	return end
}

func (c *Conn) serve() error {
	if err := c.handshake(); err != nil {
		return err
	}
	for {
		p, err := c.reader.Next()
		if err != nil {
			return c.readError(err)
		}
		c.counts[p.Type()&15]++
		if p.Type() == packet.TypeConnect {
			return &packet.Error{Reason: packet.ProtocolError, Text: "second CONNECT"} // [MQTT-3.1.0-2]
		}
		if err := c.handler.Packet(p); err != nil {
			return err
		}
		if !c.reader.Ready() {
			c.lastRead = int64(time.Since(c.base))
			c.countRead()
			c.handler.Idle()
		}
	}
}

func (c *Conn) readError(err error) error {
	if err == io.EOF || errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("network connection closed: %w", err)
	}
	return err
}

// countRead adds what was read to the node's counters: once for all packets of a read, because they are shared.
func (c *Conn) countRead() {
	for t := range c.counts {
		if n := c.counts[t]; n > 0 {
			c.metrics.PacketsIn[t].Add(uint64(n))
			c.counts[t] = 0
		}
	}
	if c.bytesIn > 0 {
		c.metrics.BytesIn.Add(c.bytesIn)
		c.bytesIn = 0
	}
}

// handshake reads CONNECT and answers it.
func (c *Conn) handshake() error {
	if err := c.nc.SetReadDeadline(time.Now().Add(c.cfg.ConnectTimeout)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	p, err := c.reader.Next()
	if err != nil {
		return c.refuse(err)
	}
	c.counts[p.Type()&15]++
	connect, ok := p.(*packet.Connect)
	if !ok {
		return fmt.Errorf("first packet is %v", p.Type()) // no answer [MQTT-3.1.0-1]
	}
	c.lastRead = int64(time.Since(c.base))
	ack, deal := c.handler.Connect(connect)
	c.deal = deal
	c.forget()
	if ack.ReasonCode.Failed() {
		c.metrics.Refused[ack.ReasonCode].Add(1)
		c.Send(ack)
		c.shut(nil)
		return fmt.Errorf("connection refused: %v", ack.ReasonCode)
	}
	c.reader.SetMaxPacketBytes(c.cfg.Reader.MaxPacketBytes)
	c.Send(ack)
	if err := c.extend(); err != nil {
		return err
	}
	c.out.mu.Lock()
	c.out.accepted = true
	opened := !c.out.closing
	c.open.Store(opened)
	c.out.mu.Unlock()
	c.Kick()
	return nil
}

// refuse answers a CONNECT that could not be read, if the client can read the answer.
func (c *Conn) refuse(err error) error {
	var perr *packet.Error
	v := c.reader.Version()
	if !errors.As(err, &perr) || v == 0 {
		return err
	}
	c.deal.Receiver.Version = v
	c.metrics.Refused[perr.Reason].Add(1)
	c.Send(&packet.Connack{ReasonCode: perr.Reason})
	c.shut(nil)
	return err
}
