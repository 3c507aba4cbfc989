package clustertest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

var (
	errTimedOut = syscall.ETIMEDOUT
	errReset    = syscall.ECONNRESET
)

// pair is one stream: two ends and two directions.
type pair struct {
	n      *Network
	a, b   Conn
	ab, ba half

	mu sync.Mutex // guards both ends and directions; never held while waiting but by a sync.Cond
}

// half is one direction of a stream.
type half struct {
	p     *pair
	link  *link
	cond  sync.Cond // on p.mu: this direction changed, or a deadline passed
	from  *Conn
	to    *Conn
	ready []byte    // arrived and not yet read
	eof   bool      // the end of the stream arrived
	sent  []segment // on the way, or stalled by a cut, in order
	bytes int       // len(ready) + bytes of sent
	timer *time.Timer
}

// segment is one write on its way.
type segment struct {
	at   time.Time
	data []byte
	end  bool // the writer closed
}

// state of one end.
type state byte

const (
	open   state = iota
	closed       // by its owner, or its host's process ended: what arrives is answered with a reset
	dark         // its host has no power: nothing answers
)

// Conn is one end of a stream. It implements net.Conn.
type Conn struct {
	p             *pair
	host          *Host
	in, out       *half
	local, remote net.Addr

	// guarded by p.mu
	state         state
	lost          error // the other side is gone: reading drains what arrived, then says this
	noPeer        bool  // the other side does not read any more: writing fails
	readDeadline  time.Time
	writeDeadline time.Time
}

var _ net.Conn = (*Conn)(nil)

// newPair connects two hosts.
func newPair(n *Network, from, to *Host, fromAddr, toAddr net.Addr) *pair {
	p := &pair{n: n}
	p.ab = half{p: p, link: n.link(from.ip, to.ip), from: &p.a, to: &p.b}
	p.ba = half{p: p, link: n.link(to.ip, from.ip), from: &p.b, to: &p.a}
	p.ab.cond.L, p.ba.cond.L = &p.mu, &p.mu
	p.a = Conn{p: p, host: from, in: &p.ba, out: &p.ab, local: fromAddr, remote: toAddr}
	p.b = Conn{p: p, host: to, in: &p.ab, out: &p.ba, local: toAddr, remote: fromAddr}
	n.mu.Lock()
	n.conns[p] = struct{}{}
	n.mu.Unlock()
	return p
}

// wait waits on h until something changes or deadline passes. The caller holds p.mu.
func (h *half) wait(deadline time.Time) {
	if deadline.IsZero() {
		h.cond.Wait()
		return
	}
	t := time.AfterFunc(time.Until(deadline), func() {
		h.p.mu.Lock()
		h.cond.Broadcast()
		h.p.mu.Unlock()
	})
	h.cond.Wait()
	t.Stop()
}

func passed(deadline time.Time) bool {
	return !deadline.IsZero() && !time.Now().Before(deadline)
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	for {
		switch {
		case c.state != open:
			return 0, c.fail("read", net.ErrClosed)
		case passed(c.readDeadline):
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		case len(c.in.ready) > 0:
			n := copy(b, c.in.ready)
			c.in.take(n)
			return n, nil
		case c.in.eof:
			return 0, io.EOF
		case c.lost != nil:
			return 0, c.fail("read", c.lost)
		case len(b) == 0:
			return 0, nil
		}
		c.in.wait(c.readDeadline)
	}
}

// take removes n bytes that were read. The caller holds p.mu.
func (h *half) take(n int) {
	h.ready = h.ready[n:]
	h.bytes -= n
	if len(h.ready) == 0 {
		h.ready = nil
	}
	h.cond.Broadcast()
}

// Write implements net.Conn. It waits while the direction holds as much as Options.BufferBytes.
func (c *Conn) Write(b []byte) (int, error) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	written := 0
	for {
		switch {
		case c.state != open:
			return written, c.fail("write", net.ErrClosed)
		case c.lost != nil:
			return written, c.fail("write", c.lost)
		case c.noPeer:
			return written, c.fail("write", syscall.EPIPE)
		case passed(c.writeDeadline):
			return written, c.fail("write", os.ErrDeadlineExceeded)
		case written == len(b):
			return written, nil
		}
		if room := c.p.n.opt.BufferBytes - c.out.bytes; room > 0 {
			part := b[written:min(len(b), written+room)]
			c.out.put(segment{data: append([]byte(nil), part...)})
			written += len(part)
			if written == len(b) {
				return written, nil
			}
			continue
		}
		c.out.wait(c.writeDeadline)
	}
}

