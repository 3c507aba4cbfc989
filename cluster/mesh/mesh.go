// Package mesh carries everything that nodes say to each other over streams: it owns the one cluster port, tells Raft,
// mesh and gossip connections apart by their first byte, proves with a hello that both ends are the servers they mean
// to reach, and moves frames between peers.
//
// Each node dials every peer in its address book, for ever, and sends its frames on the connections it dialled; what a
// peer sends arrives on the connection that peer dialled. So a pair has two connections, no rule is needed for
// simultaneous dials, and frames of one sender arrive in the order of its Send calls. A connection is probed every
// second in both directions, because TCP alone notices a dead peer, or a healed network, only after minutes.
//
// # Why not one connection per pair, gRPC, or QUIC
//
// One connection per pair needs a tie-break when both dial, and the loser's frames must be moved or lost. gRPC costs
// ten times the CPU of a length-prefixed frame at 500,000 small frames a second, and brings deadlines per call that
// nobody here wants: answers come through the replicated log. QUIC would be one more port and a user-space stack.
//
// # What mesh is not
//
// It promises order and integrity of frames per connection, not delivery: what was queued when a connection broke is
// gone, and its senders (package consensus, node/broker) resend by their own numbers. It decides nothing about who is a
// member; package membership fills the address book.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"quorate/fsm/command"
)

// Config is what a Mesh needs. Start from Default.
type Config struct {
	// Network carries the bytes; nil means OS.
	Network Network
	// Listen is the cluster address to bind, "host:port". Port 0 draws one that is free for TCP and UDP.
	Listen string
	// Advertise is the address peers reach this node at; empty means the bound one.
	Advertise string

	// ServerID, Name and ClusterID go into the hello. ClusterID is empty for a server that belongs to no cluster yet.
	ServerID  command.NodeID
	Name      string
	ClusterID string

	// Incarnation returns the start counter as it is now; nil means 0. Called once per handshake.
	Incarnation func() uint64
	// DurableIndex returns the last log index on disk; nil means 0. Called once per handshake.
	DurableIndex func() uint64
	// Adopt is asked before a server without a cluster id takes over the one of hello. It must make the id durable
	// before it returns nil; its error refuses the connection. Calls never overlap. Nil refuses every adoption.
	Adopt func(hello Hello) error
	// Admit may refuse a peer whose hello is otherwise in order (its start counter or log went back). It may write to
	// disk. It is called from many goroutines, for dialled and accepted connections. The code of the refusal is that of a
	// *RefusedError, else RefusedAdmission. Nil admits.
	Admit func(hello Hello) error
	// OnRefused is told of each attempt to reach a peer that was refused by either side. It is called from many
	// goroutines and must not block. May be nil.
	OnRefused func(peer command.NodeID, refusal *RefusedError)

	// HelloTimeout bounds the silence of a new connection until its hello is proven.
	HelloTimeout time.Duration
	// DialTimeout bounds one attempt to connect, so that a healed network is noticed soon.
	DialTimeout time.Duration
	// BackoffMin and BackoffMax bound the pause between two attempts; it doubles, with jitter.
	BackoffMin, BackoffMax time.Duration
	// ProbeInterval is the time between two liveness probes; DeadAfter without an answer ends a connection. A write
	// that makes no progress for DeadAfter ends it too.
	ProbeInterval, DeadAfter time.Duration
	// QueueBytesMax bounds what may wait for one peer; Send returns false beyond it.
	QueueBytesMax int
	// PendingMax bounds connections that have not proven a hello yet; more are closed at once.
	PendingMax int
	// ConnsMax bounds accepted connections of all kinds; more are refused.
	ConnsMax int
	// PeersMax bounds the address book; more are ignored and logged.
	PeersMax int

	// Logger receives what an operator should see; nil discards.
	Logger *slog.Logger
}

