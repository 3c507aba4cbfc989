package acceptance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"quorate/protocol/packet"
	"quorate/scripts/acceptance/outage"
	"quorate/scripts/acceptance/processes"
	"quorate/scripts/faults/check"
	"quorate/scripts/faults/client"
)

// servedAgainMax is what a busy machine may take; on a quiet one the median of 20 rounds is below 3 s.
const servedAgainMax = 10 * time.Second

func TestPublishesAreAcknowledgedAgainSoonAfterTheLeaderIsGone(t *testing.T) {
	f := found(t)
	for _, fault := range []outage.Fault{outage.LeaderKilled, outage.LeaderPaused, outage.AllKilled} {
		rounds := 1
		if fault == outage.LeaderKilled {
			rounds = 3
		}
		for range rounds {
			r, err := outage.Measure(f.ctx, f.Cluster, fault)
			f.must(err)
			f.note("%s: acknowledged after %d ms", fault, r.Acked.Milliseconds())
			if r.Acked > servedAgainMax {
				t.Errorf("%s: acknowledged after %v, want at most %v", fault, r.Acked, servedAgainMax)
			}
		}
	}
	f.awaitSameState()
}

// handOverMax bounds how long nothing is acknowledged while a leader is drained, and drainMax how long the node takes.
const (
	handOverMax = 5 * time.Second
	drainMax    = 15 * time.Second
)

func TestADrainedLeaderSendsItsClientsAwayHandsOverAndLosesNothing(t *testing.T) {
	f := found(t)
	leader := f.leader()
	others := f.Others(leader)
	traffic := f.startTraffic()
	guests := f.guests(leader, 10)
	gap := f.watchAcknowledgements(others[0])
	traffic.flowing(f)

	began := time.Now()
	leader.Signal(syscall.SIGTERM)
	f.until("another node leads", func() error {
		status, err := others[0].Status(f.ctx)
		if err == nil && (status.Leader == "" || status.Leader == leader.Name) {
			err = fmt.Errorf("%s holds %q for the leader", others[0].Name, status.Leader)
		}
		return err
	})
	successor := time.Since(began)
	select {
	case <-leader.Ended():
	case <-f.ctx.Done():
		t.Fatal("the node does not end")
	}
	if took := time.Since(began); took > drainMax {
		t.Errorf("the drain took %v, want at most %v", took, drainMax)
	}
	if code := leader.ExitCode(); code != 0 {
		t.Errorf("the node ended with %d", code)
	}
	f.note("drained after %d ms", time.Since(began).Milliseconds())
	f.sentAway(guests, leader, others)
	traffic.flowing(f)
	longest := gap()
	f.note("longest time without an acknowledgement through %s: %d ms; another leader was seen after %d ms",
		others[0].Name, longest.Milliseconds(), successor.Milliseconds())
	if longest > handOverMax {
		t.Errorf("nothing was acknowledged for %v, want at most %v", longest, handOverMax)
	}
	f.must(leader.Start())
	f.must(processes.AwaitReady(f.ctx, f.Nodes()...))
	traffic.stop(f)
	f.awaitSameState()
	f.verdict("queue", "order", "exactly-once", "session-present", "drained")
}

// guests connects clients that stay where they are.
func (f *fixture) guests(n *processes.Node, count int) []*client.Client {
	f.t.Helper()
	var list []*client.Client
	for i := range count {
		opt := f.options("guest-" + strconv.Itoa(i))
		opt.History = f.history
		c := client.New(opt)
		f.connect(c, n)
		f.must(c.Subscribe(f.ctx, packet.Subscription{Filter: "guests/" + strconv.Itoa(i), QoS: 2}))
		list = append(list, c)
	}
	return list
}

// sentAway demands that every guest was told Server shutting down, and finds its session on another node.
func (f *fixture) sentAway(guests []*client.Client, from *processes.Node, to []*processes.Node) {
	f.t.Helper()
	told := map[string]packet.ReasonCode{}
	for _, e := range f.history.Events() {
		if e.Op == check.Closed && e.Node == from.Name {
			told[e.Client] = packet.ReasonCode(e.Reason)
		}
	}
	for i, c := range guests {
		c.Wait(f.ctx)
		if got := told[c.ID()]; got != packet.ServerShuttingDown {
			f.t.Errorf("%s was told %v (0x%02x), want Server shutting down", c.ID(), got, byte(got))
		}
		if present := f.connect(c, to[i%len(to)]); !present {
			f.t.Errorf("the session of %s is lost", c.ID())
		}
		c.Disconnect(packet.NormalDisconnection)
	}
}

