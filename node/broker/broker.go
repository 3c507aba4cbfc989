// Package broker is the Server of one node: it decides what every packet of every client does, and moves messages
// between clients, the replicated log and the other nodes.
//
// # Two roads of a PUBLISH
//
// A message takes the log when somebody must be able to get it later: a persistent Session with a QoS>0 subscription, a
// shared group, a retained topic, a delay, or (QoS 2) a persistent publisher. The replication of the log is the fan-out:
// every node hands the message to its own live subscribers when it applies the entry (Published). Every other message of
// QoS>0 takes the log as well when another node has live subscribers.
//
// What remains, QoS 0 and purely local traffic, goes straight to the live subscribers of this node (the live tree) and,
// QoS 0 only, in one mesh frame to each other node that has some. A QoS>0 message on this road is acknowledged after
// a read index that was asked for later than the packet was read, and a second look at the routes: if the decision was
// made on an old state, the message is proposed after all.
//
// # Who calls what
//
// The reader of a connection calls link's packet methods. The apply goroutine calls the Observer methods and the
// callbacks of proposals, in log order; none of them blocks. The writer of a connection calls link.Fill. A link's mutex
// is held for short stretches only: no proposal, no read of a body and no callback runs under it.
//
// # Why a Session has no queue here
//
// What waits for a persistent Session is in the replicated streams; Fill pulls as much as the client takes. Only
// transient Sessions have a queue, of bounded size, because their messages are nowhere else.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/node/client"
	"quorate/node/listener"
	"quorate/protocol/packet"
)

// Log is the replicated log as the broker sees it.
type Log interface {
	// Propose puts a command into this node's ordered stream. c is encoded when Propose returns. On nil, done is called
	// exactly once, on the apply goroutine; its error says that the outcome is not known. Another error says that
	// nothing was proposed and done is not called. Propose does not block and may be called from done.
	Propose(c command.Command, done func(fsm.Result, error)) error
	// ReadIndex calls done once everything is applied here that was committed anywhere when ReadIndex was called, the
	// Observer calls included, or with an error.
	ReadIndex(done func(error))
	// ContactAge is the time since the newest verified contact with a leader.
	ContactAge() time.Duration
}

// Peers sends frames to other nodes.
type Peers interface {
	// Send queues a frame, or returns false: no connection, or full. The payload is copied.
	Send(to command.NodeID, kind byte, payload []byte) bool
}

// Config of a Broker. All fields are set by the composition root; DefaultConfig has the values that suit most.
type Config struct {
	Node    command.NodeID // this node
	Machine *fsm.Machine
	Log     Log
	Peers   Peers
	Logger  *slog.Logger
	Auth    Authenticator
	Access  Authorizer
	Limits
}

// Broker serves the clients of one node. It is a listener.Server and the part of an fsm.Observer that concerns clients.
type Broker struct {
	cfg     Config
	machine *fsm.Machine
	log     Log
	peers   Peers
	logger  *slog.Logger
	client  client.Config
	metrics Metrics

	live     liveTree
	applying fanOut // of the apply goroutine
	routes   routes
	clock    atomic.Pointer[clockPoint]
	links    links
	notices  notices
	progress progress
	enders   enders
	turn     atomic.Uint64 // which member of a shared group gets the next QoS 0 message
	frames   atomic.Int64  // bytes of QoS 0 frames that wait for an index

	cutOff  atomic.Bool // no leader contact: clients are turned away
	closing atomic.Bool

	serving sync.WaitGroup
	stop    chan struct{}
	once    sync.Once
	watched sync.WaitGroup
}

// New returns a Broker and starts its clock. Close ends it.
func New(cfg Config) (*Broker, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, machine: cfg.Machine, log: cfg.Log, peers: cfg.Peers, logger: cfg.Logger, stop: make(chan struct{})}
	b.client = cfg.Client
	b.client.Writers = new(client.Writers)
	b.routes.broker, b.progress.broker, b.enders.broker, b.applying.b = b, b, b, b
	b.live.init()
	b.watched.Go(b.watch)
	return b, nil
}

func (c *Config) validate() error {
	var errs []error
	if c.Machine == nil || c.Log == nil || c.Peers == nil || c.Logger == nil || c.Auth == nil || c.Access == nil {
		errs = append(errs, errors.New("machine, log, peers, logger, authenticator and authorizer have to be given"))
	}
	if c.ReceiveMaximum < 1 || c.ReceiveMaximum > 65535 || c.InflightMax < 1 || c.InflightMax > 65535 {
		errs = append(errs, fmt.Errorf("receive maximum %d and inflight %d have to be 1 to 65535", c.ReceiveMaximum, c.InflightMax))
	}
	if c.TopicAliasMaximum < 0 || c.TopicAliasMaximum > 65535 {
		errs = append(errs, fmt.Errorf("topic alias maximum %d has to be 0 to 65535", c.TopicAliasMaximum))
	}
	return errors.Join(errs...)
}

// Metrics returns the counters of the broker.
func (b *Broker) Metrics() *Metrics { return &b.metrics }

// Serve serves one connection until it is closed. It implements listener.Server.
func (b *Broker) Serve(nc net.Conn, info listener.Info) {
	b.serving.Add(1)
	defer b.serving.Done()
	l := &link{b: b, info: info}
	l.conn = client.New(nc, &b.client, &b.metrics.Client, l)
	if !b.links.open(l) {
		_ = nc.Close() // shutting down
		return
	}
	l.conn.Serve()
	b.links.close(l)
	l.notifyClosed()
}

// Disconnect closes the connection of a client with a Reason Code, and returns whether it is connected here. Its will is
// sent. For the cluster-wide way, propose a command.Kick.
func (b *Broker) Disconnect(clientID string, reason packet.ReasonCode) bool {
	ref, node, connected := b.machine.Owner(clientID)
	if !connected || node != b.cfg.Node {
		return false
	}
	l := b.links.get(ref)
	if l == nil {
		return false
	}
	l.conn.Close(reason, "")
	return true
}

// Connections returns how many clients are connected and accepted.
func (b *Broker) Connections() int { return b.links.connected() }

// Shutdown closes every connection with Server shutting down and waits until the log has taken what is owed to it:
// acknowledgements and the ends of the connections (their wills are sent). No new connection is served. Whatever is not
// done when ctx ends is left to the other nodes, which will declare this one dead.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.closing.Store(true)
	b.links.shut(func(l *link) { l.conn.Close(packet.ServerShuttingDown, "") })
	done := make(chan struct{})
	go func() {
		b.serving.Wait()
		b.progress.wait(ctx)
		b.enders.wait(ctx)
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain connections: %w", ctx.Err())
	}
}

// Close stops the broker's clock. It may be called twice. Connections are closed by Shutdown.
func (b *Broker) Close() {
	b.once.Do(func() { close(b.stop) })
	b.watched.Wait()
}