// Default returns the settings that hold in production. Identity, addresses and callbacks are the caller's.
func Default() Config {
	return Config{
		Network:       OS{},
		HelloTimeout:  5 * time.Second,
		DialTimeout:   2 * time.Second,
		BackoffMin:    50 * time.Millisecond,
		BackoffMax:    time.Second,
		ProbeInterval: time.Second,
		DeadAfter:     5 * time.Second,
		QueueBytesMax: 64 << 20,
		PendingMax:    256,
		ConnsMax:      1024,
		PeersMax:      256,
	}
}

// Mesh is one node's end of the peer network. All methods are safe for concurrent use.
type Mesh struct {
	cfg      Config
	self     command.NodeID
	logger   *slog.Logger
	listener net.Listener
	packets  net.PacketConn
	addr     string // what peers dial
	refused  *refusals

	ctx    context.Context // the lifetime of the component
	cancel context.CancelFunc
	wg     sync.WaitGroup

	handlers [256]atomic.Pointer[Handler]
	unknown  atomic.Uint64 // frames of kinds without handler, or not allowed before a cluster id
	framesIn atomic.Uint64
	bytesIn  atomic.Uint64

	adopting sync.Mutex // serialises adoption; held over Config.Adopt, which may write to disk

	raft    connQueue
	gossip  connQueue
	pending chan struct{} // a slot per connection without a proven hello

	mu        sync.Mutex
	started   bool
	closed    bool
	clusterID string
	book      atomic.Pointer[map[command.NodeID]*peer] // copy on write under mu: Send reads it without a lock
	inbound   map[command.NodeID]*inbound
	conns     map[*trackedConn]struct{} // every connection of ours, to end them at Close
	accepted  int                       // those of conns that were accepted
	onUp      []func(command.NodeID)
	onDown    []func(command.NodeID)
	onHello   []func(Hello)
}

// Handler takes a frame from a peer. It runs on the goroutine that reads that peer's connection: it must not block, and
// payload is valid only until it returns. Frames of one peer never overlap and keep their order.
type Handler func(from command.NodeID, payload []byte)

// ErrNoPeer is returned when a ServerID is not in the address book.
var ErrNoPeer = errors.New("server is not in the address book")

// New binds the cluster address for TCP and UDP and returns a Mesh that serves nobody until Start.
func New(cfg Config) (*Mesh, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Network == nil {
		cfg.Network = OS{}
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if system, ok := cfg.Network.(OS); ok && system.Source == nil {
		cfg.Network = OS{Source: specificIP(cfg.Listen)}
	}
	listener, packets, err := listenBoth(cfg.Network, cfg.Listen)
	if err != nil {
		return nil, err
	}
	m := &Mesh{
		cfg: cfg, self: cfg.ServerID, logger: cfg.Logger,
		listener: listener, packets: packets, addr: cfg.Advertise,
		refused:   newRefusals(cfg.Logger),
		raft:      newConnQueue(),
		gossip:    newConnQueue(),
		pending:   make(chan struct{}, cfg.PendingMax),
		clusterID: cfg.ClusterID,
		inbound:   make(map[command.NodeID]*inbound),
		conns:     make(map[*trackedConn]struct{}),
	}
	m.book.Store(&map[command.NodeID]*peer{})
	if m.addr == "" {
		m.addr = listener.Addr().String()
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m, nil
}

func (c *Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.ServerID != "" && len(c.ServerID) <= helloFieldMax, "server id of %d bytes: want 1 to %d", len(c.ServerID), helloFieldMax)
	check(len(c.Name) <= helloFieldMax, "name longer than %d bytes", helloFieldMax)
	check(len(c.Advertise) <= helloFieldMax, "advertised address longer than %d bytes", helloFieldMax)
	check(len(c.ClusterID) <= helloFieldMax, "cluster id longer than %d bytes", helloFieldMax)
	check(c.HelloTimeout > 0 && c.DialTimeout > 0, "hello and dial timeout must be positive")
	check(c.BackoffMin > 0 && c.BackoffMax >= c.BackoffMin, "back-off must be positive and ordered")
	check(c.ProbeInterval > 0 && c.DeadAfter > c.ProbeInterval, "DeadAfter must exceed ProbeInterval")
	check(c.QueueBytesMax > 0 && c.PendingMax > 0 && c.ConnsMax > 0 && c.PeersMax > 0, "limits must be positive")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("mesh configuration: %w", err)
	}
	return nil
}

