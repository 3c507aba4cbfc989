// Package node is the composition root: it builds every component of one node, starts them in an order in which nobody
// calls what is not there yet, and ends them in an order in which nothing that was acknowledged is lost. It decides
// nothing about MQTT, consensus or membership; each of those is a package of its own that knows the others by small
// interfaces.
//
//	clients -> listener -> broker -> consensus -> raft -> machine -> observer -> broker -> clients
//	                          |          |                                         |
//	                          +-- mesh --+-- membership                            +-- bodies
//
// A node without a cluster port is a cluster of one on a network with nobody else (solo): there is no second code path.
//
// # The order of ending
//
// Readiness goes first, so that load balancers look elsewhere. Then no more clients are taken, those there are get a
// DISCONNECT, the log takes what is owed to it, leadership is handed over, Raft ends, then gossip, then the network,
// then the disk. A step that fails or takes too long does not keep the later ones from happening.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quorate/cluster/consensus"
	"quorate/cluster/consensus/storage"
	"quorate/cluster/membership"
	"quorate/cluster/mesh"
	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/node/admin"
	"quorate/node/broker"
	"quorate/node/config"
	"quorate/node/listener"
)

// Node is one running member of a cluster. All methods are safe for concurrent use.
type Node struct {
	opt    Options
	cfg    *config.Config
	logger *slog.Logger
	self   command.NodeID

	storage    *consensus.Storage
	bodies     Bodies
	machine    *fsm.Machine
	observer   *observer
	mesh       *mesh.Mesh
	consensus  *consensus.Node
	membership *membership.Membership
	broker     *broker.Broker
	mqtt       []net.Listener
	listeners  []*listener.Listener
	adminLn    net.Listener
	admin      *admin.Server
	metrics    *prometheus.Registry
	asking     asking

	ctx      context.Context // ends with the node
	cancel   context.CancelFunc
	running  sync.WaitGroup
	failed   sync.Once // guards Options.Fatal
	closing  atomic.Bool
	refused  atomic.Pointer[error] // why the cluster does not take this node, until an operator acts
	verdicts verdicts              // of peers that call this node's data directory an old copy
	gone     chan error            // the node must end, and why; capacity 1
	once     sync.Once
	err      error // of Close
}

