package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"quorate/cluster/bodies"
	"quorate/cluster/consensus"
	"quorate/cluster/membership"
	"quorate/cluster/mesh"
	"quorate/fsm"
	"quorate/node/config"
)

// Options are what New builds a node from. Config says what the operator wants; the rest is where the node lives, and
// only a simulation sets it: whole clusters run in one testing/synctest bubble with a network, disks and clocks of its
// own. The zero value of every field but Config is production.
type Options struct {
	Config config.Config
	// Version is what status shows of the program.
	Version string
	// Network carries everything: the cluster port, clients and administrators. Nil is the operating system's.
	Network mesh.Network
	// OpenStorage opens the log, the snapshots and the identity. Nil opens the directory Config.Data.
	OpenStorage func(consensus.StorageOptions) (*consensus.Storage, error)
	// OpenBodies opens the place for message bodies. Nil opens a directory in Config.Data.
	OpenBodies func(fatal func(error)) (Bodies, error)
	// Members is where membership keeps what it promised and whom it knows. Nil is a file in Config.Data.
	Members membership.Store
	// Clock is where time that must survive a sleeping machine comes from. Zero is the operating system's.
	Clock consensus.Clock
	// Logger is told what an operator should know. Nil discards.
	Logger *slog.Logger
	// Fatal is called when the node must not go on: a disk failed, or the state would diverge. It is meant to end the
	// process at once and must not return in production; nothing is acknowledged any more when it does. Nil panics. It
	// may be called from any goroutine, and only once.
	Fatal func(error)
}

// Bodies is fsm.Bodies with an end.
type Bodies interface {
	fsm.Bodies
	Close() error
}

// memoryBodies gives bodies in memory an end.
type memoryBodies struct{ *bodies.Memory }

func (memoryBodies) Close() error { return nil }

// MemoryBodies keeps bodies in memory, for Options.OpenBodies.
func MemoryBodies(func(error)) (Bodies, error) { return memoryBodies{bodies.NewMemory()}, nil }

// fill sets what the zero value stands for.
func (o *Options) fill() {
	cfg := &o.Config
	if o.Network == nil {
		o.Network = mesh.OS{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock.Boot == nil || o.Clock.Wall == nil {
		o.Clock = consensus.SystemClock()
	}
	if o.OpenStorage == nil {
		o.OpenStorage = func(opt consensus.StorageOptions) (*consensus.Storage, error) {
			return consensus.OpenStorage(cfg.Data, opt)
		}
	}
	if o.OpenBodies == nil {
		o.OpenBodies = func(fatal func(error)) (Bodies, error) {
			opt := bodies.Default()
			opt.Fatal = fatal
			return bodies.Open(filepath.Join(cfg.Data, "bodies"), opt)
		}
	}
	if o.Members == nil {
		o.Members = membership.FileStore{Path: filepath.Join(cfg.Data, "members.json")}
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) { panic(err) }
	}
}

// soloTimeout is what Raft's timeouts are in a cluster of one without a cluster port.
const soloTimeout = 100 * time.Millisecond

// timings are those of consensus that follow from the configuration.
func timings(c *config.Config) consensus.Timings {
	t := consensus.DefaultTimings()
	t.Heartbeat, t.Election, t.Lease = c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLease
	if c.Cluster == "" {
		// Nobody else can lead, so there is nothing to wait for at the start.
		t.Heartbeat, t.Election, t.Lease = soloTimeout, soloTimeout, soloTimeout
	}
	t.ContactLimit, t.NodeDown = c.ClientClose, c.NodeDown
	t.ReadTimeout = c.LeaderWait
	// A sign of life must come several times before its absence means anything, and twice in the time by which the leader
	// waits longer than the node itself.
	t.Ping = min(t.Ping, c.ClientClose/8, (c.NodeDown-c.ClientClose)/2)
	return t
}

// limits are the replicated limits that follow from the configuration.
func limits(c *config.Config) fsm.Limits {
	l := fsm.DefaultLimits()
	l.MaxQueuedMessages, l.MaxQueuedBytes = uint64(c.MaxQueuedMessages), uint64(c.MaxQueuedBytes)
	l.MaxStoredBytes = uint64(c.MaxStoredBytes)
	l.MaxRetained, l.MaxSessions = uint64(c.MaxRetained), uint64(c.MaxSessions)
	l.MaxSubscriptionsPerSession = uint32(c.MaxSubscriptions)
	if c.MaxSessionExpiry > 0 {
		// One second less than "never" is still 136 years.
		l.MaxSessionExpirySeconds = uint32(min(c.MaxSessionExpiry/time.Second, 0xFFFFFFFE))
	}
	return l
}

// clientAddr is where other nodes send clients to: what the operator says, else the first MQTT listener, if its address
// means anything on another machine.
func clientAddr(c *config.Config, bound []net.Addr) (string, error) {
	if c.AdvertiseMQTT != "" {
		return c.AdvertiseMQTT, nil
	}
	if len(bound) == 0 {
		return "", nil
	}
	addr := bound[0].String()
	if !config.Unspecified(addr) {
		return addr, nil
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("address of the first MQTT listener: %w", err)
	}
	host, _, err := net.SplitHostPort(c.AdvertiseAddr())
	if err != nil || config.Unspecified(c.AdvertiseAddr()) {
		return "", nil // a cluster of one: nobody sends clients here
	}
	return net.JoinHostPort(host, port), nil
}

// errClosed is why nothing is done any more.
var errClosed = errors.New("shutting down")