// Start begins to accept and to dial. Handlers and callbacks should be in place before.
func (m *Mesh) Start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.started || m.closed {
		return
	}
	m.started = true
	m.goLocked(m.acceptLoop)
	for _, p := range *m.book.Load() {
		m.goLocked(p.run)
	}
}

// goLocked starts f as a goroutine that Close waits for; it does nothing once closed. The caller holds m.mu.
func (m *Mesh) goLocked(f func()) bool {
	if m.closed {
		return false
	}
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		f()
	}()
	return true
}

// Close ends every connection and waits for all goroutines. It may be called twice.
func (m *Mesh) Close() error {
	m.mu.Lock()
	first := !m.closed
	m.closed = true
	conns := make([]*trackedConn, 0, len(m.conns))
	for c := range m.conns {
		conns = append(conns, c)
	}
	m.mu.Unlock()
	var err error
	if first {
		m.cancel()
		err = errors.Join(m.listener.Close(), m.packets.Close())
		m.raft.close()
		m.gossip.close()
	}
	for _, c := range conns {
		_ = c.Close()
	}
	m.wg.Wait()
	return err
}

// Addr returns the address peers reach this node at.
func (m *Mesh) Addr() string { return m.addr }

// PacketConn returns the datagram socket of the cluster port, for gossip. Close closes it.
func (m *Mesh) PacketConn() net.PacketConn { return m.packets }

// Gossip returns the accepted gossip streams, as a listener without its first byte. They have proven nothing yet.
func (m *Mesh) Gossip() net.Listener { return &queueListener{q: &m.gossip, addr: m.listener.Addr()} }

// DialGossip opens a gossip stream to addr.
func (m *Mesh) DialGossip(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := m.cfg.Network.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	tracked, err := m.track(conn, false)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = tracked.SetDeadline(deadline)
	}
	if _, err := tracked.Write([]byte{protocolGossip}); err != nil {
		_ = tracked.Close()
		return nil, fmt.Errorf("open gossip stream to %s: %w", addr, err)
	}
	return tracked, nil
}

// ClusterID returns the cluster this server belongs to, or "".
func (m *Mesh) ClusterID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clusterID
}

// SetClusterID tells mesh the id that this server has just made durable as the founder of a cluster. A server that
// joins adopts its id through Config.Adopt instead. Setting another id than the present one is a broken invariant.
func (m *Mesh) SetClusterID(id string) {
	m.adopting.Lock()
	defer m.adopting.Unlock()
	m.setClusterID(id)
}

// setClusterID ends the connections that were made without a cluster id, so that they prove the new one. The caller
// holds m.adopting.
func (m *Mesh) setClusterID(id string) {
	m.mu.Lock()
	if m.clusterID != "" && m.clusterID != id {
		m.mu.Unlock()
		panic(fmt.Sprintf("mesh: cluster id changes from %q to %q", m.clusterID, id))
	}
	m.clusterID = id
	var fresh []*trackedConn
	for c := range m.conns {
		if c.fresh {
			fresh = append(fresh, c)
		}
	}
	m.mu.Unlock()
	for _, c := range fresh {
		_ = c.Close()
	}
	for _, p := range *m.book.Load() {
		p.kick()
	}
}

