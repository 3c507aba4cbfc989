package mesh

import (
	"net"
	"time"
)

// inbound is a connection that a peer dialled and sends its frames on.
type inbound struct {
	conn *trackedConn
	done chan struct{} // closed when its last frame has been handled
}

// register makes c the connection that peer h sends on. An older one is closed, and register returns only when its last
// frame has been handled, so that order survives a reconnect and a welcome means that somebody reads.
func (m *Mesh) register(c *trackedConn, h Hello) (*inbound, *RefusedError) {
	in := &inbound{conn: c, done: make(chan struct{})}
	m.mu.Lock()
	old := m.inbound[h.ServerID]
	m.inbound[h.ServerID] = in
	m.mu.Unlock()
	if old == nil {
		return in, nil
	}
	_ = old.conn.Close()
	patience := time.NewTimer(m.cfg.HelloTimeout)
	defer patience.Stop()
	select {
	case <-old.done:
		return in, nil
	case <-patience.C:
	}
	m.wg.Add(1) // the caller is counted, so Close is still waiting
	go func() {
		defer m.wg.Done()
		<-old.done
		m.unregister(in, h)
	}()
	return nil, refuse(RefusedBusy, "frames of an earlier connection are still being handled")
}

// unregister ends in, whose last frame has been handled.
func (m *Mesh) unregister(in *inbound, h Hello) {
	_ = in.conn.Close()
	close(in.done)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inbound[h.ServerID] == in {
		delete(m.inbound, h.ServerID)
	}
}

// serveInbound reads the frames of one peer until its connection ends.
func (m *Mesh) serveInbound(in *inbound, h Hello) {
	err := m.readInbound(in.conn, h)
	m.unregister(in, h)
	m.logger.Debug("peer's connection ended", "peer", h.ServerID, "err", err)
}

// readInbound hands frames to their handlers and answers probes. A peer that stops probing is dropped, so that a dead
// one does not hold its slot.
func (m *Mesh) readInbound(c *trackedConn, h Hello) error {
	frames := newFrameReader(&patientReader{conn: c, patience: 2 * m.cfg.DeadAfter})
	pong := appendFrame(nil, kindProbe, 0, nil)
	fresh := h.ClusterID == ""
	for {
		kind, _, payload, err := frames.next()
		if err != nil {
			return err
		}
		m.framesIn.Add(1)
		m.bytesIn.Add(uint64(frameHeaderBytes + len(payload)))
		if kind == kindProbe {
			_ = c.SetWriteDeadline(time.Now().Add(m.cfg.DeadAfter))
			if _, err := c.Write(pong); err != nil {
				return err
			}
			continue
		}
		handler := m.handlers[kind].Load()
		if handler == nil || fresh && !freshKind(kind) {
			m.unknown.Add(1)
			continue
		}
		(*handler)(h.ServerID, payload)
	}
}

// patientReader renews a read deadline before each read.
type patientReader struct {
	conn     net.Conn
	patience time.Duration
}

// Read implements io.Reader.
func (r *patientReader) Read(b []byte) (int, error) {
	if err := r.conn.SetReadDeadline(time.Now().Add(r.patience)); err != nil {
		return 0, err
	}
	return r.conn.Read(b)
}