// put sends a segment on its way. The caller holds p.mu.
func (h *half) put(s segment) {
	s.at = time.Now().Add(h.link.delay())
	if n := len(h.sent); n > 0 && s.at.Before(h.sent[n-1].at) {
		s.at = h.sent[n-1].at
	}
	h.sent = append(h.sent, s)
	h.bytes += len(s.data)
	h.pump()
}

// pump lets arrive what is due, unless the link is cut. The caller holds p.mu.
func (h *half) pump() {
	now := time.Now()
	for len(h.sent) > 0 && !h.sent[0].at.After(now) {
		if h.link.isCut() || h.to.state == dark {
			return // mended and relit call again
		}
		s := h.sent[0]
		h.sent = h.sent[1:]
		h.arrive(s)
	}
	if len(h.sent) == 0 {
		h.sent = nil
		h.p.forgetLocked()
		return
	}
	if h.timer == nil {
		h.timer = time.AfterFunc(time.Until(h.sent[0].at), func() {
			h.p.mu.Lock()
			defer h.p.mu.Unlock()
			h.timer = nil
			h.pump()
		})
	}
}

// arrive gives a segment to its reader, or answers it with a reset when there is none.
func (h *half) arrive(s segment) {
	switch {
	case h.to.state == closed:
		h.bytes -= len(s.data)
		if len(s.data) > 0 && !h.to.out.link.isCut() {
			h.from.noPeer = true
			h.cond.Broadcast()
		}
	case s.end:
		h.eof = true
		h.cond.Broadcast()
	default:
		h.ready = append(h.ready, s.data...)
		h.cond.Broadcast()
	}
}

// Close implements net.Conn. What was written still arrives, then the end of the stream.
func (c *Conn) Close() error {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c.state != open {
		return c.fail("close", net.ErrClosed)
	}
	c.state = closed
	c.in.ready, c.in.bytes = nil, 0
	for _, s := range c.in.sent {
		c.in.bytes += len(s.data)
	}
	if c.lost == nil {
		c.out.put(segment{end: true})
	}
	c.p.wakeLocked()
	c.p.forgetLocked()
	return nil
}

// crash is what happens to an end when its host stops. A kernel whose process was killed still sends what the process
// had written, and the end of the stream.
func (c *Conn) crash(powerOff bool) {
	if !powerOff {
		_ = c.Close()
		return
	}
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c.state == open {
		c.state = dark
	}
	c.out.sent, c.in.ready = nil, nil
	c.p.wakeLocked()
}

// lose ends the connection for this end; what arrived can still be read.
func (c *Conn) lose(err error) {
	if c.lost == nil {
		c.lost = err
	}
	c.out.sent, c.in.sent = nil, nil
}

// reset ends the connection for both ends.
func (p *pair) reset(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.a.lose(err)
	p.b.lose(err)
	p.wakeLocked()
	p.forgetLocked()
}

// mended lets go what a cut of l stalled.
func (p *pair) mended(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range []*half{&p.ab, &p.ba} {
		if h.link == l {
			h.pump()
		}
	}
}

// relit makes the ends of a host without power answer with resets: it was started again.
func (p *pair) relit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range []*Conn{&p.a, &p.b} {
		if c.state == dark {
			c.state = closed
			c.in.pump()
		}
	}
	p.wakeLocked()
	p.forgetLocked()
}

func (p *pair) wakeLocked() {
	p.ab.cond.Broadcast()
	p.ba.cond.Broadcast()
}

// forgetLocked drops the pair from the network once no end is in use. The caller holds p.mu.
func (p *pair) forgetLocked() {
	done := func(c *Conn) bool { return c.state == closed || c.lost != nil }
	if !done(&p.a) || !done(&p.b) || len(p.ab.sent)+len(p.ba.sent) > 0 {
		return
	}
	p.n.mu.Lock()
	delete(p.n.conns, p)
	p.n.mu.Unlock()
}

func (c *Conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadlines(&t, &t) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(&t, nil) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

func (c *Conn) setDeadlines(read, write *time.Time) error {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c.state != open {
		return c.fail("set", net.ErrClosed)
	}
	if read != nil {
		c.readDeadline = *read
		c.in.cond.Broadcast()
	}
	if write != nil {
		c.writeDeadline = *write
		c.out.cond.Broadcast()
	}
	return nil
}