// Handle registers the handler of a kind, replacing any former one.
func (m *Mesh) Handle(kind Kind, h func(from command.NodeID, payload []byte)) {
	if kind == kindProbe {
		panic("mesh: frame kind 0 is mesh's own")
	}
	handler := Handler(h)
	m.handlers[kind].Store(&handler)
}

// OnUp registers f to be called when a connection to a peer is proven: from now on Send may succeed. Callbacks of one
// peer never overlap; they must not block.
func (m *Mesh) OnUp(f func(command.NodeID)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onUp = append(m.onUp, f)
}

// OnDown registers f to be called when the connection of an earlier OnUp has ended. What was queued is lost.
func (m *Mesh) OnDown(f func(command.NodeID)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onDown = append(m.onDown, f)
}

// OnHello registers f to be called with each proven hello of a peer of the same cluster. It must not block.
func (m *Mesh) OnHello(f func(Hello)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onHello = append(m.onHello, f)
}

// SetPeer puts a server into the address book, or moves it. An open connection stays; a waiting dialler tries the new
// address at once.
func (m *Mesh) SetPeer(id command.NodeID, addr string) {
	if id == m.self || id == "" || addr == "" {
		return
	}
	m.mu.Lock()
	book := *m.book.Load()
	if p, ok := book[id]; ok {
		m.mu.Unlock()
		p.move(addr)
		return
	}
	full := len(book) >= m.cfg.PeersMax
	if !full && !m.closed {
		p := newPeer(m, id, addr)
		book = maps.Clone(book)
		book[id] = p
		m.book.Store(&book)
		if m.started {
			m.goLocked(p.run)
		}
	}
	m.mu.Unlock()
	if full {
		m.logger.Warn("address book is full, peer ignored", "peer", id, "peers_max", m.cfg.PeersMax)
	}
}

// RemovePeer takes a server out of the address book and ends the connection to it.
func (m *Mesh) RemovePeer(id command.NodeID) {
	m.mu.Lock()
	p := m.peer(id)
	if p != nil {
		book := maps.Clone(*m.book.Load())
		delete(book, id)
		m.book.Store(&book)
	}
	m.mu.Unlock()
	if p != nil {
		p.cancel()
	}
}

// peer returns the address book's entry for id, or nil.
func (m *Mesh) peer(id command.NodeID) *peer { return (*m.book.Load())[id] }

// Send queues one frame for a peer. It never blocks. False means that nothing was queued: no connection, the queue is
// full, or payload exceeds PayloadBytesMax. The payload is copied.
func (m *Mesh) Send(to command.NodeID, kind byte, payload []byte) bool {
	p := m.peer(to)
	return p != nil && p.send(kind, 0, payload)
}

// Peer describes one entry of the address book.
type Peer struct {
	ID   command.NodeID
	Addr string
	// Name is the human name from its last hello, "" if none was proven yet.
	Name string
	// Up says whether Send can reach it; Since when that has been so.
	Up    bool
	Since time.Time
	// QueuedBytes wait to be written. Dropped counts frames refused because the queue was full.
	QueuedBytes int
	Dropped     uint64
	FramesOut   uint64
	BytesOut    uint64
	// LastError is why the last attempt or connection failed, "" if none did.
	LastError string
}

// Peers returns the address book, in no particular order.
func (m *Mesh) Peers() []Peer {
	book := *m.book.Load()
	out := make([]Peer, 0, len(book))
	for _, p := range book {
		out = append(out, p.describe())
	}
	return out
}

// Stats are counters since New.
type Stats struct {
	FramesIn, BytesIn uint64
	// UnknownFrames were dropped: no handler for their kind.
	UnknownFrames uint64
	// Refused counts refused connections by cause, on either side.
	Refused map[string]uint64
}

// Stats returns the counters.
func (m *Mesh) Stats() Stats {
	return Stats{
		FramesIn: m.framesIn.Load(), BytesIn: m.bytesIn.Load(),
		UnknownFrames: m.unknown.Load(), Refused: m.refused.snapshot(),
	}
}
