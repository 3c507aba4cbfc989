package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// solo is the network of a cluster of one without a cluster port: nobody comes in and nobody is there. So a single node
// runs the same code as any other.
type solo struct{}

// soloAddrPort is what a solo node calls itself. The discard port is nobody's: if it should ever be dialled, nothing
// answers.
var soloAddrPort = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 9)

var errSolo = errors.New("this node has no cluster port")

// Listen returns a listener to which nobody comes.
func (solo) Listen(string) (net.Listener, error) {
	return &soloListener{closed: make(chan struct{})}, nil
}

// Dial reaches nobody.
func (solo) Dial(context.Context, string) (net.Conn, error) { return nil, errSolo }

// ListenPacket returns a socket on which nothing arrives.
func (solo) ListenPacket(string) (net.PacketConn, error) {
	return &soloPacketConn{soloListener: soloListener{closed: make(chan struct{})}, deadline: make(chan time.Time, 1)}, nil
}

type soloListener struct {
	once   sync.Once
	closed chan struct{}
}

func (l *soloListener) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}

func (l *soloListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *soloListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(soloAddrPort) }

// soloPacketConn is a socket on which nothing arrives. Only deadlines and Close end a ReadFrom.
type soloPacketConn struct {
	soloListener
	deadline chan time.Time // the newest one that ReadFrom has not seen; capacity 1
}

// ReadFrom implements net.PacketConn, for one goroutine.
func (c *soloPacketConn) ReadFrom([]byte) (int, net.Addr, error) {
	var expired <-chan time.Time
	for {
		select {
		case t := <-c.deadline:
			expired = nil
			if !t.IsZero() {
				expired = time.After(time.Until(t))
			}
		case <-expired:
			return 0, nil, os.ErrDeadlineExceeded
		case <-c.closed:
			return 0, nil, net.ErrClosed
		}
	}
}

// SetReadDeadline implements net.PacketConn. A deadline counts for the ReadFrom that waits, else for the next one.
func (c *soloPacketConn) SetReadDeadline(t time.Time) error {
	for {
		select {
		case c.deadline <- t:
			return nil
		default:
		}
		select {
		case <-c.deadline:
		default:
		}
	}
}

func (c *soloPacketConn) WriteTo(b []byte, _ net.Addr) (int, error) { return len(b), nil }
func (c *soloPacketConn) LocalAddr() net.Addr                       { return net.UDPAddrFromAddrPort(soloAddrPort) }
func (c *soloPacketConn) SetDeadline(t time.Time) error             { return c.SetReadDeadline(t) }
func (c *soloPacketConn) SetWriteDeadline(time.Time) error          { return nil }
