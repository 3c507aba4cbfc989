package mesh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quorate/fsm/command"
)

type nodeID = command.NodeID

// dial connects to the server id at addr and proves the hello in both directions. A server without a cluster id that
// reaches a member adopts the member's and dials again.
func (m *Mesh) dial(ctx context.Context, id nodeID, addr string, proto byte) (*trackedConn, Hello, error) {
	conn, h, err := m.dialOnce(ctx, id, addr, proto)
	var refused *RefusedError
	if errors.As(err, &refused) && refused.Code == RefusedFresh && refused.ByPeer && h.ServerID == id {
		m.adopting.Lock()
		var adoption *RefusedError
		if m.ClusterID() == "" && h.ClusterID != "" {
			adoption = m.adopt(h)
		}
		m.adopting.Unlock()
		if adoption != nil {
			return nil, h, adoption
		}
		return m.dialOnce(ctx, id, addr, proto)
	}
	return conn, h, err
}

func (m *Mesh) dialOnce(ctx context.Context, id nodeID, addr string, proto byte) (*trackedConn, Hello, error) {
	own := m.hello(id)
	if proto == protocolRaft && own.ClusterID == "" {
		return nil, Hello{}, errors.New("raft connection without a cluster id")
	}
	dialCtx, cancel := context.WithTimeout(ctx, m.cfg.DialTimeout)
	raw, err := m.cfg.Network.Dial(dialCtx, addr)
	cancel()
	if err != nil {
		return nil, Hello{}, fmt.Errorf("dial %s: %w", addr, err)
	}
	conn, err := m.track(raw, false)
	if err != nil {
		return nil, Hello{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	h, err := m.introduce(conn, own, proto)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, h, err
	}
	return conn, h, nil
}

// introduce says hello and judges the answer.
func (m *Mesh) introduce(conn *trackedConn, own Hello, proto byte) (Hello, error) {
	_ = conn.SetDeadline(time.Now().Add(m.cfg.HelloTimeout))
	if _, err := conn.Write(appendHello([]byte{proto}, own)); err != nil {
		return Hello{}, fmt.Errorf("say hello: %w", err)
	}
	a, err := readAnswer(conn)
	if err != nil {
		return a.hello, err
	}
	if a.verdict != Welcome {
		return a.hello, &RefusedError{Code: a.verdict, Reason: a.reason, ByPeer: true}
	}
	if a.hello.ServerID != own.Wanted {
		return a.hello, refuse(RefusedServer, "reached server %s, not %s", a.hello.ServerID, own.Wanted)
	}
	if verdict := m.judgeAnswer(a.hello, own, proto, conn); verdict != nil {
		return a.hello, verdict
	}
	_ = conn.SetDeadline(time.Time{})
	m.heard(a.hello)
	return a.hello, nil
}

// judgeAnswer is judge for the dialling side. A welcome is only good for what was said: when this server's cluster id
// has changed since, the connection is made anew.
func (m *Mesh) judgeAnswer(h, own Hello, proto byte, conn *trackedConn) *RefusedError {
	if h.ClusterID != own.ClusterID {
		if own.ClusterID != "" {
			return refuse(RefusedCluster, "peer belongs to cluster %q, not %s", h.ClusterID, own.ClusterID)
		}
		return refuse(RefusedAdoption, "peer joined cluster %s during the hello", h.ClusterID)
	}
	return m.judge(h, proto, conn)
}
