package mesh

import (
	"net"
	"sync"
)

// trackedConn is a connection that Close of its Mesh ends, whoever holds it by then.
type trackedConn struct {
	net.Conn
	m        *Mesh
	accepted bool
	fresh    bool // proven without a cluster id; guarded by m.mu
	once     sync.Once
	err      error
}

// Close ends the connection. It may be called twice, from any goroutine.
func (c *trackedConn) Close() error {
	c.once.Do(func() {
		c.m.mu.Lock()
		if _, ok := c.m.conns[c]; ok {
			delete(c.m.conns, c)
			if c.accepted {
				c.m.accepted--
			}
		}
		c.m.mu.Unlock()
		c.err = c.Conn.Close()
	})
	return c.err
}

// track takes conn over. It closes conn when the mesh is closed or full.
func (m *Mesh) track(conn net.Conn, accepted bool) (*trackedConn, error) {
	c := &trackedConn{Conn: conn, m: m, accepted: accepted}
	m.mu.Lock()
	closed, full := m.closed, accepted && m.accepted >= m.cfg.ConnsMax
	if !closed && !full {
		m.conns[c] = struct{}{}
		if accepted {
			m.accepted++
		}
	}
	m.mu.Unlock()
	if closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	if full {
		_ = conn.Close()
		return nil, refuse(RefusedBusy, "already %d accepted connections", m.cfg.ConnsMax)
	}
	return c, nil
}

// connQueueMax bounds accepted streams that wait for Raft or gossip to take them.
const connQueueMax = 64

// connQueue hands accepted streams to their consumer.
type connQueue struct {
	ch   chan net.Conn
	done chan struct{}
	once *sync.Once
}

func newConnQueue() connQueue {
	return connQueue{ch: make(chan net.Conn, connQueueMax), done: make(chan struct{}), once: new(sync.Once)}
}

// offer queues conn, or returns false when nobody takes it.
func (q *connQueue) offer(conn net.Conn) bool {
	select {
	case <-q.done:
		return false
	default:
	}
	select {
	case q.ch <- conn:
		return true
	default:
		return false
	}
}

func (q *connQueue) accept() (net.Conn, error) {
	select {
	case conn := <-q.ch:
		return conn, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *connQueue) close() { q.once.Do(func() { close(q.done) }) }

// queueListener is a connQueue seen as a listener.
type queueListener struct {
	q    *connQueue
	addr net.Addr
}

// Accept implements net.Listener.
func (l *queueListener) Accept() (net.Conn, error) { return l.q.accept() }

// Close implements net.Listener: further streams of this kind are closed on arrival.
func (l *queueListener) Close() error {
	l.q.close()
	return nil
}

// Addr implements net.Listener.
func (l *queueListener) Addr() net.Addr { return l.addr }