// New opens the disk and the ports and builds every component. No client is served before Start. On an error nothing
// stays open.
func New(opt Options) (n *Node, err error) {
	opt.fill()
	n = &Node{opt: opt, cfg: &opt.Config, logger: opt.Logger.With("node", opt.Config.Name), gone: make(chan error, 1)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	for _, step := range []func() error{
		n.openPorts,
		n.openStorage,
		n.buildMachine,
		n.buildMesh,
		n.startConsensus,
		n.buildBroker,
		n.buildMembership,
		n.buildMetrics,
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return n, nil
}

// openPorts opens the ports of clients and administrators first: a port that is taken is the most frequent mistake, and
// must not cost an incarnation.
func (n *Node) openPorts() error {
	for _, addr := range n.cfg.MQTT {
		ln, err := n.opt.Network.Listen(addr)
		if err != nil {
			return fmt.Errorf("listen for clients on %s: %w", addr, err)
		}
		n.mqtt = append(n.mqtt, ln)
	}
	if n.cfg.AdminEnabled() {
		ln, err := n.opt.Network.Listen(n.cfg.Admin)
		if err != nil {
			return fmt.Errorf("listen for administrators on %s: %w", n.cfg.Admin, err)
		}
		n.adminLn = ln
	}
	return nil
}

func (n *Node) openStorage() error {
	opt := storage.DefaultOptions()
	opt.Name, opt.Fatal, opt.Logger = n.cfg.Name, n.fatal, n.logger
	st, err := n.opt.OpenStorage(opt)
	if err != nil {
		return fmt.Errorf("open data directory: %w", err)
	}
	n.storage, n.self = st, st.Identity().ServerID
	if n.bodies, err = n.opt.OpenBodies(n.fatal); err != nil {
		return fmt.Errorf("open message bodies: %w", err)
	}
	return nil
}

func (n *Node) buildMachine() error {
	n.observer = &observer{consensus: consensus.NewObserver()}
	n.machine = fsm.New(n.self, n.bodies, n.observer)
	return nil
}

func (n *Node) buildMesh() error {
	id := n.storage.Identity()
	cfg := mesh.Default()
	cfg.Network, cfg.Listen, cfg.Advertise = n.opt.Network, n.cfg.Cluster, n.cfg.Advertise
	if n.cfg.Cluster == "" {
		cfg.Network, cfg.Listen = solo{}, soloAddrPort.String()
	}
	cfg.ServerID, cfg.Name, cfg.ClusterID = id.ServerID, n.cfg.Name, id.ClusterID
	// A node that was declared dead while it lived goes on under a new incarnation.
	cfg.Incarnation = func() uint64 { return n.storage.Identity().Incarnation }
	cfg.DurableIndex = n.storage.Durable
	cfg.Adopt = func(h mesh.Hello) error { return n.membership.Adopt(h) }
	cfg.Admit = n.admit
	cfg.OnRefused = n.peerRefused
	cfg.Logger = n.logger
	m, err := mesh.New(cfg)
	if err != nil {
		return fmt.Errorf("open cluster port: %w", err)
	}
	n.mesh = m
	m.OnUp(n.verdicts.forget)
	return nil
}

// startConsensus restores the newest snapshot. It has to run before the broker exists, which proposes through it; until
// Start nobody is connected, so that nothing else happens.
func (n *Node) startConsensus() error {
	addr, err := clientAddr(n.cfg, addrs(n.mqtt))
	if err != nil {
		return err
	}
	cfg := consensus.Default()
	cfg.Storage, cfg.Machine, cfg.Observer = n.storage, consensus.FromFSM(n.machine), n.observer.consensus
	cfg.Transport, cfg.Peers = n.mesh.RaftTransport(), n.mesh
	cfg.Clock, cfg.Timings, cfg.Limits = n.opt.Clock, timings(n.cfg), limits(n.cfg)
	cfg.Bounds.SnapshotBytes, cfg.Bounds.TrailingBytes = uint64(n.cfg.SnapshotBytes), uint64(n.cfg.SnapshotBytes)
	cfg.ClientAddr, cfg.Logger, cfg.Fatal = addr, n.logger, n.fatal
	cfg.Reincarnated = n.observer.reincarnated
	cfg.Removed = func() { n.end(consensus.ErrRemoved) }
	c, err := consensus.Start(cfg)
	if err != nil {
		n.storage = nil // consensus has closed it
		return fmt.Errorf("start consensus: %w", err)
	}
	n.consensus = c
	for kind, h := range c.Handlers() {
		n.mesh.Handle(kind, h)
	}
	n.mesh.OnUp(c.PeerUp)
	return nil
}

func (n *Node) buildBroker() error {
	cfg := broker.Config{
		Node: n.self, Machine: n.machine, Log: n.consensus, Peers: n.mesh, Logger: n.logger,
		Auth: newPolicy(n.cfg), Access: broker.AllowAll{}, Limits: brokerLimits(n.cfg),
	}
	b, err := broker.New(cfg)
	if err != nil {
		return fmt.Errorf("build broker: %w", err)
	}
	n.broker = b
	n.observer.broker.Store(b)
	for kind, h := range b.Handlers() {
		n.mesh.Handle(kind, h)
	}
	for i, ln := range n.mqtt {
		n.listeners = append(n.listeners, listener.New(ln, b, listener.Config{
			Name: n.cfg.MQTT[i], ConnectionsMax: n.cfg.MaxConnections, Logger: n.logger,
		}))
	}
	return nil
}

func (n *Node) buildMembership() error {
	addr, err := clientAddr(n.cfg, addrs(n.mqtt))
	if err != nil {
		return err
	}
	cfg := membership.Default()
	cfg.Mesh, cfg.Consensus = n.mesh, raftMembers{n.consensus, n.self, n.machine}
	cfg.ServerID, cfg.Name, cfg.Incarnation = n.self, n.cfg.Name, n.storage.Identity().Incarnation
	cfg.Expect, cfg.Seeds = n.cfg.BootstrapExpect(), n.cfg.Join
	cfg.ClientAddr, cfg.Store, cfg.SaveClusterID = addr, n.opt.Members, n.storage.SetClusterID
	cfg.OnRefused = func(err error) { n.refused.Store(&err) }
	cfg.NameOf = func(id command.NodeID) string {
		info, _ := n.machine.Node(id)
		return info.Name
	}
	cfg.Logger = n.logger
	if n.adminLn != nil {
		cfg.AdminAddr = n.adminLn.Addr().String()
	}
	m, err := membership.New(cfg)
	if err != nil {
		return fmt.Errorf("build membership: %w", n.explainMembers(err))
	}
	n.membership = m
	n.asking.init(n)
	return nil
}

// Start joins the cluster, or makes one, and serves clients as soon as there is a leader. It does not wait for that;
// Ready says when it is so.
func (n *Node) Start() error {
	n.mesh.Start()
	if err := n.membership.Start(); err != nil {
		return fmt.Errorf("start membership: %w", err)
	}
	if store, ok := n.bodies.(victims); ok {
		n.running.Go(func() { compact(n.ctx, n.machine, store) })
	}
	for _, l := range n.listeners {
		n.running.Go(func() {
			if err := l.Serve(); err != nil {
				n.end(fmt.Errorf("client listener: %w", err))
			}
		})
	}
	if n.adminLn != nil {
		n.admin = admin.Start(n.adminLn, admin.Config{Node: n, Metrics: n.metrics, Pprof: n.cfg.AdminPprof, Logger: n.logger})
	}
	id := n.storage.Identity()
	n.logger.Info("node started", "server_id", n.self, "incarnation", id.Incarnation, "mqtt", addrTexts(n.mqtt),
		"admin", n.AdminAddr(), "cluster", n.cfg.Cluster, "data", n.cfg.Data)
	return nil
}

// Wait returns when ctx ends, with nil, or when the node cannot go on, with the reason. Close has to follow.
func (n *Node) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.gone:
		return err
	}
}

