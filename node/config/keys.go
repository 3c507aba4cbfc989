package config

import (
	"math"
	"time"
)

const envPrefix = "QUORATE_"

// Keys returns every setting in the order in which help shows them.
func Keys() []Key {
	groups := []struct {
		name string
		keys []Key
	}{
		{"Node", nodeKeys()},
		{"Clients", clientKeys()},
		{"Cluster", clusterKeys()},
		{"Administration", adminKeys()},
		{"Timings", timingKeys()},
		{"Limits", limitKeys()},
	}
	var all []Key
	for _, g := range groups {
		for _, k := range g.keys {
			k.Group = g.name
			all = append(all, k)
		}
	}
	return all
}

func nodeKeys() []Key {
	return []Key{
		stringKey("name", "NAME", "the node's label in status and logs; the host's name unless set",
			func(c *Config) *string { return &c.Name }),
		stringKey("data", "DIR", "directory of the log, the snapshots and the node's identity",
			func(c *Config) *string { return &c.Data }),
	}
}

func clientKeys() []Key {
	return []Key{
		listKey("mqtt", "ADDR,...", "addresses of the MQTT listeners over TCP",
			func(c *Config) *[]string { return &c.MQTT }),
		boolKey("allow-anonymous", "let clients without a user name in, also outside loopback",
			func(c *Config) *bool { return &c.AllowAnonymous }),
		stringKey("advertise-mqtt", "ADDR", "address that clients are told when another node sends them here",
			func(c *Config) *string { return &c.AdvertiseMQTT }),
	}
}

func clusterKeys() []Key {
	return []Key{
		stringKey("cluster", "ADDR", "address of the cluster port (TCP and UDP); none: a cluster of one",
			func(c *Config) *string { return &c.Cluster }),
		stringKey("advertise", "ADDR", "address at which other nodes reach the cluster port, if it is another one",
			func(c *Config) *string { return &c.Advertise }),
		listKey("join", "ADDR,...", "cluster addresses of other nodes; some may be down",
			func(c *Config) *[]string { return &c.Join }),
		intKey("expect", "how many nodes make the cluster when it is new", 0, MaxVoters,
			func(c *Config) *int { return &c.Expect }),
		boolKey("insecure-cluster", "allow a cluster port outside loopback: NOT encrypted, NOT authenticated",
			func(c *Config) *bool { return &c.InsecureCluster }),
	}
}

func adminKeys() []Key {
	return []Key{
		stringKey("admin", "ADDR", `address of health, metrics and status over HTTP; "off": none`,
			func(c *Config) *string { return &c.Admin }),
		boolKey("admin-pprof", "serve the Go profiler at /debug/pprof/ of the admin address",
			func(c *Config) *bool { return &c.AdminPprof }),
		logLevelKey("log-level", "least level that is logged: debug, info, warn, error"),
		stringKey("log-format", "FORMAT", "text or json",
			func(c *Config) *string { return &c.LogFormat }),
	}
}

func timingKeys() []Key {
	const ms, s, h = time.Millisecond, time.Second, time.Hour
	return []Key{
		stringKey("timings", "PRESET", "what the timings start from: default, or lan (fast fail-over on quiet networks)",
			func(c *Config) *string { return &c.Timings }),
		durationKey("heartbeat-timeout", "silence after which a follower stops believing in its leader", 50*ms, 60*s,
			func(c *Config) *time.Duration { return &c.HeartbeatTimeout }),
		durationKey("election-timeout", "time one election may take", 50*ms, 60*s,
			func(c *Config) *time.Duration { return &c.ElectionTimeout }),
		durationKey("leader-lease", "silence of the majority after which a leader steps down", 20*ms, 60*s,
			func(c *Config) *time.Duration { return &c.LeaderLease }),
		durationKey("leader-wait", "time a CONNECT waits for a leader before it is refused", 10*ms, 60*s,
			func(c *Config) *time.Duration { return &c.LeaderWait }),
		durationKey("client-close", "time without leader contact after which clients are sent away", 100*ms, 1*h,
			func(c *Config) *time.Duration { return &c.ClientClose }),
		durationKey("node-down", "silence after which a node's connections are ended for it", 200*ms, 1*h,
			func(c *Config) *time.Duration { return &c.NodeDown }),
		durationKey("connect-timeout", "time a new connection has to send its CONNECT", 100*ms, 10*60*s,
			func(c *Config) *time.Duration { return &c.ConnectTimeout }),
		durationKey("shutdown-timeout", "time an orderly stop may take", 1*s, 1*h,
			func(c *Config) *time.Duration { return &c.ShutdownTimeout }),
	}
}

func limitKeys() []Key {
	const year = 365 * 24 * time.Hour
	return []Key{
		bytesKey("max-packet-size", "largest MQTT packet from a client", 1*KiB, MaxPacketSizeLimit,
			func(c *Config) *Bytes { return &c.MaxPacketSize }),
		intKey("receive-maximum", "unacknowledged QoS 1 and 2 messages that one client may send", 1, 65535,
			func(c *Config) *int { return &c.ReceiveMaximum }),
		intKey("topic-alias-maximum", "topic aliases that one client may set", 0, 65535,
			func(c *Config) *int { return &c.TopicAliasMaximum }),
		intKey("max-connections", "clients of this node", 1, 10_000_000,
			func(c *Config) *int { return &c.MaxConnections }),
		bytesKey("max-outgoing", "bytes that may wait for one slow client; QoS 0 beyond is dropped", 64*KiB, 1*GiB,
			func(c *Config) *Bytes { return &c.MaxOutgoing }),
		durationKey("max-keep-alive", "longest Keep Alive of an MQTT 5 client; 0s: no bound", 0, 65535*time.Second,
			func(c *Config) *time.Duration { return &c.MaxKeepAlive }),
		durationKey("max-session-expiry", "longest life of a session without its client; 0s: no bound", 0, 100*year,
			func(c *Config) *time.Duration { return &c.MaxSessionExpiry }),
		intKey("max-subscriptions", "subscriptions of one session", 1, 1_000_000,
			func(c *Config) *int { return &c.MaxSubscriptions }),
		intKey("max-queued-messages", "messages kept for absent subscribers of one filter; the oldest go", 1, math.MaxInt32,
			func(c *Config) *int { return &c.MaxQueuedMessages }),
		bytesKey("max-queued-bytes", "bytes kept for absent subscribers of one filter; the oldest go", 1*MiB, 1024*GiB,
			func(c *Config) *Bytes { return &c.MaxQueuedBytes }),
		bytesKey("max-stored-bytes", "bytes of all stored messages; publishes beyond get 0x97", 16*MiB, 65536*GiB,
			func(c *Config) *Bytes { return &c.MaxStoredBytes }),
		intKey("max-retained", "topics with a retained message; publishes to more get 0x97", 1, math.MaxInt32,
			func(c *Config) *int { return &c.MaxRetained }),
		intKey("max-sessions", "sessions of the cluster; connects beyond get 0x97", 1, math.MaxInt32,
			func(c *Config) *int { return &c.MaxSessions }),
		bytesKey("snapshot-bytes", "log after which a snapshot is taken, and that is kept behind it for nodes that were away", 1*MiB, 64*GiB,
			func(c *Config) *Bytes { return &c.SnapshotBytes }),
	}
}
