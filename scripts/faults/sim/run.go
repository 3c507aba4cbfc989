package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"quorate/protocol/packet"
	"quorate/scripts/faults/check"
)

// result is what a run leaves.
type result struct {
	events []check.Event
	report check.Report
	log    []string
	nodes  string // the end of every node's log
	err    error  // the run itself went wrong: a node did not start, or no quorum came together
}

func (r *result) valid() bool { return r.err == nil && r.report.Verdict() == check.Valid }

// Times of a run, all virtual.
const (
	formTime   = time.Minute      // a new cluster must serve within this
	quietTime  = 2 * time.Second  // before the first fault and after the last
	drainTime  = 2 * time.Minute  // publishers must have every acknowledgement within this
	settleTime = 40 * time.Second // deliveries and wills must have come within this
)

// everything is a whole run: form a cluster, start every kind of client, let
// disturb break things, heal, drain and check. It is called in a bubble.
func everything(seed uint64, disturb func(*cluster, *rand.Rand) error) (r *result) {
	c := newCluster(3, seed)
	r = &result{}
	defer func() {
		r.events = c.history.Events()
		r.log, r.nodes = c.log, c.tails()
	}()
	defer c.close()
	if r.err = c.start(c.names()...); r.err != nil {
		return r
	}
	if r.err = c.awaitReady(formTime); r.err != nil {
		return r
	}
	l := newLoad(c, seed)
	defer l.leave()
	l.everyKind()
	l.ready.Wait()
	time.Sleep(quietTime)
	if r.err = disturb(c, rand.New(rand.NewPCG(seed, 0))); r.err != nil {
		return r
	}
	if r.err = c.heal(); r.err != nil {
		return r
	}
	if r.err = c.awaitReady(formTime); r.err != nil {
		return r
	}
	time.Sleep(quietTime)
	l.drain()
	c.digests()
	r.report = check.All(c.history.Events(), check.Default())
	return r
}

// everyKind starts the clients that together put P1 to P9 to the test.
func (l *load) everyKind() {
	qos := func(filter string, qos byte) packet.Subscription {
		return packet.Subscription{Filter: filter, QoS: qos}
	}
	l.subscriber("sub-5", packet.V5, 10*time.Second, qos("a/#", 2))
	l.subscriber("sub-311", packet.V311, 15*time.Second, qos("a/+", 1))
	l.subscriber("sub-31", packet.V31, 0, qos("a/0", 2), qos("b/#", 1))
	l.absent("absent", packet.V5, qos("a/#", 2))
	l.subscriber("share-1", packet.V5, 10*time.Second, qos("$share/g/b/#", 1))
	l.subscriber("share-2", packet.V5, 10*time.Second, qos("$share/g/b/#", 1))
	l.subscriber("monitor", packet.V5, 0, qos("will/#", 1))
	l.transient("live", packet.V311, qos("b/+", 1))
	l.waverer("waverer", packet.V5, qos("b/1", 1))
	l.publisher("pub-1", packet.V5, 8, false, []byte{1, 2}, "a/0", "a/1", "b/0")
	l.publisher("pub-2", packet.V311, 4, false, []byte{2}, "a/0", "a/1", "b/1")
	l.publisher("pub-3", packet.V31, 1, false, []byte{1}, "b/0", "b/1")
	l.publisher("writer-1", packet.V5, 1, true, []byte{1, 2}, "r/0", "r/1")
	l.publisher("writer-2", packet.V311, 1, true, []byte{2}, "r/0", "r/1")
	l.reader("reader-1", packet.V5, "r/0", "r/1")
	l.reader("reader-2", packet.V311, "r/0", "r/1")
	l.contender("wanted", packet.V5, "o/wanted")
	l.contender("wanted", packet.V311, "o/wanted")
	l.mortal("mortal-1", 0)
	l.mortal("mortal-2", 0)
	l.mortal("mortal-3", 2)
}

// drain lets the publishers end, and everything arrive.
func (l *load) drain() {
	l.c.note("drain")
	l.stopWork()
	done := make(chan struct{})
	go func() {
		l.publishers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(drainTime):
		l.c.note("not drained")
	}
	time.Sleep(settleTime)
	l.c.note("settled")
}

// leave ends all clients.
func (l *load) leave() {
	l.stopOver()
	l.publishers.Wait()
	l.others.Wait()
}

// awaitReady waits until every node that runs says that it is ready.
func (c *cluster) awaitReady(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for _, m := range c.nodes {
		for !m.down && !m.ready() {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s is not ready after %v", m.name, limit)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return nil
}

// digests notes the state of every node, once all have applied the same.
func (c *cluster) digests() {
	for range 100 {
		same := true
		first, _ := c.nodes[0].digest()
		for _, m := range c.nodes[1:] {
			index, _ := m.digest()
			same = same && index == first
		}
		if same {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, m := range c.nodes {
		index, digest := m.digest()
		c.history.Add(check.Event{Phase: check.Note, Op: check.Digest, Node: m.name, Seq: index, Value: fmt.Sprintf("%016x", digest)})
	}
}
