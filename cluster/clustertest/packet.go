package clustertest

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// PacketConn is a datagram socket. It implements net.PacketConn.
type PacketConn struct {
	h    *Host
	port int

	mu       sync.Mutex
	cond     sync.Cond
	queue    []datagram // Invariant: at most packetQueueMax.
	closed   bool
	deadline time.Time
}

type datagram struct {
	from net.Addr
	data []byte
}

var _ net.PacketConn = (*PacketConn)(nil)

// ListenPacket implements mesh.Network.
func (h *Host) ListenPacket(addr string) (net.PacketConn, error) {
	port, err := h.resolve(addr)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: err}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: errDown}
	}
	if port == 0 {
		port = h.nextPort()
	}
	if h.packets[port] != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: syscall.EADDRINUSE}
	}
	p := &PacketConn{h: h, port: port}
	p.cond.L = &p.mu
	h.packets[port] = p
	return p, nil
}

// WriteTo implements net.PacketConn. It never waits: a datagram that cannot be delivered is dropped.
func (p *PacketConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return 0, p.fail("write", net.ErrClosed)
	}
	to, err := net.ResolveUDPAddr("udp", addr.String())
	if err != nil {
		return 0, p.fail("write", err)
	}
	l := p.h.n.link(p.h.ip, to.IP.String())
	if l.loses() {
		return len(b), nil
	}
	d := datagram{from: p.LocalAddr(), data: append([]byte(nil), b...)}
	if delay := l.delay(); delay > 0 {
		time.AfterFunc(delay, func() { p.h.n.deliver(l, to.Port, d) })
	} else {
		p.h.n.deliver(l, to.Port, d)
	}
	return len(b), nil
}

// deliver puts a datagram into the queue it is for, if it can.
func (n *Network) deliver(l *link, port int, d datagram) {
	n.mu.Lock()
	h := n.hosts[l.to]
	n.mu.Unlock()
	if h == nil || l.isCut() {
		return
	}
	h.mu.Lock()
	p := h.packets[port]
	h.mu.Unlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed && len(p.queue) < packetQueueMax {
		p.queue = append(p.queue, d)
		p.cond.Broadcast()
	}
}

// ReadFrom implements net.PacketConn.
func (p *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.closed:
			return 0, nil, p.fail("read", net.ErrClosed)
		case passed(p.deadline):
			return 0, nil, p.fail("read", os.ErrDeadlineExceeded)
		case len(p.queue) > 0:
			d := p.queue[0]
			p.queue = p.queue[1:]
			return copy(b, d.data), d.from, nil
		}
		p.wait()
	}
}

// wait waits until something changes or the deadline passes. The caller holds p.mu.
func (p *PacketConn) wait() {
	if p.deadline.IsZero() {
		p.cond.Wait()
		return
	}
	t := time.AfterFunc(time.Until(p.deadline), func() {
		p.mu.Lock()
		p.cond.Broadcast()
		p.mu.Unlock()
	})
	p.cond.Wait()
	t.Stop()
}

// Close implements net.PacketConn.
func (p *PacketConn) Close() error {
	p.h.mu.Lock()
	if p.h.packets[p.port] == p {
		delete(p.h.packets, p.port)
	}
	p.h.mu.Unlock()
	p.shut()
	return nil
}

func (p *PacketConn) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.queue = true, nil
	p.cond.Broadcast()
}

// LocalAddr implements net.PacketConn.
func (p *PacketConn) LocalAddr() net.Addr {
	return &net.UDPAddr{IP: net.ParseIP(p.h.ip), Port: p.port}
}

// SetDeadline implements net.PacketConn.
func (p *PacketConn) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (p *PacketConn) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return p.fail("set", net.ErrClosed)
	}
	p.deadline = t
	p.cond.Broadcast()
	return nil
}

// SetWriteDeadline implements net.PacketConn: writing never waits.
func (p *PacketConn) SetWriteDeadline(time.Time) error { return nil }

func (p *PacketConn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: p.LocalAddr(), Err: err}
}
