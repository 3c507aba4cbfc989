package node_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/clustertest"
	"quorate/cluster/consensus"
	"quorate/cluster/membership"
	"quorate/node"
	"quorate/node/admin"
	"quorate/node/config"
	"quorate/protocol/packet"
)

// bubble is a cluster in a synctest bubble: its own network, disks and time.
type bubble struct {
	t     *testing.T
	net   *clustertest.Network
	disks []*consensus.MemoryStorage
	books []*membership.MemoryStore
	nodes []*node.Node // nil: down
	dying []*atomic.Bool
	size  int // of the cluster when it is founded; later nodes join it
	began time.Time
}

func ip(i int) string { return "10.0.0." + strconv.Itoa(i+1) }

// newBubble makes size nodes that found a cluster together.
func newBubble(t *testing.T, size int) *bubble {
	t.Helper()
	b := &bubble{t: t, net: clustertest.NewNetwork(clustertest.Options{DelayMin: time.Millisecond, DelayMax: 2 * time.Millisecond}), size: size, began: time.Now()}
	for range size {
		b.disks = append(b.disks, consensus.NewMemoryStorage())
		b.books = append(b.books, &membership.MemoryStore{})
		b.nodes, b.dying = append(b.nodes, nil), append(b.dying, nil)
	}
	for i := range size {
		b.start(i)
	}
	return b
}

func (b *bubble) config(i int) config.Config {
	c := config.Default("n" + strconv.Itoa(i+1))
	c.Admin = "off"
	c.MQTT = []string{ip(i) + ":1883"}
	c.AllowAnonymous, c.InsecureCluster = true, true
	if len(b.disks) > 1 {
		c.Cluster = ip(i) + ":7946"
		if i < b.size {
			c.Expect = b.size
		}
		for j := range b.disks {
			if j != i {
				c.Join = append(c.Join, ip(j)+":7946")
			}
		}
	}
	return c
}

