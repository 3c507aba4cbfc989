package acceptance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"quorate/protocol/packet"
	"quorate/scripts/acceptance/processes"
	"quorate/scripts/faults/client"
)

// writer publishes retained values to one topic, each once, until stop is called, which waits for the end.
func (f *fixture) writer(n *processes.Node, topic string) (stop func()) {
	f.t.Helper()
	opt := f.options("writer")
	opt.History = f.history
	c := client.New(opt)
	f.connect(c, n)
	ctx, cancel := context.WithCancel(f.ctx)
	var wait sync.WaitGroup
	wait.Go(func() {
		defer c.Disconnect(packet.NormalDisconnection)
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			p, err := c.Publish(topic, fmt.Sprint("value ", i), 1, true)
			if err != nil {
				f.t.Errorf("writer: %v", err)
				return
			}
			select {
			case <-p.Done():
			case <-f.ctx.Done():
				f.t.Error("writer: no acknowledgement")
				return
			}
			<-ticker.C
		}
	})
	return func() {
		cancel()
		wait.Wait()
	}
}

// prober reads the retained message of topic from one node as often as that takes clients, each time with a new client,
// until stop is called, which returns how many reads got an answer.
func (f *fixture) prober(n *processes.Node, topic string) (stop func() int) {
	ctx, cancel := context.WithCancel(f.ctx)
	answered := 0
	var wait sync.WaitGroup
	wait.Go(func() {
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			c := client.New(client.Options{
				ID: fmt.Sprint("prober-", i), Version: packet.V5, Dial: f.Dial, History: f.history,
				CleanStart: true, Transient: true, Quiet: true,
			})
			attempt, end := context.WithTimeout(ctx, 3*time.Second)
			if _, err := c.Connect(attempt, n.Name); err == nil {
				if _, err := c.ReadRetained(attempt, topic); err == nil {
					answered++
				}
				c.Drop()
			}
			end()
			<-ticker.C
		}
	})
	return func() int {
		cancel()
		wait.Wait()
		return answered
	}
}

// publishAll has each value acknowledged before the next.
func (f *fixture) publishAll(n *processes.Node, topic string, qos byte, values ...string) {
	f.t.Helper()
	opt := f.options("publisher on " + n.Name)
	opt.History = f.history
	c := client.New(opt)
	f.connect(c, n)
	for _, v := range values {
		p, err := c.Publish(topic, v, qos, false)
		f.must(err)
		select {
		case <-p.Done():
			f.must(p.Err())
		case <-f.ctx.Done():
			f.t.Fatalf("%s: no acknowledgement", c.ID())
		}
	}
	c.Disconnect(packet.NormalDisconnection)
}

// receives connects c to n, which must know its session, and waits until box is full.
func (f *fixture) receives(c *client.Client, n *processes.Node, box <-chan string, values ...string) {
	f.t.Helper()
	if present := f.connect(c, n); !present {
		f.t.Errorf("%s does not know the session of %s", n.Name, c.ID())
	}
	for _, want := range values {
		select {
		case got := <-box:
			if got != want {
				f.t.Errorf("%s got %q, want %q", c.ID(), got, want)
			}
		case <-f.ctx.Done():
			f.t.Fatalf("%s waits for %q", c.ID(), want)
		}
	}
	c.Disconnect(packet.NormalDisconnection)
}

func TestAFourthNodeJoinsServesSessionsOfTheOthersAndVotesWithTheFifth(t *testing.T) {
	f := found(t)
	nodes := f.Nodes()
	phone := make(chan string, 16)
	opt := f.options("phone")
	opt.History = f.history
	opt.OnMessage = func(m client.Message) { phone <- m.Payload }
	traveller := f.subscribe(opt, nodes[0], "trip/#")
	box := newInbox(20_000)
	bulk := f.options("archive")
	bulk.OnMessage = box.take
	archive := f.subscribe(bulk, nodes[1], "flood/#")
	f.flood(nodes, "flood", 4, 20_000, 0)
	stopWriter := f.writer(nodes[1], "state/door")

	n4, err := f.Add("n4")
	f.must(err)
	before, err := nodes[0].Digest(f.ctx)
	f.must(err)
	stopProber := f.prober(n4, "state/door")
	f.catchUp(n4, before.Index)
	// Four voters survive no more failures than three, so the fourth serves without a vote until there is a fifth.
	f.awaitMembers(n4, "n1:voter n2:voter n3:voter n4:nonvoter")
	f.publishAll(nodes[2], "trip/1", 2, "one", "two")
	f.receives(traveller, n4, phone, "one", "two")
	f.publishAll(n4, "trip/2", 1, "three")
	f.receives(traveller, nodes[0], phone, "three")
	if present := f.connect(archive, n4); !present {
		t.Error("the session of archive is lost")
	}
	box.await(f)
	archive.Disconnect(packet.NormalDisconnection)

	n5, err := f.Add("n5")
	f.must(err)
	f.must(n5.Start())
	f.awaitMembers(n5, "n1:voter n2:voter n3:voter n4:voter n5:voter")
	f.must(processes.AwaitReady(f.ctx, f.Nodes()...))
	stopWriter()
	if answered := stopProber(); answered == 0 {
		t.Error("n4 never answered a read")
	} else {
		f.note("n4 answered %d reads of a value that was changing", answered)
	}
	f.awaitSameState()
	f.verdict("retained", "session-present", "exactly-once")
}

func TestAWipedNodeComesBackAsANewServerAndTakesThePlaceOfTheOldOne(t *testing.T) {
	t.Parallel() // most of it is waiting
	f := found(t)
	node, others := f.follower()
	box := newInbox(5_000)
	opt := f.options("archive")
	opt.OnMessage = box.take
	archive := f.subscribe(opt, node, "flood/#")
	old := server(f, others[0], node.Name)
	node.Kill()
	f.must(node.Wipe())
	f.flood(others, "flood", 2, 5_000, 0)
	now, err := f.leader().Digest(f.ctx)
	f.must(err)

	f.must(node.Start())
	voted := false
	f.until(node.Name+" is a server without a vote", func() error {
		status, err := others[0].Status(f.ctx)
		if err != nil {
			return err
		}
		for _, m := range status.Nodes {
			if m.Name == node.Name && m.ID != old && m.State != "joining" {
				voted = voted || m.Voter
				return nil
			}
		}
		return errors.New(members(status))
	})
	if voted {
		t.Error("the new server had a vote before anybody saw it without")
	}
	f.ready(node, now.Index)
	f.awaitMembers(others[0], "n1:voter n2:voter n3:voter")
	if id := server(f, others[0], node.Name); id == old {
		t.Errorf("%s is still server %s", node.Name, id)
	}
	if s := f.status(node); s.Cluster != f.status(others[0]).Cluster {
		t.Errorf("%s is in another cluster: %v", node.Name, s)
	}
	if present := f.connect(archive, node); !present {
		t.Error("the session of archive is lost")
	}
	box.await(f)
	archive.Drop()
	f.awaitSameState()
}

// server is the id of the one server of a name.
func server(f *fixture, asked *processes.Node, name string) (id string) {
	f.t.Helper()
	for _, m := range f.status(asked).Nodes {
		if m.Name == name {
			if id != "" {
				f.t.Errorf("%s is there twice", name)
			}
			id = m.ID
		}
	}
	return id
}
