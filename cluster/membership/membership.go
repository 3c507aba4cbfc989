// Package membership finds the other servers of the cluster and keeps the Raft configuration in step with them.
//
// It runs memberlist on the cluster port for discovery and as a hint of failure, fills mesh's address book, founds a
// cluster (--expect), and on the leader turns new servers into non-voters and caught-up ones into voters.
//
// # Gossip is a hint
//
// The Raft configuration is the truth about who votes. Nothing here removes a server because gossip calls it dead. A
// voter leaves by Leave or Remove, or because a new server with its name (a wiped disk) stands ready to take its place
// while the leader itself has long not heard from the old one and a majority of the others answers.
//
// # Why not memberlist alone
//
// memberlist does not re-merge after a cut that outlasts its failure detection: each side forgets the other. So every
// address ever seen is tried again, for ever, every few seconds. Its leave event cannot be told from a crash, so leaving
// is a flag in the meta data. Its callbacks run under its lock, so they only copy what they are given.
//
// # Founding a cluster
//
// Every server started with --expect N gossips N. When one sees N servers without a cluster that agree on N, and it has
// the lowest id of the N it picks, it draws a random cluster id, notes durably that it means to found it, and asks each
// of the others for a promise. A server gives its promise, durably, to one founding at a time, and while it holds it will
// neither found a cluster nor join another one. Only with all N-1 promises the founder bootstraps Raft with exactly these
// N servers. So of two foundings that share a server at most one completes, whatever is delayed, paused or cut: no clock
// is part of the argument.
//
// A founder that gives up releases its promises; a restarted one that had not bootstrapped yet knows nothing of the old
// id and says so when asked. Each helper writes the same first configuration, so that the cluster can elect a leader
// without its founder. A promise to a founder that is gone for good is dropped when the founder has been
// unreachable for a while and every other promised server, asked, has dropped it durably too: without their votes that
// cluster can never elect a leader, and a server takes over the id of a cluster it promised nothing to only once that
// cluster has had a leader (mesh.Hello.Formed).
package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"

	"quorate/cluster/mesh"
	"quorate/fsm/command"
)

// VotersMax is the largest number of voters; further servers stay non-voters, which apply the log and serve clients.
const VotersMax = 5

// Consensus is what this package needs of the Raft side. Methods that change the configuration return after the change
// is committed, or with an error; ctx bounds the wait.
type Consensus interface {
	// Bootstrap makes the first configuration durable.
	Bootstrap(servers []raft.Server) error
	// Servers returns the latest configuration known here and the last index of the log, 0 when nothing was ever stored.
	Servers() (servers []raft.Server, lastIndex uint64)
	// IsLeader reports whether this server leads.
	IsLeader() bool
	// Leader returns the leader, if one is known.
	Leader() (command.NodeID, bool)
	// AddNonvoter, Promote and Remove change the configuration by one server. Leader only.
	AddNonvoter(ctx context.Context, id command.NodeID) error
	Promote(ctx context.Context, id command.NodeID) error
	Remove(ctx context.Context, id command.NodeID) error
	// Progress returns the leader's own evidence about a server, itself included: the last index its machine applied, and
	// how long ago it last answered. ok is false when there is none. Leader only.
	Progress(id command.NodeID) (applied uint64, silent time.Duration, ok bool)
}

