// Package config holds the settings of one node: what they are, their defaults, where they come from and which of them
// cannot go together. It does not start anything and looks at nothing but the sources it is given.
//
// A setting has one name everywhere. The flag --client-close, the environment variable QUORATE_CLIENT_CLOSE and the key
// client-close of the TOML file are the same setting. The file is read first, the environment goes over it, and flags
// over both. The file is flat: it has no tables.
//
//	name    = "n1"
//	data    = "/var/lib/quorate"
//	mqtt    = ["127.0.0.1:1883"]
//	cluster = "127.0.0.1:7946"
//	join    = ["127.0.0.2:7946", "127.0.0.3:7946"]
//	expect  = 3
//
// Every problem of every source is reported at once, each with its place and its way out.
package config

import (
	"log/slog"
	"time"
)

// Config is what one node is told. A zero field means zero; start from [Default].
// It is a plain value: copy it freely, and do not change it once a node runs with it.
type Config struct {
	// Name is the label people know the node by. It identifies nothing: the Raft server id is in the data directory.
	Name string
	// Data is the directory of the log, the snapshots and the node's identity.
	Data string

	// MQTT are the addresses of the MQTT listeners over TCP.
	MQTT []string
	// AllowAnonymous lets clients without a user name in on listeners outside loopback. On loopback they always may.
	AllowAnonymous bool
	// AdvertiseMQTT is the address other nodes name to clients they send away (Server Reference). Empty: the first
	// MQTT listener, when its host can be reached from elsewhere.
	AdvertiseMQTT string

	// Cluster is the address of the one cluster port: gossip on UDP and TCP, Raft and mesh on the same TCP port.
	// Empty: the node is a cluster of one and opens no such port.
	Cluster string
	// Advertise is the address at which the other nodes reach Cluster. Empty: Cluster itself.
	Advertise string
	// Join are cluster addresses of other nodes. Some of them may be down.
	Join []string
	// Expect is how many nodes make a new cluster, together and only once. Zero: one, unless Join is set: then the
	// node waits until a running cluster takes it in.
	Expect int
	// InsecureCluster allows a cluster port outside loopback although it is neither encrypted nor authenticated:
	// whoever reaches it can read and change everything.
	InsecureCluster bool

	// Admin is the address of the HTTP listener for health, metrics and status. "off" opens none.
	Admin string
	// AdminPprof adds the Go profiler to the admin listener.
	AdminPprof bool

	// Timings names the preset that the timings below start from: "default", or "lan" for fast and quiet networks.
	Timings string
	// HeartbeatTimeout, ElectionTimeout and LeaderLease are Raft's. LeaderLease <= HeartbeatTimeout <= ElectionTimeout.
	HeartbeatTimeout time.Duration
	ElectionTimeout  time.Duration
	LeaderLease      time.Duration
	// LeaderWait is how long a CONNECT waits for a leader before it is refused with 0x88 Server unavailable.
	LeaderWait time.Duration
	// ClientClose is how long a node keeps its clients without leader contact.
	// Invariant: LeaderWait < ClientClose < NodeDown, so that no client of a lost node outlives its ownership for long.
	ClientClose time.Duration
	// NodeDown is how long the leader waits for a silent node before it ends that node's connections.
	NodeDown time.Duration
	// ConnectTimeout is how long a new Network Connection may take to send its CONNECT.
	ConnectTimeout time.Duration
	// ShutdownTimeout is how long an orderly stop may take before the process ends anyway.
	ShutdownTimeout time.Duration

	// MaxPacketSize is the Maximum Packet Size told to clients; larger packets end the connection (0x95).
	MaxPacketSize Bytes
	// ReceiveMaximum is how many QoS>0 messages one client may have unacknowledged towards the broker.
	ReceiveMaximum int
	// TopicAliasMaximum is how many topic aliases one client may set.
	TopicAliasMaximum int
	// MaxConnections is how many clients one node takes; further ones are refused (0x97 Quota exceeded).
	MaxConnections int
	// MaxOutgoing bounds the bytes that wait for one slow client; QoS 0 messages beyond it are dropped and counted.
	MaxOutgoing Bytes
	// MaxKeepAlive is the longest Keep Alive of an MQTT 5 client; longer ones, and none, are set to it. Zero: no bound.
	MaxKeepAlive time.Duration
	// MaxSessionExpiry is the longest life of a session without a connection. Zero: no bound.
	MaxSessionExpiry time.Duration
	// MaxSubscriptions bounds the subscriptions of one session; further ones get 0x97.
	MaxSubscriptions int
	// MaxQueuedMessages and MaxQueuedBytes bound what is kept for absent subscribers of one Topic Filter: the oldest
	// messages go first, and the sessions that missed them are told and counted.
	MaxQueuedMessages int
	MaxQueuedBytes    Bytes
	// MaxStoredBytes bounds all stored messages of the cluster together; publishes that must be stored get 0x97 then.
	MaxStoredBytes Bytes
	// MaxRetained bounds the topics with a retained message, and MaxSessions the sessions, connected or not, of the
	// cluster; what would make one more gets 0x97.
	MaxRetained int
	MaxSessions int
	// SnapshotBytes of log since the last snapshot bring about the next, and as much is kept behind it: a node that was
	// away for more gets a snapshot instead of the log. A log takes about twice this on the disk.
	SnapshotBytes Bytes

	// LogLevel is the least level that is written.
	LogLevel slog.Level
	// LogFormat is "text" or "json".
	LogFormat string

	// origins says where each key that is not at its default came from, for messages.
	origins map[string]string
}

