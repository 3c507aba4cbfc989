package mesh

import (
	"errors"
	"io"
	"net"
	"time"
)

// The first byte of a stream on the cluster port.
const (
	protocolRaft   byte = 'R'
	protocolMesh   byte = 'M'
	protocolGossip byte = 'G'
)

// acceptLoop takes connections and never waits for one of them.
func (m *Mesh) acceptLoop() {
	const pauseMin, pauseMax = 5 * time.Millisecond, time.Second
	pause := pauseMin
	for {
		conn, err := m.listener.Accept()
		if err != nil {
			if m.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			m.logger.Error("accept on the cluster port", "err", err, "pause", pause)
			if !m.pause(pause) {
				return
			}
			pause = min(2*pause, pauseMax)
			continue
		}
		pause = pauseMin
		m.admitConn(conn)
	}
}

// pause waits for d; false means the mesh was closed meanwhile.
func (m *Mesh) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.ctx.Done():
		return false
	}
}

// admitConn gives conn a goroutine and a deadline, if there is a slot for one more unproven connection.
func (m *Mesh) admitConn(conn net.Conn) {
	select {
	case m.pending <- struct{}{}:
	default:
		_ = conn.Close()
		m.refused.note(refuse(RefusedBusy, "already %d connections without a hello", m.cfg.PendingMax), hostOf(conn))
		return
	}
	m.mu.Lock()
	ok := m.goLocked(func() { m.greet(conn) })
	m.mu.Unlock()
	if !ok {
		<-m.pending
		_ = conn.Close()
	}
}

// greet reads the first byte and the hello, and hands the connection to whom it is for. It frees the pending slot.
func (m *Mesh) greet(conn net.Conn) {
	c, in, h, proto, err := m.prove(conn)
	<-m.pending
	if err != nil {
		if refused := (*RefusedError)(nil); errors.As(err, &refused) {
			m.refused.note(refused, partyOf(h, conn))
		}
		return
	}
	switch proto {
	case protocolGossip:
		if !m.gossip.offer(c) {
			_ = c.Close()
		}
	case protocolRaft:
		if !m.raft.offer(c) {
			_ = c.Close()
			m.refused.note(refuse(RefusedBusy, "raft is not taking connections"), partyOf(h, conn))
		}
	case protocolMesh:
		m.serveInbound(in, h)
	}
}

// prove returns conn once it has shown what it is. On error conn is closed.
func (m *Mesh) prove(conn net.Conn) (c *trackedConn, in *inbound, h Hello, proto byte, err error) {
	if c, err = m.track(conn, true); err != nil {
		return nil, nil, h, 0, err
	}
	_ = c.SetDeadline(time.Now().Add(m.cfg.HelloTimeout))
	var first [1]byte
	if _, err = io.ReadFull(c, first[:]); err == nil {
		switch first[0] {
		case protocolGossip: // memberlist has its own label, and key
		case protocolRaft, protocolMesh:
			h, in, err = m.answerHello(c, first[0])
		default:
			err = refuse(RefusedProtocol, "first byte 0x%02x", first[0])
		}
	}
	if err != nil {
		_ = c.Close()
		return nil, nil, h, first[0], silence(err)
	}
	_ = c.SetDeadline(time.Time{})
	return c, in, h, first[0], nil
}

// silence turns a time-out or broken stream before the hello was complete into a refusal, so that it is counted.
func silence(err error) error {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return refuse(RefusedSilence, "no complete hello in time")
	case errors.Is(err, errHello):
		return refuse(RefusedProtocol, "%v", err)
	}
	return err
}

// answerHello reads the peer's hello, judges it and answers. The connection of a welcome mesh peer is registered.
func (m *Mesh) answerHello(c *trackedConn, proto byte) (Hello, *inbound, error) {
	h, err := readHello(c)
	if err != nil {
		return h, nil, err
	}
	var in *inbound
	verdict := m.judge(h, proto, c)
	if verdict == nil && proto == protocolMesh {
		in, verdict = m.register(c, h)
	}
	a := answer{hello: m.hello(h.ServerID)}
	if verdict != nil {
		a.verdict, a.reason = verdict.Code, verdict.Reason
	}
	_ = c.SetDeadline(time.Now().Add(m.cfg.HelloTimeout))
	_, err = c.Write(appendAnswer(nil, a))
	switch {
	case verdict != nil:
		return h, nil, verdict
	case err != nil && in != nil:
		m.unregister(in, h)
	}
	if err != nil {
		return h, nil, err
	}
	m.heard(h)
	return h, in, nil
}

