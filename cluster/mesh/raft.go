package mesh

import (
	"context"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	raftPoolMax = 3
	raftTimeout = 10 * time.Second
	// raftTimeoutScale is how many bytes of a snapshot each raftTimeout may take. The library's 256 KiB would let a dead
	// link hold a replication goroutine for hours.
	raftTimeoutScale = 8 << 20
)

// Transport is a raft.Transport over the mesh's port. Raft addresses are ServerIDs; the address book resolves them, so
// a server that moves needs no configuration change.
type Transport struct {
	*raft.NetworkTransport
}

// SetHeartbeatHandler does nothing, on purpose: with the library's fast path a heartbeat changes the term beside the
// main goroutine, and a deposed leader can append an entry under the new term (hashicorp/raft issue 695; it made state
// machines diverge in 6 of 10 tries). Without it heartbeats queue with the other requests.
func (Transport) SetHeartbeatHandler(func(raft.RPC)) {}

var (
	_ raft.Transport             = Transport{}
	_ raft.WithPreVote           = Transport{}
	_ raft.WithClose             = Transport{}
	_ raft.StreamLayer           = (*streamLayer)(nil)
	_ hclog.SinkAdapter          = hclogSink{}
	_ raft.ServerAddressProvider = serverIDs{}
)

// RaftTransport returns the transport of this server. Call it once; Close of the Mesh ends its connections too.
func (m *Mesh) RaftTransport() raft.Transport {
	t := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                &streamLayer{m: m},
		MaxPool:               raftPoolMax,
		Timeout:               raftTimeout,
		ServerAddressProvider: serverIDs{},
		Logger:                hclogTo(m.logger.With("component", "raft-transport")),
	})
	t.TimeoutScale = raftTimeoutScale
	return Transport{t}
}

// serverIDs gives each server its id as address.
type serverIDs struct{}

// ServerAddr implements raft.ServerAddressProvider.
func (serverIDs) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	return raft.ServerAddress(id), nil
}

// streamLayer makes Raft's connections out of the mesh's port.
type streamLayer struct{ m *Mesh }

// Accept implements net.Listener: connections arrive with their hello proven.
func (s *streamLayer) Accept() (net.Conn, error) { return s.m.raft.accept() }

// Close implements net.Listener.
func (s *streamLayer) Close() error {
	s.m.raft.close()
	return nil
}

// Addr implements net.Listener with this server's id.
func (s *streamLayer) Addr() net.Addr { return serverAddr(s.m.self) }

// Dial implements raft.StreamLayer; address is a ServerID.
func (s *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id := nodeID(address)
	p := s.m.peer(id)
	if p == nil {
		return nil, ErrNoPeer
	}
	ctx, cancel := context.WithTimeout(s.m.ctx, timeout)
	defer cancel()
	conn, _, err := s.m.dial(ctx, id, p.address(), protocolRaft)
	if err != nil {
		p.fail(err)
		return nil, err
	}
	return conn, nil
}

// serverAddr is a ServerID as net.Addr.
type serverAddr nodeID

// Network implements net.Addr.
func (serverAddr) Network() string { return "raft" }

// String implements net.Addr.
func (a serverAddr) String() string { return string(a) }

// hclogTo returns an hclog.Logger that writes to logger.
func hclogTo(logger *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(hclogSink{logger})
	return l
}

// hclogSink forwards what the Raft library logs.
type hclogSink struct{ logger *slog.Logger }

// Accept implements hclog.SinkAdapter. Connection errors of peers are the library's to retry and are no error of this
// node: they are logged one level lower.
func (s hclogSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Error:
		to = slog.LevelWarn
	case hclog.Warn:
		to = slog.LevelInfo
	}
	s.logger.Log(context.Background(), to, msg, args...)
}
