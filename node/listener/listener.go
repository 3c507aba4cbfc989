// Package listener accepts Network Connections and hands each to a server in its own goroutine. It bounds how many there
// are at once and backs off when the process is out of file descriptors. What stands between the socket and MQTT (TLS,
// WebSocket, the PROXY protocol) is a Wrap: it turns the accepted connection into the one that carries packets.
package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves one connection and returns when it is closed.
type Server interface {
	Serve(nc net.Conn, info Info)
}

// Info says how a connection came in.
type Info struct {
	// Listener is the name of the listener, for access rules and metrics.
	Listener string
	// RemoteAddr is the client's address: the one that a trusted proxy named, else that of the socket.
	RemoteAddr string
	// Secure says that the connection is encrypted.
	Secure bool
	// CertificateName is the Common Name of a verified client certificate, "" for none.
	CertificateName string
}

// Wrap makes the connection that carries packets, and completes info. It may read and write, within the deadline that
// Config.WrapTimeout set on nc. It runs in the connection's own goroutine. On an error the connection is closed.
type Wrap func(nc net.Conn, info *Info) (net.Conn, error)

// Config of a Listener.
type Config struct {
	// Name is the Info.Listener of its connections.
	Name string
	// ConnectionsMax is how many connections may be open at once; one more is closed at once, unread. 0: no limit.
	ConnectionsMax int
	// Wrap is nil for plain MQTT.
	Wrap Wrap
	// WrapTimeout bounds Wrap: a TLS handshake or a WebSocket upgrade.
	WrapTimeout time.Duration
	// Logger is for what an operator should know. Not nil.
	Logger *slog.Logger
}

// Metrics are the counters of a Listener.
type Metrics struct {
	Open     atomic.Int64
	Accepted atomic.Uint64
	Refused  atomic.Uint64 // closed at once because of ConnectionsMax
	Failed   atomic.Uint64 // Wrap failed
	Backoffs atomic.Uint64 // accept failed, for want of file descriptors as a rule
}

// Listener accepts connections of one net.Listener.
type Listener struct {
	ln      net.Listener
	cfg     Config
	server  Server
	metrics Metrics

	closing chan struct{}
	once    sync.Once
	serving sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // open ones, before and in Wrap: those that the server does not know yet
}

// New returns a Listener on ln, which it closes.
func New(ln net.Listener, server Server, cfg Config) *Listener {
	return &Listener{ln: ln, cfg: cfg, server: server, closing: make(chan struct{}), conns: make(map[net.Conn]struct{})}
}

// Addr returns the address listened on.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Metrics returns the counters.
func (l *Listener) Metrics() *Metrics { return &l.metrics }

// Bounds of the pause after a failed accept.
const (
	backoffMin = 5 * time.Millisecond
	backoffMax = time.Second
)

// Serve accepts connections until Close or Stop; then it returns nil. Another error means that the socket is gone.
func (l *Listener) Serve() error {
	backoff := backoffMin
	for {
		nc, err := l.ln.Accept()
		if err == nil {
			backoff = backoffMin
			l.accept(nc)
			continue
		}
		select {
		case <-l.closing:
			return nil
		default:
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept on %s: %w", l.ln.Addr(), err)
		}
		// Out of file descriptors or memory: connections in the backlog wait until others are closed.
		l.metrics.Backoffs.Add(1)
		l.cfg.Logger.Warn("accept failed", "listener", l.cfg.Name, "err", err, "pause", backoff)
		select {
		case <-l.closing:
			return nil
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, backoffMax)
	}
}

func (l *Listener) accept(nc net.Conn) {
	if l.cfg.ConnectionsMax > 0 && l.metrics.Open.Load() >= int64(l.cfg.ConnectionsMax) {
		l.metrics.Refused.Add(1)
		_ = nc.Close()
		return
	}
	l.metrics.Accepted.Add(1)
	l.metrics.Open.Add(1)
	l.serving.Go(func() {
		defer l.metrics.Open.Add(-1)
		l.serve(nc)
	})
}

func (l *Listener) serve(nc net.Conn) {
	info := Info{Listener: l.cfg.Name}
	if a := nc.RemoteAddr(); a != nil {
		info.RemoteAddr = a.String()
	}
	if l.cfg.Wrap != nil {
		wrapped, err := l.wrap(nc, &info)
		if err != nil {
			l.metrics.Failed.Add(1)
			l.cfg.Logger.Debug("connection refused", "listener", l.cfg.Name, "remote", info.RemoteAddr, "err", err)
			_ = nc.Close()
			return
		}
		nc = wrapped
	}
	l.server.Serve(nc, info)
}

func (l *Listener) wrap(nc net.Conn, info *Info) (wrapped net.Conn, err error) {
	l.mu.Lock()
	l.conns[nc] = struct{}{}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.conns, nc)
		l.mu.Unlock()
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	if err := nc.SetDeadline(time.Now().Add(l.cfg.WrapTimeout)); err != nil {
		return nil, fmt.Errorf("set deadline: %w", err)
	}
	if wrapped, err = l.cfg.Wrap(nc, info); err != nil {
		return nil, err
	}
	return wrapped, nc.SetDeadline(time.Time{})
}

// Stop stops accepting. Open connections go on.
func (l *Listener) Stop() error {
	var err error
	l.once.Do(func() {
		close(l.closing)
		err = l.ln.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		for nc := range l.conns {
			_ = nc.SetDeadline(time.Now())
		}
	})
	if err != nil {
		return fmt.Errorf("close listener %s: %w", l.cfg.Name, err)
	}
	return nil
}

// Close stops accepting and waits until the server has closed every connection, or ctx ends.
func (l *Listener) Close(ctx context.Context) error {
	err := l.Stop()
	done := make(chan struct{})
	go func() {
		l.serving.Wait()
		close(done)
	}()
	select {
	case <-done:
		return err
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("wait for connections of %s: %w", l.cfg.Name, ctx.Err()))
	}
}
