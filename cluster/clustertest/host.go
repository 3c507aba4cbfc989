package clustertest

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	firstPort    = 32768
	dialPatience = 2 * time.Minute // of a dial whose context has no deadline
	backlogPause = 50 * time.Millisecond
)

// errDown is what everything on a stopped host returns.
var errDown = errors.New("host is down")

// Host is one machine. It implements mesh.Network: whatever listens on it or dials from it has its IP. All methods are
// safe for concurrent use.
type Host struct {
	n  *Network
	ip string

	mu        sync.Mutex // leaf
	down      bool
	dark      bool
	port      int
	listeners map[int]*Listener
	packets   map[int]*PacketConn
}

func newHost(n *Network, ip string) *Host {
	return &Host{n: n, ip: ip, port: firstPort, listeners: make(map[int]*Listener), packets: make(map[int]*PacketConn)}
}

// IP returns the host's address.
func (h *Host) IP() string { return h.ip }

// Down reports whether the host was killed or switched off.
func (h *Host) Down() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// die closes listeners and packet sockets.
func (h *Host) die(dark bool) {
	h.mu.Lock()
	h.down, h.dark = true, dark
	listeners, packets := h.listeners, h.packets
	h.listeners, h.packets = make(map[int]*Listener), make(map[int]*PacketConn)
	h.mu.Unlock()
	for _, l := range listeners {
		l.shut()
	}
	for _, p := range packets {
		p.shut()
	}
}

// resolve turns addr into a port of this host; 0 draws one.
func (h *Host) resolve(addr string) (int, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	if ip := net.ParseIP(host); host != "" && host != h.ip && (ip == nil || !ip.IsUnspecified()) {
		return 0, syscall.EADDRNOTAVAIL
	}
	return strconv.Atoi(portText)
}

// nextPort draws an unused port. The caller holds h.mu.
func (h *Host) nextPort() int {
	for {
		h.port++
		if h.listeners[h.port] == nil && h.packets[h.port] == nil {
			return h.port
		}
	}
}

// Listen implements mesh.Network.
func (h *Host) Listen(addr string) (net.Listener, error) {
	port, err := h.resolve(addr)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: err}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: errDown}
	}
	if port == 0 {
		port = h.nextPort()
	}
	if h.listeners[port] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EADDRINUSE}
	}
	l := &Listener{h: h, port: port, ch: make(chan *Conn, backlogMax), done: make(chan struct{})}
	h.listeners[port] = l
	h.n.mu.Lock()
	h.n.announceLocked()
	h.n.mu.Unlock()
	return l, nil
}

// Dial implements mesh.Network. It waits for a cut to mend until ctx ends, and is refused when nobody listens.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	conn, err := h.dial(ctx, addr)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = os.ErrDeadlineExceeded
		}
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: stringAddr(addr), Err: err}
	}
	return conn, nil
}

type stringAddr string

// Network implements net.Addr.
func (stringAddr) Network() string { return "tcp" }

// String implements net.Addr.
func (a stringAddr) String() string { return string(a) }

func (h *Host) dial(ctx context.Context, addr string) (net.Conn, error) {
	ip, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	there, back := h.n.link(h.ip, ip), h.n.link(ip, h.ip)
	if rtt := there.delay() + back.delay(); rtt > 0 {
		if err := sleep(ctx, rtt); err != nil {
			return nil, err
		}
	}
	for {
		h.n.mu.Lock()
		changed, target := h.n.changed, h.n.hosts[ip]
		h.n.mu.Unlock()
		if h.Down() {
			return nil, errDown
		}
		var again <-chan time.Time
		if target != nil && !there.isCut() && !back.isCut() {
			conn, err := h.knock(target, port)
			if conn != nil {
				return conn, nil
			}
			if err != nil {
				return nil, err
			}
			again = time.After(backlogPause)
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// knock connects to a port. It returns neither when nobody answers.
func (h *Host) knock(target *Host, port int) (net.Conn, error) {
	target.mu.Lock()
	dark, l := target.dark, target.listeners[port]
	target.mu.Unlock()
	if dark {
		return nil, nil
	}
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	h.mu.Lock()
	local := h.nextPort()
	h.mu.Unlock()
	p := newPair(h.n, h, target, tcpAddr(h.ip, local), tcpAddr(target.ip, port))
	if l.offer(&p.b) {
		return &p.a, nil
	}
	p.reset(errReset)
	return nil, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func tcpAddr(ip string, port int) *net.TCPAddr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: port} }

// Listener implements net.Listener.
type Listener struct {
	h    *Host
	port int
	ch   chan *Conn
	done chan struct{}
	once sync.Once
}

func (l *Listener) offer(c *Conn) bool {
	select {
	case <-l.done:
		return false
	default:
	}
	select {
	case l.ch <- c:
	default:
		return false
	}
	select {
	case <-l.done: // closed meanwhile, perhaps after shut emptied the channel
		l.shut()
	default:
	}
	return true
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
	case c := <-l.ch:
		return c, nil
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close implements net.Listener; streams not yet accepted are reset.
func (l *Listener) Close() error {
	l.h.mu.Lock()
	if l.h.listeners[l.port] == l {
		delete(l.h.listeners, l.port)
	}
	l.h.mu.Unlock()
	l.shut()
	return nil
}

func (l *Listener) shut() {
	l.once.Do(func() { close(l.done) })
	for {
		select {
		case c := <-l.ch:
			c.p.reset(errReset)
		default:
			return
		}
	}
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return tcpAddr(l.h.ip, l.port) }