// Config is what a Membership needs. Start from Default.
type Config struct {
	// Mesh is the open mesh of this node. Its Config.Adopt must call Membership.Adopt.
	Mesh      *mesh.Mesh
	Consensus Consensus
	// ServerID and Name are those of the mesh; Incarnation is the start counter at start.
	ServerID    command.NodeID
	Name        string
	Incarnation uint64
	// Expect is the number of servers that found the cluster: 1 founds alone at once, 0 never founds and only joins.
	Expect int
	// Seeds are addresses ("host:port") tried for ever.
	Seeds []string
	// ClientAddr and AdminAddr are gossiped, for Server References and status.
	ClientAddr, AdminAddr string
	// Label keeps clusters with other labels out of the gossip; at most 255 bytes.
	Label string
	// Store keeps promises and remembered addresses over restarts.
	Store Store
	// SaveClusterID makes the id of the cluster durable before this server acts as a part of it.
	SaveClusterID func(clusterID string) error
	// NameOf returns the name under which the replicated state knows a server that has been up in this cluster, "" if it
	// has not: a server with a log that is known but not in the configuration has been removed. Nil knows all and no name.
	NameOf func(command.NodeID) string
	// OnRefused is told when this server cannot be part of the cluster until an operator acts (its name is taken). It may
	// be called again, and must not block. May be nil: the reason is logged in any case.
	OnRefused func(error)
	// Resolve looks up the host name of a seed; nil means the system's resolver.
	Resolve func(ctx context.Context, host string) ([]string, error)

	// RejoinInterval is the time between two rounds of trying every address that is no live member.
	RejoinInterval time.Duration
	// CheckInterval is how often founding and reconciliation look at the world besides at each change.
	CheckInterval time.Duration
	// SettleTime is how long the servers seen must stay the same before one founds a cluster with them.
	SettleTime time.Duration
	// PromiseTimeout bounds one founding attempt; PromiseLostAfter is how long a founder must be unreachable before its
	// promises are questioned.
	PromiseTimeout, PromiseLostAfter time.Duration
	// StableAfter is how long a server must be caught up before it gets a vote; LagMax is what counts as caught up.
	StableAfter time.Duration
	LagMax      uint64
	// SilentAfter is the silence towards the leader after which a server counts as unreachable; ReplaceAfter is how long
	// it must be that before a new server of its name may take its place.
	SilentAfter, ReplaceAfter time.Duration
	// ChangeTimeout bounds one configuration change.
	ChangeTimeout time.Duration
	// RememberFor is how long the address of a vanished server outside the configuration is kept and tried.
	RememberFor time.Duration
	// VotersMax bounds the voters; at most the constant of that name.
	VotersMax int

	Logger *slog.Logger
}

// Default returns the production settings.
func Default() Config {
	return Config{
		Label:            "quorate",
		RejoinInterval:   3 * time.Second,
		CheckInterval:    500 * time.Millisecond,
		SettleTime:       time.Second,
		PromiseTimeout:   5 * time.Second,
		PromiseLostAfter: 30 * time.Second,
		StableAfter:      5 * time.Second,
		LagMax:           256,
		SilentAfter:      5 * time.Second,
		ReplaceAfter:     15 * time.Second,
		ChangeTimeout:    10 * time.Second,
		RememberFor:      72 * time.Hour,
		VotersMax:        VotersMax,
	}
}

// Member is what is known of one server.
type Member struct {
	Meta
	// Alive is gossip's opinion: a hint.
	Alive bool
	// Connected says that mesh has a proven connection to it; true for this server itself.
	Connected bool
	// InConfig says that the Raft configuration holds it; Meta.Voter is then from there too.
	InConfig bool
	// LastSeen is when gossip, or a hello, last showed it alive.
	LastSeen time.Time
}

// Membership is one node's view of the cluster. All methods are safe for concurrent use.
type Membership struct {
	cfg    Config
	self   command.NodeID
	logger *slog.Logger
	mesh   *mesh.Mesh
	list   *memberlist.Memberlist
	links  *transport

	table    *table
	founding *founding
	problems *problems
	meta     metaCell

	startedAt time.Time // of waiting for a first leader; only the founding loop uses it

	ctx      context.Context // the lifetime of the component
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	inbox    chan letter      // membership frames from peers
	wake     chan struct{}    // the world changed: founding looks again
	remeta   chan struct{}    // the meta data changed
	leading  chan struct{}    // the world changed: reconciliation looks again
	removals chan removal     // asked for by Remove and Leave
	asked    *pendingRemovals // removals asked of the leader
	serving  chan struct{}    // a slot per removal served for another node
	leaving  chan struct{}    // closed by Leave
	once     struct{ leave, close sync.Once }
}