func (b *bubble) start(i int) {
	b.t.Helper()
	cfg := b.config(i)
	if err := cfg.Validate(); err != nil {
		b.t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(b.t.Output(), nil))
	}
	dying := new(atomic.Bool)
	b.dying[i] = dying
	n, err := node.New(node.Options{
		Config: cfg, Version: "test", Network: b.net.Host(ip(i)), OpenStorage: b.disks[i].Open, OpenBodies: node.MemoryBodies,
		Members: b.books[i], Logger: logger,
		Clock: consensus.Clock{Wall: time.Now, Boot: func() time.Duration { return time.Since(b.began) }},
		Fatal: func(err error) {
			if !dying.Load() { // a disk that is gone is fatal, as it should be
				b.t.Errorf("fatal: %v", err)
			}
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := n.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.nodes[i] = n
}

// crash is kill -9 and power loss at once: what was not synced is gone.
func (b *bubble) crash(i int) {
	b.dying[i].Store(true)
	b.net.Kill(ip(i))
	b.disks[i].Crash()
	b.nodes[i].Crash()
	b.nodes[i] = nil
}

func (b *bubble) close() {
	for _, n := range b.nodes {
		if n != nil {
			if err := n.Close(); err != nil {
				b.t.Errorf("close: %v", err)
			}
		}
	}
	b.net.Close()
	time.Sleep(time.Minute) // virtual: memberlist's probes under way end by their timers
	synctest.Wait()
}

// until waits for a condition, in virtual time.
func (b *bubble) until(what string, limit time.Duration, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			for i, n := range b.nodes {
				if n != nil {
					b.t.Logf("n%d: %v", i+1, n.Ready())
				}
			}
			b.t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func (b *bubble) allReady() bool {
	for _, n := range b.nodes {
		if n != nil && n.Ready() != nil {
			return false
		}
	}
	return true
}

// leader is the index of the running node that leads, as the others see it; -1 for none.
func (b *bubble) leader() int {
	for i, n := range b.nodes {
		for _, other := range b.nodes {
			if n != nil && other != nil && other.Status(b.t.Context()).Leader == "n"+strconv.Itoa(i+1) {
				return i
			}
		}
	}
	return -1
}

// conn is a client of the cluster.
type conn struct {
	t       *testing.T
	nc      net.Conn
	reader  *packet.Reader
	version packet.Version
}

// dial connects a client with MQTT 5 to node i and returns its CONNACK.
func (b *bubble) dial(i int, c *packet.Connect) (*conn, *packet.Connack) {
	b.t.Helper()
	nc, err := b.net.Host("10.0.1.1").Dial(b.t.Context(), ip(i)+":1883")
	if err != nil {
		b.t.Fatal(err)
	}
	c.Version = packet.V5
	cl := &conn{t: b.t, nc: nc, reader: packet.NewReader(nc, 1<<20, packet.FromServer), version: packet.V5}
	cl.reader.SetVersion(packet.V5)
	_ = nc.SetReadDeadline(time.Now().Add(time.Minute)) // of virtual time
	cl.send(c)
	ack, ok := cl.next().(*packet.Connack)
	if !ok {
		b.t.Fatal("no CONNACK")
	}
	kept := *ack
	return cl, &kept
}

func (c *conn) send(p packet.Packet) {
	c.t.Helper()
	if _, err := c.nc.Write(p.Append(nil, c.version)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *conn) next() packet.Packet {
	c.t.Helper()
	p, err := c.reader.Next()
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// expect reads a packet of a type.
func expect[P packet.Packet](c *conn) P {
	c.t.Helper()
	got := c.next()
	p, ok := got.(P)
	if !ok {
		var want P
		c.t.Fatalf("got %s %+v, want %s", got.Type(), got, want.Type())
	}
	return p
}

func (c *conn) subscribe(filter string, qos byte) {
	c.t.Helper()
	c.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: filter, QoS: qos}}})
	if ack := expect[*packet.Suback](c); ack.ReasonCodes[0] != packet.ReasonCode(qos) {
		c.t.Fatalf("SUBACK %v", ack.ReasonCodes)
	}
}

func (c *conn) publish(topic, payload string, retain bool) {
	c.t.Helper()
	c.send(&packet.Publish{Topic: topic, QoS: 1, PacketID: 9, Retain: retain, Payload: []byte(payload)})
	if ack := expect[*packet.Puback](c); ack.ReasonCode.Failed() {
		c.t.Fatalf("PUBACK %s", ack.ReasonCode)
	}
}

func (c *conn) receive(topic, payload string) {
	c.t.Helper()
	m := expect[*packet.Publish](c)
	if m.Topic != topic || string(m.Payload) != payload {
		c.t.Fatalf("got %s %q, want %s %q", m.Topic, m.Payload, topic, payload)
	}
	if m.QoS == 1 {
		c.send(&packet.Puback{PacketID: m.PacketID})
	}
}

func persistent(id string) *packet.Connect {
	return &packet.Connect{ClientID: id, CleanStart: false, Properties: packet.Properties{HasSessionExpiry: true, SessionExpirySeconds: 3600}}
}

func transient(id string) *packet.Connect { return &packet.Connect{ClientID: id, CleanStart: true} }

func TestThreeNodesServeTheSameSessionsAndSurviveTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3)
		defer b.close()
		b.until("all nodes are ready", 15*time.Second, b.allReady)

		// A persistent session is made on one node, a message for it published on another, both acknowledged.
		sub, ack := b.dial(0, persistent("watcher"))
		if ack.SessionPresent || ack.ReasonCode != packet.Success {
			t.Fatalf("CONNACK %+v", ack)
		}
		sub.subscribe("plant/#", 1)
		pub, _ := b.dial(1, transient("feeder"))
		pub.publish("plant/1", "live", false)
		sub.receive("plant/1", "live")
		sub.send(&packet.Disconnect{})
		_ = sub.nc.Close()
		pub.publish("plant/2", "kept", false)
		pub.publish("state", "on", true)
		pub.send(&packet.Disconnect{})
		_ = pub.nc.Close()

		dead := b.leader()
		b.crash(dead)
		alive := (dead + 1) % 3
		b.until("the others have a new leader", 15*time.Second, func() bool { return b.leader() >= 0 && b.allReady() })

		sub, ack = b.dial(alive, persistent("watcher"))
		if !ack.SessionPresent {
			t.Error("the session is lost")
		}
		sub.receive("plant/2", "kept")
		late, _ := b.dial((dead+2)%3, transient("late"))
		late.subscribe("state", 0)
		late.receive("state", "on")

		// The dead node comes back with its disk, catches up and has the same state as the others.
		b.net.Restart(ip(dead))
		b.start(dead)
		b.until("all three are ready again", 30*time.Second, func() bool {
			return b.allReady() && !slices.ContainsFunc(b.nodes[0].Status(t.Context()).Nodes, func(m admin.Member) bool { return !m.Ready })
		})
		b.until("all have the same digest", 10*time.Second, func() bool {
			index, digest := b.nodes[0].Digest()
			for _, n := range b.nodes {
				if i, d := n.Digest(); i != index || d != digest {
					return false
				}
			}
			return true
		})
		st := b.nodes[0].Status(t.Context())
		for _, m := range st.Nodes {
			if !m.Ready || !m.Voter || m.Sessions != 2 {
				t.Errorf("member %+v", m)
			}
		}
	})
}

