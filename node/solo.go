package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
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
	return &soloPacketConn{soloListener{closed: make(chan struct{})}}, nil
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

type soloPacketConn struct{ soloListener }

// ReadFrom waits for the end: deadlines are for sockets on which something might arrive.
func (c *soloPacketConn) ReadFrom([]byte) (int, net.Addr, error) {
	<-c.closed
	return 0, nil, net.ErrClosed
}

func (c *soloPacketConn) WriteTo(b []byte, _ net.Addr) (int, error) { return len(b), nil }
func (c *soloPacketConn) LocalAddr() net.Addr                       { return net.UDPAddrFromAddrPort(soloAddrPort) }
func (c *soloPacketConn) SetDeadline(time.Time) error               { return nil }
func (c *soloPacketConn) SetReadDeadline(time.Time) error           { return nil }
func (c *soloPacketConn) SetWriteDeadline(time.Time) error          { return nil }
