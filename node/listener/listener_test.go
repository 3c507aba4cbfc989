package listener

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// accepts is a net.Listener that gives what the test puts in.
type accepts struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
}

func newAccepts() *accepts {
	return &accepts{make(chan net.Conn), make(chan error), make(chan struct{})}
}

func (a *accepts) Accept() (net.Conn, error) {
	select {
	case nc := <-a.conns:
		return nc, nil
	case err := <-a.errs:
		return nil, err
	case <-a.closed:
		return nil, net.ErrClosed
	}
}
func (a *accepts) Close() error   { close(a.closed); return nil }
func (a *accepts) Addr() net.Addr { return &net.TCPAddr{} }

// echo serves until the client closes.
type echo struct{ served atomic.Int32 }

func (e *echo) Serve(nc net.Conn, _ Info) {
	e.served.Add(1)
	_, _ = io.Copy(io.Discard, nc)
	_ = nc.Close()
}

func start(t *testing.T, cfg Config) (*accepts, *Listener, *echo) {
	a, e := newAccepts(), &echo{}
	cfg.Logger = slog.New(slog.DiscardHandler)
	l := New(a, e, cfg)
	done := make(chan error, 1)
	go func() { done <- l.Serve() }()
	t.Cleanup(func() {
		if err := l.Close(t.Context()); err != nil && !errors.Is(err, t.Context().Err()) {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return a, l, e
}

func TestOutOfFileDescriptorsIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, l, e := start(t, Config{Name: "mqtt"})
		begin := time.Now()
		for range 10 {
			a.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		client, server := net.Pipe()
		a.conns <- server
		synctest.Wait()
		if e.served.Load() != 1 || l.Metrics().Backoffs.Load() != 10 {
			t.Fatalf("served %d after %d pauses", e.served.Load(), l.Metrics().Backoffs.Load())
		}
		if waited := time.Since(begin); waited < time.Second || waited > 10*backoffMax {
			t.Fatalf("paused %v in all", waited)
		}
		_ = client.Close()
	})
}

func TestConnectionsAboveTheLimitAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, l, e := start(t, Config{ConnectionsMax: 1})
		first, server := net.Pipe()
		a.conns <- server
		second, server := net.Pipe()
		a.conns <- server
		if _, err := second.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("second connection: %v", err)
		}
		_ = first.Close()
		synctest.Wait()
		third, server := net.Pipe()
		a.conns <- server
		synctest.Wait()
		if e.served.Load() != 2 || l.Metrics().Refused.Load() != 1 {
			t.Fatalf("served %d, refused %d", e.served.Load(), l.Metrics().Refused.Load())
		}
		_ = third.Close()
	})
}

func TestWrapThatStallsOrPanicsClosesItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panics := false
		a, l, e := start(t, Config{WrapTimeout: time.Second, Wrap: func(nc net.Conn, _ *Info) (net.Conn, error) {
			if panics {
				panic("a bug")
			}
			_, err := nc.Read(make([]byte, 1))
			return nc, err
		}})
		for _, panics = range []bool{false, true} {
			client, server := net.Pipe()
			a.conns <- server
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Fatalf("connection: %v", err)
			}
		}
		synctest.Wait()
		if e.served.Load() != 0 || l.Metrics().Failed.Load() != 2 {
			t.Fatalf("served %d, failed %d", e.served.Load(), l.Metrics().Failed.Load())
		}
	})
}