// hello is what this node says of itself to the server wanted.
func (m *Mesh) hello(wanted nodeID) Hello {
	h := Hello{
		ClusterID: m.ClusterID(), ServerID: m.self, Wanted: wanted,
		Name: m.cfg.Name, Addr: m.addr,
	}
	if m.cfg.Incarnation != nil {
		h.Incarnation = m.cfg.Incarnation()
	}
	if m.cfg.DurableIndex != nil {
		h.DurableIndex = m.cfg.DurableIndex()
	}
	return h
}

// judge decides on a hello of either side of a connection; nil is welcome. It marks c as fresh when neither side has a
// cluster id.
func (m *Mesh) judge(h Hello, proto byte, c *trackedConn) *RefusedError {
	switch {
	case h.ServerID == m.self:
		return refuse(RefusedSelf, "server id %s is in use by %s: two copies of one data directory are running; "+
			"stop one and delete its data directory", m.self, h.Addr)
	case h.Wanted != m.self:
		return refuse(RefusedServer, "this is server %s, not %s", m.self, h.Wanted)
	}
	if err := m.judgeCluster(h, proto, c); err != nil {
		return err
	}
	if m.cfg.Admit != nil {
		if err := m.cfg.Admit(h); err != nil {
			if verdict := (*RefusedError)(nil); errors.As(err, &verdict) {
				return verdict
			}
			return refuse(RefusedAdmission, "%v", err)
		}
	}
	return nil
}

// judgeCluster compares cluster ids, adopting the peer's where this server has none.
func (m *Mesh) judgeCluster(h Hello, proto byte, c *trackedConn) *RefusedError {
	m.adopting.Lock()
	defer m.adopting.Unlock()
	own := m.ClusterID()
	switch {
	case own != "" && own == h.ClusterID:
		return nil
	case own != "" && h.ClusterID != "":
		return refuse(RefusedCluster, "this server belongs to cluster %s, not %s", own, h.ClusterID)
	case own != "":
		return refuse(RefusedFresh, "peer belongs to no cluster; this is cluster %s", own)
	case h.ClusterID == "" && proto == protocolMesh:
		m.mu.Lock()
		c.fresh = true
		m.mu.Unlock()
		return nil
	case h.ClusterID == "":
		return refuse(RefusedAdoption, "neither side belongs to a cluster")
	}
	return m.adopt(h)
}

// adopt takes over the cluster id of h. The caller holds m.adopting.
func (m *Mesh) adopt(h Hello) *RefusedError {
	if m.cfg.Adopt == nil {
		return refuse(RefusedAdoption, "this server adopts no cluster")
	}
	if err := m.cfg.Adopt(h); err != nil {
		return refuse(RefusedAdoption, "%v", err)
	}
	m.logger.Info("joined cluster", "cluster", h.ClusterID, "peer", h.ServerID, "peer_name", h.Name)
	m.setClusterID(h.ClusterID)
	return nil
}

// heard tells the OnHello callbacks of a proven hello of this server's own cluster.
func (m *Mesh) heard(h Hello) {
	m.mu.Lock()
	ours := m.clusterID != "" && m.clusterID == h.ClusterID
	callbacks := m.onHello
	m.mu.Unlock()
	if !ours {
		return
	}
	for _, f := range callbacks {
		f(h)
	}
}

func hostOf(conn net.Conn) string {
	addr := conn.RemoteAddr()
	if addr == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return host
}

// partyOf names the other side for a log line: by server when it said one.
func partyOf(h Hello, conn net.Conn) string {
	if h.ServerID != "" {
		return string(h.ServerID)
	}
	return hostOf(conn)
}
