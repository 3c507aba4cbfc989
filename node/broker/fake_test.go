package broker

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"quorate/cluster/bodies"
	"quorate/fsm"
	"quorate/fsm/command"
)

// fakeCluster is a log of some nodes in memory: every proposal is an entry of its own, which one goroutine applies to the
// machines of all nodes, one after the other.
type fakeCluster struct {
	start time.Time
	nodes []*testNode
	index uint64        // of the apply goroutine
	delay time.Duration // of every entry

	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex
	work    []func()
	held    []func()
	refuse  error // what Propose returns, for tests of overload
	hold    bool  // nothing is applied: there is no leader
	contact time.Time
}

// testNode is a broker on a fakeCluster. It is the broker's Log and Peers.
type testNode struct {
	*Broker
	cluster *fakeCluster
	id      command.NodeID
	machine *fsm.Machine
	number  uint64
	pending func(fsm.Result)
	cut     bool // no frame reaches it
}

// observer passes what concerns the log to it and the rest to the broker.
type observer struct {
	*Broker
	node *testNode
}

func (o observer) BatchApplied(_, _ uint64, results []fsm.Result) { o.node.pending(results[0]) }
func (o observer) BatchGap(uint64, uint64, uint64)                { panic("gap") }

func newFakeCluster(t testing.TB, nodes int, change func(*Config)) *fakeCluster {
	t.Helper()
	c := &fakeCluster{start: time.Now(), contact: time.Now(), wake: make(chan struct{}, 1), done: make(chan struct{})}
	for i := range nodes {
		n := &testNode{cluster: c, id: command.NodeID(fmt.Sprintf("%016d", i+1))}
		n.machine = fsm.New(n.id, bodies.NewMemory(), nil)
		cfg := Config{
			Node: n.id, Machine: n.machine, Log: n, Peers: n, Logger: testLogger(t), Auth: AllowAll{}, Access: AllowAll{},
			Limits: DefaultLimits(),
		}
		if change != nil {
			change(&cfg)
		}
		b, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		n.Broker = b
		n.machine.SetObserver(observer{b, n})
		c.nodes = append(c.nodes, n)
	}
	for i, n := range c.nodes {
		up := &command.NodeUp{ID: n.id, Name: fmt.Sprint("n", i+1), ClientAddr: fmt.Sprintf("127.0.0.%d:1883", i+1), Format: 1}
		n.apply(up.Append(nil), func(fsm.Result) {})
	}
	go c.run()
	return c
}

func (c *fakeCluster) run() {
	defer close(c.done)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case _, ok := <-c.wake:
			if !ok {
				return
			}
		case <-tick.C:
			n := c.nodes[0]
			if at, ok := n.machine.NextDeadline(); ok && at <= c.stamp() {
				n.apply((&command.Tick{}).Append(nil), func(fsm.Result) {})
			}
		}
		for {
			c.mu.Lock()
			if len(c.work) == 0 {
				c.mu.Unlock()
				break
			}
			next := c.work[0]
			c.work = c.work[1:]
			c.mu.Unlock()
			if c.delay > 0 {
				time.Sleep(c.delay)
			}
			next()
		}
	}
}

func (c *fakeCluster) stamp() uint64 { return uint64(time.Since(c.start)/time.Millisecond) + 1_000_000 }

func (n *testNode) apply(cmd []byte, done func(fsm.Result)) {
	n.cluster.index++
	n.number++
	entry := command.AppendEntryHeader(nil, n.cluster.stamp())
	entry = command.AppendBatch(entry, &command.Batch{Node: n.id, Incarnation: 1, Number: n.number, Count: 1, Commands: cmd})
	n.pending = done
	for _, other := range n.cluster.nodes {
		if err := other.machine.Apply(n.cluster.index, entry); err != nil {
			panic(err)
		}
	}
}

func (c *fakeCluster) enqueue(w func()) {
	if c.hold {
		c.held = append(c.held, w)
		return
	}
	c.work = append(c.work, w)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Propose implements Log.
func (n *testNode) Propose(c command.Command, done func(fsm.Result, error)) error {
	cmd := c.Append(nil)
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if n.cluster.refuse != nil {
		return n.cluster.refuse
	}
	n.cluster.enqueue(func() { n.apply(cmd, func(r fsm.Result) { done(r, nil) }) })
	return nil
}

// ReadIndex implements Log.
func (n *testNode) ReadIndex(done func(error)) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.cluster.enqueue(func() { done(nil) })
}

// ContactAge implements Log.
func (n *testNode) ContactAge() time.Duration {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if n.cluster.hold {
		return time.Since(n.cluster.contact)
	}
	return 0
}

// Send implements Peers.
func (n *testNode) Send(to command.NodeID, kind byte, payload []byte) bool {
	for _, other := range n.cluster.nodes {
		if other.id == to {
			n.cluster.mu.Lock()
			cut := other.cut || n.cut
			n.cluster.mu.Unlock()
			if !cut {
				other.Handlers()[kind](n.id, payload)
			}
			return !cut
		}
	}
	return false
}

// setLeader takes the leader away or brings it back.
func (c *fakeCluster) setLeader(there bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold, c.contact = !there, time.Now()
	if there {
		held := c.held
		c.held = nil
		for _, w := range held {
			c.enqueue(w)
		}
	}
}

func (c *fakeCluster) setRefuse(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = err
}

// down declares a node dead, as the leader would.
func (c *fakeCluster) down(n *testNode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	by := c.nodes[0]
	c.enqueue(func() { by.apply((&command.NodeDown{ID: n.id, Incarnation: 1}).Append(nil), func(fsm.Result) {}) })
}

func (c *fakeCluster) close(t testing.TB) {
	c.setLeader(true)
	c.setRefuse(nil)
	for _, n := range c.nodes {
		if err := n.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		n.Close()
		if left := n.Connections(); left != 0 {
			t.Errorf("%d connections are left", left)
		}
		if left := len(n.routes.counts); left != 0 {
			t.Errorf("%d filters are still counted", left)
		}
		if left := n.live.tree.Len(); left != 0 {
			t.Errorf("%d filters are left in the live tree", left)
		}
		if panics := n.Metrics().Client.Panics.Load(); panics != 0 {
			t.Errorf("%d panics", panics)
		}
	}
	if stats := c.nodes[0].machine.Stats(); stats.Connected != 0 || stats.Routes != 0 {
		t.Errorf("the log still knows %d connections and %d routes", stats.Connected, stats.Routes)
	}
	close(c.wake)
	<-c.done
}