// watchAcknowledgements publishes one retained message after the other through n; stop returns the longest time that one
// took.
func (f *fixture) watchAcknowledgements(n *processes.Node) (stop func() time.Duration) {
	f.t.Helper()
	c := client.New(f.options("watch"))
	f.connect(c, n)
	ctx, cancel := context.WithCancel(f.ctx)
	var wait sync.WaitGroup
	longest := time.Duration(0)
	wait.Go(func() {
		defer c.Drop()
		for i := 0; ctx.Err() == nil; i++ {
			began := time.Now()
			p, err := c.Publish("watch", strconv.Itoa(i), 1, true)
			if err != nil {
				f.t.Errorf("watch: %v", err)
				return
			}
			select {
			case <-p.Done():
				longest = max(longest, time.Since(began))
			case <-f.ctx.Done():
				f.t.Error("watch: no acknowledgement")
				return
			}
		}
	})
	return func() time.Duration {
		cancel()
		wait.Wait()
		return longest
	}
}

// traffic is publishers and subscribers that go wherever there is a node.
type traffic struct {
	over, work       context.Context
	stopOver, finish context.CancelFunc
	publishers, subs sync.WaitGroup
	ready            sync.WaitGroup
}

// roam is a client that goes from node to node.
func (f *fixture) roam(opt client.Options) client.Roam {
	opt.History = f.history
	return client.Roam{
		Client: client.New(opt), Nodes: names(f.Nodes()), Rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		Patience: 10 * time.Second, Backoff: 200 * time.Millisecond,
	}
}

// startTraffic starts two persistent subscribers, and two publishers of QoS 1 and 2.
func (f *fixture) startTraffic() *traffic {
	t := &traffic{}
	t.over, t.stopOver = context.WithCancel(f.ctx)
	t.work, t.finish = context.WithCancel(t.over)
	for i := range 2 {
		s := client.Subscriber{Roam: f.roam(f.options("sub-" + strconv.Itoa(i))),
			Subscriptions: []packet.Subscription{{Filter: "load/#", QoS: 2}}}
		t.ready.Add(1)
		once := sync.OnceFunc(t.ready.Done)
		t.subs.Go(func() {
			s.Run(t.over, once)
			s.Client.Disconnect(packet.NormalDisconnection)
		})
	}
	t.ready.Wait()
	for i := range 2 {
		p := client.Publisher{Roam: f.roam(f.options("load-" + strconv.Itoa(i))), Window: 8}
		qos := byte(i + 1)
		t.publishers.Go(func() {
			n := 0
			err := p.Run(t.over, func() (client.Post, bool) {
				n++
				return client.Post{Topic: "load/" + strconv.Itoa(i), Value: p.Client.ID() + " " + strconv.Itoa(n), QoS: qos,
					Pause: 5 * time.Millisecond}, t.work.Err() == nil
			})
			missing := ""
			if err != nil {
				missing = strconv.Itoa(p.Client.Unacked()) + " acknowledgements"
			}
			f.history.Add(check.Event{Phase: check.Note, Op: check.Drained, Client: p.Client.ID(), Value: missing})
			p.Client.Disconnect(packet.NormalDisconnection)
		})
	}
	return t
}

// flowing waits until 200 more deliveries have come.
func (t *traffic) flowing(f *fixture) {
	f.t.Helper()
	_, before := counts(f.history)
	f.until("traffic flows", func() error {
		_, after := counts(f.history)
		if n := total(after) - total(before); n < 200 {
			return fmt.Errorf("%d deliveries", n)
		}
		return nil
	})
}

// stop lets the publishers end and waits until every subscriber has every message.
func (t *traffic) stop(f *fixture) {
	f.t.Helper()
	t.finish()
	t.publishers.Wait()
	f.until("everything is delivered", func() error {
		published, delivered := counts(f.history)
		for i := range 2 {
			if n := delivered["sub-"+strconv.Itoa(i)]; n < published {
				return fmt.Errorf("%d of %d for sub-%d", n, published, i)
			}
		}
		return nil
	})
	t.stopOver()
	t.subs.Wait()
}

// counts are how many messages were published for sure, and how many different ones came to whom.
func counts(h *check.History) (published int, delivered map[string]int) {
	seen := map[[2]string]bool{}
	delivered = map[string]int{}
	for _, e := range h.Events() {
		switch {
		case e.Op == check.Publish && e.Phase == check.OK:
			published++
		case e.Op == check.Deliver && !seen[[2]string{e.Client, e.Value}]:
			seen[[2]string{e.Client, e.Value}] = true
			delivered[e.Client]++
		}
	}
	return published, delivered
}

func total(counts map[string]int) (sum int) {
	for _, n := range counts {
		sum += n
	}
	return sum
}
