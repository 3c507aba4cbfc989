package mesh

import (
	"context"
	"fmt"
	"net"
)

// Network is where bytes enter and leave this process. The operating system's is OS; tests run whole clusters over an
// in-memory one. A Network is also the place where transport security belongs: a wrapper whose listener and dialler
// speak TLS, or prove a shared key, needs no change anywhere else, because nothing above it trusts a byte before the
// hello is proven. Accept must not wait for such a handshake (tls.Listener does not): mesh gives each accepted
// connection its own goroutine and deadline.
//
// All methods are safe for concurrent use.
type Network interface {
	// Listen accepts streams on addr ("host:port"; port 0 asks for a free one).
	Listen(addr string) (net.Listener, error)
	// Dial opens a stream to addr; ctx bounds the attempt and nothing after it.
	Dial(ctx context.Context, addr string) (net.Conn, error)
	// ListenPacket sends and receives datagrams on addr.
	ListenPacket(addr string) (net.PacketConn, error)
}

// OS is the operating system's TCP and UDP.
type OS struct {
	// Source is the address connections are made from; nil leaves the choice to the system. A node that listens on a
	// specific address dials from it too, so that a firewall rule between two addresses cuts both directions of what
	// it is meant to cut, also when several nodes share a machine.
	Source net.IP
}

var _ Network = OS{}

// Listen implements Network.
func (o OS) Listen(addr string) (net.Listener, error) {
	return net.Listen("tcp", addr)
}

// Dial implements Network.
func (o OS) Dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	if o.Source != nil {
		d.LocalAddr = &net.TCPAddr{IP: o.Source}
	}
	return d.DialContext(ctx, "tcp", addr)
}

// ListenPacket implements Network.
func (o OS) ListenPacket(addr string) (net.PacketConn, error) {
	return net.ListenPacket("udp", addr)
}

// specificIP returns the IP of addr, or nil when addr names none or the unspecified one.
func specificIP(addr string) net.IP {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil
	}
	ip := net.ParseIP(host)
	if ip == nil || ip.IsUnspecified() {
		return nil
	}
	return ip
}

// bindAttemptsMax bounds how often a free TCP port is drawn until UDP has the same number free.
const bindAttemptsMax = 16

// listenBoth opens a stream listener and a packet socket on the same port number.
func listenBoth(n Network, addr string) (net.Listener, net.PacketConn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, fmt.Errorf("cluster address %q: %w", addr, err)
	}
	for attempt := 1; ; attempt++ {
		l, err := n.Listen(addr)
		if err != nil {
			return nil, nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
		pc, err := n.ListenPacket(l.Addr().String())
		if err == nil {
			return l, pc, nil
		}
		_ = l.Close()
		if port != "0" || attempt == bindAttemptsMax {
			return nil, nil, fmt.Errorf("listen for packets on %s: %w", addr, err)
		}
	}
}