// Bytes is a size in bytes. In text it may end in KiB, MiB or GiB.
type Bytes int64

// Sizes in text form.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
)

// MaxPacketSizeLimit is the largest Maximum Packet Size that may be configured: a log entry is at most 8 MiB, and one
// message must fit in it beside its envelope.
const MaxPacketSizeLimit = 4 * MiB

// MaxVoters is the largest number of voting nodes, and so the largest Expect.
const MaxVoters = 5

// Default returns the settings of a node that was told nothing: alone, on loopback, named after the host. hostname is the
// host's name, "" when it is not known.
func Default(hostname string) Config {
	if !validName(hostname) {
		hostname = "quorate"
	}
	c := Config{
		Name:              hostname,
		Data:              "./quorate-data",
		MQTT:              []string{"127.0.0.1:1883"},
		Admin:             "127.0.0.1:18083",
		Timings:           "default",
		MaxPacketSize:     1 * MiB,
		ReceiveMaximum:    128,
		TopicAliasMaximum: 32,
		MaxConnections:    100_000,
		MaxOutgoing:       4 * MiB,
		MaxSubscriptions:  1_000,
		MaxQueuedMessages: 1_000_000,
		MaxQueuedBytes:    1 * GiB,
		MaxStoredBytes:    16 * GiB,
		MaxRetained:       5_000_000,
		MaxSessions:       5_000_000,
		SnapshotBytes:     256 * MiB,
		LogLevel:          slog.LevelInfo,
		LogFormat:         "text",
		origins:           map[string]string{},
	}
	c.applyTimings()
	return c
}

// applyTimings sets every timing to its value in the preset. Unknown presets leave the default one; Validate names them.
func (c *Config) applyTimings() {
	// A follower asks for votes after one to two heartbeat time-outs and gets them when the other one has lost its leader
	// too. With 1.5 s publishes were acknowledged again 3.3 s after the leader died (median of 20, simulated); the bound
	// is 3 s.
	c.HeartbeatTimeout = 1000 * time.Millisecond
	c.ElectionTimeout = 1000 * time.Millisecond
	c.LeaderLease = 750 * time.Millisecond
	c.LeaderWait = 2 * time.Second
	c.ClientClose = 12 * time.Second
	c.NodeDown = 15 * time.Second
	c.ConnectTimeout = 10 * time.Second
	c.ShutdownTimeout = 15 * time.Second
	if c.Timings == "lan" {
		c.HeartbeatTimeout = 500 * time.Millisecond
		c.ElectionTimeout = 500 * time.Millisecond
		c.LeaderLease = 400 * time.Millisecond
		c.LeaderWait = 1 * time.Second
		c.ClientClose = 4 * time.Second
		c.NodeDown = 6 * time.Second
	}
}

// Origin says where key got its value: "n1.toml:3", "QUORATE_MQTT", "--mqtt", or "default".
func (c *Config) Origin(key string) string {
	if o, ok := c.origins[key]; ok {
		return o
	}
	return "default"
}

// AdminEnabled reports whether there is to be an admin listener.
func (c *Config) AdminEnabled() bool { return c.Admin != "" && c.Admin != "off" }

// BootstrapExpect is the number of nodes that make a new cluster, 0 when this node must wait for a running one.
func (c *Config) BootstrapExpect() int {
	if c.Expect == 0 && len(c.Join) == 0 {
		return 1
	}
	return c.Expect
}

// AdvertiseAddr is the cluster address that is told to the other nodes; "" without a cluster port.
func (c *Config) AdvertiseAddr() string {
	if c.Advertise != "" {
		return c.Advertise
	}
	return c.Cluster
}