// New checks cfg, loads what was remembered and registers with mesh. Nothing is sent before Start.
func New(cfg Config) (*Membership, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Resolve == nil {
		cfg.Resolve = net.DefaultResolver.LookupHost
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	state, err := loadState(cfg.Store)
	if err != nil {
		return nil, err
	}
	m := &Membership{
		cfg: cfg, self: cfg.ServerID, logger: cfg.Logger, mesh: cfg.Mesh,
		table:    newTable(cfg.ServerID, state.Known),
		problems: newProblems(cfg.Logger),
		inbox:    make(chan letter, inboxMax),
		wake:     make(chan struct{}, 1),
		remeta:   make(chan struct{}, 1),
		leading:  make(chan struct{}, 1),
		removals: make(chan removal),
		asked:    newPendingRemovals(),
		serving:  make(chan struct{}, removalsMax),
		leaving:  make(chan struct{}),
	}
	m.startedAt = time.Now()
	m.founding = newFounding(&m.cfg, m, m.problems, state.Promise)
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.refreshMeta()
	m.mesh.Handle(mesh.KindMember, m.receive)
	m.mesh.Handle(mesh.KindMemberAnswer, m.receive)
	m.mesh.OnHello(m.heard)
	m.mesh.OnUp(func(command.NodeID) { m.changed() })
	m.mesh.OnDown(func(command.NodeID) { m.changed() })
	return m, nil
}

func (c *Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Mesh != nil && c.Consensus != nil && c.Store != nil && c.SaveClusterID != nil, "mesh, consensus, store and SaveClusterID are required")
	check(c.ServerID != "" && len(c.ServerID) <= idBytesMax, "server id of %d bytes: want 1 to %d", len(c.ServerID), idBytesMax)
	check(c.Name != "" && len(c.Name) <= nameBytesMax, "name of %d bytes: want 1 to %d", len(c.Name), nameBytesMax)
	check(len(c.ClientAddr) <= addrBytesMax && len(c.AdminAddr) <= addrBytesMax, "an address is longer than %d bytes", addrBytesMax)
	check(c.Expect >= 0 && c.Expect <= VotersMax, "expect %d servers: want 0 to %d", c.Expect, VotersMax)
	check(len(c.Label) <= memberlist.LabelMaxSize, "gossip label longer than %d bytes", memberlist.LabelMaxSize)
	check(c.VotersMax >= 1 && c.VotersMax <= VotersMax, "at most %d voters: want 1 to %d", c.VotersMax, VotersMax)
	check(c.RejoinInterval > 0 && c.RejoinInterval <= 10*time.Second, "rejoin interval: want up to 10s, or a long cut never heals")
	check(c.CheckInterval > 0 && c.PromiseTimeout > 0 && c.ChangeTimeout > 0, "intervals and timeouts must be positive")
	check(c.SilentAfter > 0 && c.ReplaceAfter >= c.SilentAfter, "ReplaceAfter must be at least SilentAfter")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("membership configuration: %w", err)
	}
	return nil
}

// Start begins to gossip, to join and to reconcile.
func (m *Membership) Start() error {
	links, err := newTransport(m.mesh, m.cfg.Resolve)
	if err != nil {
		return err
	}
	list, err := memberlist.Create(m.gossipConfig(links))
	if err != nil {
		_ = links.Shutdown()
		return fmt.Errorf("start gossip: %w", err)
	}
	m.links, m.list = links, list
	for _, loop := range []func(){m.runFounding, m.runReconcile, m.runRejoin, m.runMeta} {
		m.wg.Go(loop)
	}
	return nil
}

// gossipConfig is memberlist's configuration for a LAN.
func (m *Membership) gossipConfig(links *transport) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = string(m.self)
	c.Label = m.cfg.Label
	c.Transport = links
	c.BindPort = links.port
	c.AdvertiseAddr, c.AdvertisePort = links.ip.String(), links.port
	c.TCPTimeout = gossipTimeout
	c.DeadNodeReclaimTime = 30 * time.Second // else a restarted server at a new address is a conflict until seen to leave
	c.Delegate, c.Events, c.Alive, c.Conflict = m, m, m, m
	c.Logger = logTo(m.logger.With("component", "gossip"))
	return c
}

const (
	// gossipTimeout bounds a stream of memberlist: a join to a dead address must not take longer than a round of re-joining.
	gossipTimeout = 3 * time.Second
	// goodbyeTimeout bounds telling others that this server stops.
	goodbyeTimeout = time.Second
	inboxMax       = 256
)

// Close tells the others that this server stops, without leaving the cluster, and ends everything. It may be called
// twice. Mesh is the caller's to close. A probe that memberlist has under way ends by its own timers, within 10 s: a
// testing/synctest bubble has to sleep that long before it ends.
func (m *Membership) Close() error {
	var err error
	m.once.close.Do(func() {
		m.cancel()
		m.wg.Wait()
		if m.list == nil {
			return
		}
		if leaveErr := m.list.Leave(goodbyeTimeout); leaveErr != nil {
			m.logger.Debug("goodbye was not heard", "err", leaveErr)
		}
		err = errors.Join(m.list.Shutdown(), m.founding.remember())
	})
	return err
}

// changed makes every loop look at the world again.
func (m *Membership) changed() {
	signal(m.wake)
	signal(m.leading)
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
