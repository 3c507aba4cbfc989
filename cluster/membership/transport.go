package membership

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"quorate/cluster/mesh"
)

const packetBytesMax = 65536

// transport is memberlist's transport over the cluster port: streams by mesh's first byte, datagrams on the same port
// number.
type transport struct {
	mesh    *mesh.Mesh
	packets net.PacketConn
	streams net.Listener
	ip      net.IP
	port    int

	packetCh chan *memberlist.Packet
	streamCh chan net.Conn
	done     chan struct{}
	once     sync.Once
	wg       sync.WaitGroup
}

var _ memberlist.Transport = (*transport)(nil)

// newTransport starts to receive.
func newTransport(m *mesh.Mesh, resolve func(context.Context, string) ([]string, error)) (*transport, error) {
	ip, port, err := advertised(m.Addr(), resolve)
	if err != nil {
		return nil, err
	}
	t := &transport{
		mesh: m, packets: m.PacketConn(), streams: m.Gossip(), ip: ip, port: port,
		packetCh: make(chan *memberlist.Packet), streamCh: make(chan net.Conn), done: make(chan struct{}),
	}
	t.wg.Go(t.readPackets)
	t.wg.Go(t.acceptStreams)
	return t, nil
}

// advertised turns the cluster address into what memberlist gossips: it knows IPs only.
func advertised(addr string, resolve func(context.Context, string) ([]string, error)) (net.IP, int, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, 0, fmt.Errorf("cluster address %q: %w", addr, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, 0, fmt.Errorf("cluster address %q: %w", addr, err)
	}
	ip := net.ParseIP(host)
	if ip == nil {
		ctx, cancel := context.WithTimeout(context.Background(), gossipTimeout)
		defer cancel()
		found, err := resolve(ctx, host)
		if err != nil || len(found) == 0 {
			return nil, 0, fmt.Errorf("cluster address %q: host name not resolved: %w", addr, err)
		}
		ip = net.ParseIP(found[0])
	}
	if ip == nil || ip.IsUnspecified() {
		return nil, 0, fmt.Errorf("cluster address %q: peers need a specific address to reach this server at", addr)
	}
	return ip, port, nil
}

func (t *transport) readPackets() {
	buf := make([]byte, packetBytesMax)
	for {
		n, from, err := t.packets.ReadFrom(buf)
		select {
		case <-t.done:
			return
		default:
		}
		if err != nil {
			// A socket reports earlier ICMP errors here; a closed one ends with done.
			if !t.pause(10 * time.Millisecond) {
				return
			}
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: time.Now()}
		select {
		case t.packetCh <- p:
		case <-t.done:
			return
		}
	}
}

func (t *transport) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.done:
		return false
	}
}

func (t *transport) acceptStreams() {
	for {
		conn, err := t.streams.Accept()
		if err != nil {
			return
		}
		select {
		case t.streamCh <- conn:
		case <-t.done:
			_ = conn.Close()
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) { return t.ip, t.port, nil }

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := net.ResolveUDPAddr("udp", addr) // an IP: memberlist resolved it
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.packets.WriteTo(b, to)
	return time.Now(), err
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packetCh }

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := t.mesh.DialGossip(ctx, addr)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Time{})
}

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streamCh }

// Shutdown implements memberlist.Transport. The sockets are mesh's.
func (t *transport) Shutdown() error {
	t.once.Do(func() {
		close(t.done)
		_ = t.packets.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
		_ = t.streams.Close()
	})
	t.wg.Wait()
	return nil
}