// end makes Wait return. The first reason counts.
func (n *Node) end(reason error) {
	select {
	case n.gone <- reason:
	default:
	}
}

// fatal ends the process: what the node would do next cannot be trusted.
func (n *Node) fatal(err error) {
	n.failed.Do(func() {
		n.logger.Error("the node cannot go on", "err", err)
		n.opt.Fatal(err)
	})
}

// Close ends the node in good order, as the package comment says, within Config.ShutdownTimeout, waits for everything it
// started, and returns all errors. It may be called twice.
func (n *Node) Close() error {
	n.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), n.cfg.ShutdownTimeout)
		defer cancel()
		n.err = n.close(ctx, true)
	})
	return n.err
}

// Crash ends everything at once, as far as that is possible within a process that goes on: nothing is finished, handed
// over or said. It is for simulations, which take the network and the disk away first: that is what ends the
// connections.
func (n *Node) Crash() {
	n.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), n.cfg.ShutdownTimeout)
		defer cancel()
		n.err = n.close(ctx, false)
	})
}

func (n *Node) close(ctx context.Context, orderly bool) error {
	began := time.Now()
	n.closing.Store(true)
	var errs []error
	step := func(err error) { errs = append(errs, err) }
	for _, l := range n.listeners {
		step(l.Stop())
	}
	if orderly && n.broker != nil {
		n.drain(ctx)
		for _, l := range n.listeners {
			step(l.Close(ctx))
		}
	}
	switch { // consensus closes the storage
	case n.consensus != nil && orderly:
		step(n.consensus.TransferAndShutdown(ctx))
	case n.consensus != nil:
		step(n.consensus.Close())
	case n.storage != nil:
		step(n.storage.Close())
	}
	if n.membership != nil {
		step(n.membership.Close())
	}
	if n.mesh != nil {
		step(n.mesh.Close())
	}
	n.cancel()
	if n.broker != nil {
		n.broker.Close()
		for _, l := range n.listeners {
			step(l.Close(ctx))
		}
	}
	if n.admin != nil {
		step(n.admin.Close(ctx))
	}
	n.running.Wait()
	if n.bodies != nil {
		step(n.bodies.Close())
	}
	step(n.closePorts())
	err := errors.Join(errs...)
	n.logger.Info("node ended", "took", time.Since(began).Round(time.Millisecond), "err", err)
	return err
}

// drainMax bounds the time in which the log is to take what is owed to it when the node ends.
const drainMax = 5 * time.Second

// drain sends the clients away and gives the log time to take their last acknowledgements and their ends. Without a
// leader it would wait in vain. What is not taken is no error: the cluster ends this node's connections when it hears of
// its end, or declares it dead, and what was not acknowledged is sent again.
func (n *Node) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainMax)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- n.broker.Shutdown(ctx) }()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	led := time.Now()
	for {
		select {
		case err := <-drained:
			if err != nil {
				n.logger.Warn("connections ended before the log knew of it", "err", err)
			}
			return
		case <-ticker.C:
			if _, ok := n.consensus.Leader(); ok {
				led = time.Now()
			} else if time.Since(led) > n.cfg.LeaderWait {
				cancel()
			}
		}
	}
}

// closePorts closes the ports that nobody came to own.
func (n *Node) closePorts() error {
	var errs []error
	if len(n.listeners) == 0 {
		for _, ln := range n.mqtt {
			errs = append(errs, ln.Close())
		}
	}
	if n.admin == nil && n.adminLn != nil {
		errs = append(errs, n.adminLn.Close())
	}
	return errors.Join(errs...)
}

// ID is the server id of this node.
func (n *Node) ID() command.NodeID { return n.self }

// MQTTAddrs are the addresses that clients connect to, in the order of the configuration.
func (n *Node) MQTTAddrs() []net.Addr { return addrs(n.mqtt) }

// AdminAddr is the address of the admin listener, "" without one.
func (n *Node) AdminAddr() string {
	if n.adminLn == nil {
		return ""
	}
	return n.adminLn.Addr().String()
}

// Digest is the digest of the replicated state after the log index. It implements admin.Node.
func (n *Node) Digest() (index, digest uint64) { return n.machine.Digest() }

func addrs(list []net.Listener) []net.Addr {
	all := make([]net.Addr, len(list))
	for i, ln := range list {
		all[i] = ln.Addr()
	}
	return all
}

func addrTexts(list []net.Listener) []string {
	all := make([]string, len(list))
	for i, ln := range list {
		all[i] = ln.Addr().String()
	}
	return all
}
