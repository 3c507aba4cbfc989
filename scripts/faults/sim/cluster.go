package sim

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"quorate/cluster/clustertest"
	"quorate/cluster/consensus"
	"quorate/scripts/faults/check"
)

// The delay of every link that works, one way.
const (
	delayMin = 200 * time.Microsecond
	delayMax = 2 * time.Millisecond
)

// clientIP is the host of all clients.
const clientIP = "10.0.1.1"

// cluster is the nodes, their network, and what is broken of it right now.
// What changes it is called by one goroutine.
type cluster struct {
	net     *clustertest.Network
	history *check.History
	nodes   []*member
	begin   time.Time

	failed chan string // names of nodes whose process ended itself

	mu  sync.Mutex
	log []string // what was done, with its time
}

// member is one node and what is wrong with it.
type member struct {
	name, ip string
	box      // its disk and process
	down     bool
	slow     bool
	cut      map[string]bool // names of nodes that it cannot send to
	fault    string          // as told to the history, "" for none
}

// newCluster makes size nodes that do not run yet, in the present bubble.
func newCluster(size int, seed uint64) *cluster {
	c := &cluster{
		net: clustertest.NewNetwork(clustertest.Options{
			Seed: seed, DelayMin: delayMin, DelayMax: delayMax, ResetAfter: 20 * time.Second,
		}),
		history: check.NewHistory(),
		begin:   time.Now(),
		failed:  make(chan string, 16),
	}
	for i := range size {
		m := &member{name: fmt.Sprintf("n%d", i+1), ip: fmt.Sprintf("10.0.0.%d", i+1), cut: map[string]bool{}}
		m.disk = consensus.NewMemoryStorage()
		c.nodes = append(c.nodes, m)
	}
	c.net.Host(clientIP)
	return c
}

// note writes a line for those who look at a failing seed.
func (c *cluster) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, fmt.Sprintf("%9.3fs  %s", time.Since(c.begin).Seconds(), fmt.Sprintf(format, args...)))
}

// fatal takes the last words of a process. In a real one nothing follows.
func (c *cluster) fatal(name string, err error) {
	c.note("%s ends itself: %v", name, err)
	select {
	case c.failed <- name:
	default:
	}
}

func (c *cluster) names() []string {
	var names []string
	for _, m := range c.nodes {
		names = append(names, m.name)
	}
	return names
}

func (c *cluster) node(name string) *member {
	i := slices.IndexFunc(c.nodes, func(m *member) bool { return m.name == name })
	return c.nodes[i]
}

// dial connects a client to the MQTT listener of a node.
func (c *cluster) dial(ctx context.Context, node string) (net.Conn, error) {
	return c.net.Host(clientIP).Dial(ctx, net.JoinHostPort(c.node(node).ip, mqttPort))
}

// start runs nodes that are down, on the disks they have.
func (c *cluster) start(names ...string) error {
	for _, name := range names {
		m := c.node(name)
		if err := m.boot(c, m); err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
		m.down = false
		c.note("start %s", name)
	}
	c.tell()
	return nil
}

// crash ends nodes as kill -9 does, all in one instant: what they had not
// synced is gone.
func (c *cluster) crash(names ...string) {
	for _, name := range names {
		m := c.node(name)
		if m.down {
			continue
		}
		m.down = true
		c.note("crash %s", name)
	}
	c.tell()
	for _, name := range names {
		c.net.Kill(c.node(name).ip)
	}
	for _, name := range names {
		c.node(name).kill()
	}
}

// cut stops what from sends to to.
func (c *cluster) cut(from, to string) {
	c.node(from).cut[to] = true
	c.net.Cut(c.node(from).ip, c.node(to).ip)
	c.note("cut %s -> %s", from, to)
}

// isolate cuts a node off from the other nodes, not from the clients.
func (c *cluster) isolate(name string) {
	for _, other := range c.names() {
		if other != name {
			c.cut(name, other)
			c.cut(other, name)
		}
	}
	c.tell()
}

// freeze stops all that a node sends and gets, also from clients. What is
// under way arrives after the mend.
func (c *cluster) freeze(name string) {
	m := c.node(name)
	c.net.Cut(m.ip, clientIP)
	c.net.Cut(clientIP, m.ip)
	c.isolate(name)
}

// delay slows every link of a node down, also those to clients.
func (c *cluster) delay(name string, lo, hi time.Duration) {
	m := c.node(name)
	m.slow = true
	for _, ip := range c.net.Hosts() {
		if ip != m.ip {
			c.net.SetDelay(m.ip, ip, lo, hi)
			c.net.SetDelay(ip, m.ip, lo, hi)
		}
	}
	c.note("slow %s by %v to %v", name, lo, hi)
	c.tell()
}

// heal mends every link and starts every node that is down.
func (c *cluster) heal() error {
	c.mend()
	for _, m := range c.nodes {
		if m.down {
			if err := c.start(m.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// mend mends every link.
func (c *cluster) mend() {
	c.net.Heal()
	for _, m := range c.nodes {
		clear(m.cut)
		if m.slow {
			m.slow = false
			for _, ip := range c.net.Hosts() {
				if ip != m.ip {
					c.net.SetDelay(m.ip, ip, delayMin, delayMax)
					c.net.SetDelay(ip, m.ip, delayMin, delayMax)
				}
			}
		}
	}
	c.note("mend")
	c.tell()
}

// tell writes into the history which nodes are whole, which have a fault, and
// which reach no majority.
func (c *cluster) tell() {
	ends := map[string]string{check.FaultCrash: check.FaultUp, check.FaultNoQuorum: check.FaultQuorum, check.FaultSlow: check.FaultHealed}
	for _, m := range c.nodes {
		now := c.faultOf(m)
		if now == m.fault {
			continue
		}
		if m.fault != "" {
			c.history.Add(check.Event{Phase: check.Note, Op: check.Fault, Node: m.name, Value: ends[m.fault]})
		}
		if now != "" {
			c.history.Add(check.Event{Phase: check.Note, Op: check.Fault, Node: m.name, Value: now})
		}
		m.fault = now
	}
}

// faultOf decides what is wrong with m. It has no quorum if fewer nodes than
// a majority, itself included, can talk with it both ways.
func (c *cluster) faultOf(m *member) string {
	if m.down {
		return check.FaultCrash
	}
	reach, broken := 1, m.slow
	for _, o := range c.nodes {
		switch {
		case o == m || o.down:
		case m.cut[o.name] || o.cut[m.name]:
			broken = true
		default:
			reach++
		}
	}
	switch {
	case 2*reach <= len(c.nodes):
		return check.FaultNoQuorum
	case broken:
		return check.FaultSlow
	}
	return ""
}

// close ends everything, so that the bubble can end.
func (c *cluster) close() {
	for _, m := range c.nodes {
		m.down = true
		m.stop()
	}
	c.net.Close()
	// A probe of gossip that is under way ends by its own timers, and time
	// stands still in a bubble whose test has ended.
	time.Sleep(15 * time.Second)
}