// P9: without a quorum a node refuses visibly, and does so before its clients wait for ever.
func TestANodeWithoutAQuorumIsNotReadyAndRefusesClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3)
		defer b.close()
		b.until("all nodes are ready", 15*time.Second, b.allReady)
		client, _ := b.dial(0, transient("left behind"))
		b.net.Partition([]string{ip(0), "10.0.1.1"}, []string{ip(1), ip(2)})
		cut := time.Now()

		b.until("the node is not ready", 5*time.Second, func() bool { return b.nodes[0].Ready() != nil })
		if _, ack := b.dial(0, transient("new")); ack.ReasonCode != packet.ServerUnavailable {
			t.Errorf("CONNACK %s", ack.ReasonCode)
		}
		if d := expect[*packet.Disconnect](client); d.ReasonCode != packet.UseAnotherServer {
			t.Errorf("DISCONNECT %s", d.ReasonCode)
		}
		if took := time.Since(cut); took < 10*time.Second || took > 16*time.Second {
			t.Errorf("the client was sent away after %s, want about 12s", took)
		}
		b.until("the majority serves on", 10*time.Second, func() bool { return b.nodes[1].Ready() == nil && b.nodes[2].Ready() == nil })
		b.net.Heal()
		b.until("the cut is healed without any command", 30*time.Second, b.allReady)
	})
}

func TestAnOrderlyEndHandsOverAndSaysGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3)
		defer b.close()
		b.until("all nodes are ready", 15*time.Second, b.allReady)
		leader := b.leader()
		client, _ := b.dial(leader, transient("guest"))
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- b.nodes[leader].Close() }()
		if d := expect[*packet.Disconnect](client); d.ReasonCode != packet.ServerShuttingDown {
			t.Errorf("DISCONNECT %s", d.ReasonCode)
		}
		_ = client.nc.Close()
		if err := <-done; err != nil {
			t.Errorf("close: %v", err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("took %s", took)
		}
		if err := b.nodes[leader].Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		b.nodes[leader] = nil
		b.until("the others lead on", 2*time.Second, b.allReady)
	})
}

func TestANodeWithoutAClusterPortIsAClusterOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 1)
		b.until("the node is ready", 3*time.Second, b.allReady)
		c, _ := b.dial(0, persistent("keeper"))
		c.subscribe("a", 1)
		_ = c.nc.Close()
		p, _ := b.dial(0, transient("feeder"))
		p.publish("a", "kept", false)
		_ = p.nc.Close()
		b.crash(0)
		b.net.Restart(ip(0))
		b.start(0)
		b.until("the node is ready again", 3*time.Second, b.allReady)
		c, ack := b.dial(0, persistent("keeper"))
		if !ack.SessionPresent {
			t.Error("the session is lost")
		}
		c.receive("a", "kept")
		_ = c.nc.Close()
		b.close()
	})
}

func TestAPortThatIsTakenIsAnErrorThatLeavesNothingOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.NewNetwork(clustertest.Options{})
		defer n.Close()
		host := n.Host(ip(0))
		taken, err := host.Listen(ip(0) + ":1884")
		if err != nil {
			t.Fatal(err)
		}
		c := config.Default("n1")
		c.MQTT, c.Admin, c.AllowAnonymous = []string{ip(0) + ":1883", ip(0) + ":1884"}, "off", true
		_, err = node.New(node.Options{Config: c, Network: host, OpenStorage: consensus.NewMemoryStorage().Open, OpenBodies: node.MemoryBodies})
		if err == nil {
			t.Fatal("want an error")
		}
		free, err := host.Listen(ip(0) + ":1883")
		if err != nil {
			t.Fatalf("the first port is still open: %v", err)
		}
		_ = errors.Join(free.Close(), taken.Close())
	})
}

// A disk that cannot be opened is told with its reason.
func TestADiskThatRefusesIsAnError(t *testing.T) {
	refusal := fmt.Errorf("the log is damaged")
	c := config.Default("n1")
	c.MQTT, c.Admin = []string{"127.0.0.1:0"}, "off"
	_, err := node.New(node.Options{Config: c, OpenBodies: node.MemoryBodies,
		OpenStorage: func(consensus.StorageOptions) (*consensus.Storage, error) { return nil, refusal }})
	if !errors.Is(err, refusal) {
		t.Errorf("got %v", err)
	}
}
