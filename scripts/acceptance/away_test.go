package acceptance

import (
	"errors"
	"testing"

	"quorate/protocol/packet"
	"quorate/scripts/acceptance/processes"
	"quorate/scripts/faults/client"
)

// absence plays a node that is killed, misses count messages of some size, and comes back; meanwhile runs before that.
func absence(f *fixture, count, bytes int, meanwhile func(others []*processes.Node)) (node *processes.Node) {
	f.t.Helper()
	node, others := f.follower()
	box := newInbox(count)
	opt := f.options("archive")
	opt.OnMessage = box.take
	archive := f.subscribe(opt, node, "flood/#")
	last, err := node.Digest(f.ctx)
	f.must(err)
	node.Kill()
	f.flood(others, "flood", 4, count, bytes)
	meanwhile(others)
	now, err := f.leader().Digest(f.ctx)
	f.must(err)
	f.note("%s, which does not lead, missed %d commands in %d log entries", node.Name, count, now.Index-last.Index)

	f.catchUp(node, now.Index)
	f.awaitSameState()
	if present := f.connect(archive, node); !present {
		f.t.Error("the session of archive is lost")
	}
	box.await(f)
	archive.Disconnect(packet.NormalDisconnection)
	f.awaitMembers(node, "n1:voter n2:voter n3:voter")
	f.awaitSameState()
	return node
}

func TestANodeThatMissed100000CommandsIsNotReadyUntilItHasThem(t *testing.T) {
	f := found(t)
	node := absence(f, 100_000, 0, func([]*processes.Node) {})
	if node.Logged("Installed remote snapshot") {
		t.Error("it came back by a snapshot, which is another test")
	}
}

func TestANodeWhoseLogWasTruncatedMeanwhileIsNotReadyUntilItHasTheSnapshot(t *testing.T) {
	t.Parallel() // most of it is waiting
	f := found(t, "--snapshot-bytes", "1MiB")
	retained := client.New(f.options("keeper"))
	f.connect(retained, f.leader())
	if _, err := retained.Publish("state/door", "open", 1, true); err != nil {
		t.Fatal(err)
	}
	f.must(drained(f.ctx, retained, 0))
	retained.Drop()

	node := absence(f, 30_000, 200, func(others []*processes.Node) {
		for _, n := range others {
			f.until(n.Name+" has truncated its log", func() error {
				if !n.Logged("compacting logs") {
					return errors.New("not yet")
				}
				return nil
			})
		}
	})
	if !node.Logged("Installed remote snapshot") {
		t.Error("it came back without a snapshot")
	}
	reader := client.New(f.options("reader"))
	f.connect(reader, node)
	if got, err := reader.ReadRetained(f.ctx, "state/door"); got != "open" || err != nil {
		t.Errorf("retained message from the node with the snapshot: %q, %v", got, err)
	}
	reader.Drop()
}
