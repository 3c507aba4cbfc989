package fsm

import (
	"errors"
	"testing"

	"quorate/fsm/command"
)

func TestABatchIsAppliedOnceAndInOrder(t *testing.T) {
	r := up(t, nodeB)
	pub := func(n command.NodeID, s string) *command.Batch {
		return r.batch(n, &command.Publish{Message: msg("t", 0, s)})
	}
	r.calls = nil
	one, two, three := pub(nodeA, "1"), pub(nodeA, "2"), pub(nodeA, "3")
	r.apply(one)
	r.apply(one)        // a duplicate
	r.apply(three)      // a gap
	r.apply(two, three) // resent
	r.apply(two)
	equal(t, "own node", r.calls, []string{
		"published t=1", "applied 1/2 1", "gap 1: 3 got 4", "published t=2", "applied 1/3 1", "published t=3", "applied 1/4 1",
	})
	r.calls = nil
	one, two = pub(nodeB, "4"), pub(nodeB, "5")
	r.apply(two)
	r.apply(one, two, one)
	equal(t, "another node", r.calls, []string{"published t=4", "published t=5"})
}

func TestABatchOfAnEndedIncarnationIsSkippedWhole(t *testing.T) {
	r := up(t, nodeB)
	stale := r.batch(nodeB, &command.Publish{Message: msg("t", 0, "stale")})
	r.start(nodeB)
	_, before := r.m.Digest()
	r.apply(stale)
	dead := r.batch(nodeB, &command.Publish{Message: msg("t", 0, "dead")})
	r.do(nodeA, &command.NodeDown{ID: nodeB, Incarnation: 2})
	r.apply(dead)
	if got := r.heard("published"); got != nil {
		t.Fatalf("%v", got)
	}
	if _, after := r.m.Digest(); after == before {
		t.Fatal("node down is an effect")
	}
}

func TestANodeThatWasDeclaredDeadIsToldToBeginANewIncarnation(t *testing.T) {
	r := up(t, nodeB)
	r.do(nodeB, &command.NodeDown{ID: nodeA, Incarnation: 1})
	r.calls = nil
	r.apply(r.batch(nodeA, &command.Tick{}))
	equal(t, "calls", r.calls, []string{"gap 1: 0 got 2"})
	r.start(nodeA)
	r.publish("t", 0, "x")
}

func TestCommandsAfterTheEndOfTheirOwnIncarnationComeFromNobody(t *testing.T) {
	r := up(t)
	ref := r.connect(nodeA, "c")
	r.calls = nil
	results := r.do(nodeA, &command.NodeDown{ID: nodeA, Incarnation: 1}, &command.Publish{Message: msg("t", 0, "x")},
		&command.Connect{ClientID: "d"}, &command.Disconnect{Ref: ref})
	if !results[0].Existed[0] || !results[1].Stale || !results[2].Stale || !results[3].Stale || r.heard("published") != nil {
		t.Fatalf("%+v", results)
	}
}

func TestAnIncarnationBeginsWithNodeUpInItsFirstBatch(t *testing.T) {
	r := newRig(t)
	r.inc[nodeB] = 3
	r.apply(r.batch(nodeB, &command.Publish{Message: msg("t", 0, "x")})) // not a NodeUp
	r.apply(r.batch(nodeB, &command.NodeUp{ID: nodeB}))                  // number 2
	r.apply(&command.Batch{Node: nodeB, Incarnation: 3, Number: 1})      // empty
	r.number[nodeB] = 0
	r.apply(r.batch(nodeB, &command.NodeUp{ID: nodeC})) // of another node
	if len(r.m.Nodes()) != 0 || r.calls != nil {
		t.Fatalf("%v %v", r.m.Nodes(), r.calls)
	}
	r.number[nodeB] = 0
	r.apply(r.batch(nodeB, &command.NodeUp{ID: nodeB, Name: "b", ClientAddr: "h:1", Format: 4}, &command.Publish{Message: msg("t", 0, "x")}))
	want := NodeInfo{ID: nodeB, Name: "b", ClientAddr: "h:1", Format: 4, Incarnation: 3, LastBatch: 1, Up: true}
	if got := r.m.Nodes(); len(got) != 1 || got[0] != want {
		t.Fatalf("%+v", got)
	}
	equal(t, "published", r.heard("published"), []string{"published t=x"})
}

func TestTimeIsTheGreatestStampAndNeverGoesBack(t *testing.T) {
	r := up(t)
	r.stamp = 5000
	r.do(nodeA)
	r.stamp = 3000
	r.do(nodeA)
	if r.m.Now() != 5000 {
		t.Fatalf("now %d", r.m.Now())
	}
}

func TestAnEntryThatCannotBeDecodedStopsTheMachine(t *testing.T) {
	good := func(r *rig, commands []byte, count int) []byte {
		b := command.AppendEntryHeader(nil, 1)
		r.number[nodeA]++
		return command.AppendBatch(b, &command.Batch{Node: nodeA, Incarnation: 1, Number: r.number[nodeA], Count: count, Commands: commands})
	}
	tick := encode(&command.Tick{})
	f := func(what string, entry func(r *rig) []byte) {
		t.Helper()
		r := up(t)
		if err := r.m.Apply(r.index+1, entry(r)); err == nil {
			t.Fatalf("%s: applied", what)
		}
		if err := r.m.Apply(r.index+2, good(r, tick, 1)); err == nil {
			t.Fatalf("%s: went on", what)
		}
		if r.m.Applied() != r.index {
			t.Fatalf("%s: applied %d", what, r.m.Applied())
		}
	}
	f("empty", func(*rig) []byte { return nil })
	f("another version", func(*rig) []byte { return []byte{9, 0, 0} })
	f("another group", func(*rig) []byte { return []byte{1, 1, 0} })
	f("torn batch", func(r *rig) []byte { b := good(r, tick, 1); return b[:len(b)-1] })
	f("unknown kind", func(r *rig) []byte { return good(r, []byte{200}, 1) })
	f("torn command", func(r *rig) []byte { return good(r, encode(&command.Kick{ClientID: "c"})[:4], 1) })
	f("too few commands", func(r *rig) []byte { return good(r, append(tick, tick...), 3) })
	f("too many commands", func(r *rig) []byte { return good(r, append(tick, tick...), 1) })
	r := up(t)
	err := r.m.Apply(99, good(r, []byte{200}, 1))
	if !errors.Is(err, command.ErrUnknownKind) {
		t.Fatalf("%v", err)
	}
}

func TestWaitAppliedCallsAtOnceOrWhenTheIndexIsApplied(t *testing.T) {
	r := up(t)
	var got []int
	r.m.WaitApplied(r.index, func() { got = append(got, 0) })
	r.m.WaitApplied(r.index+2, func() { got = append(got, 2) })
	r.m.WaitApplied(r.index+1, func() { got = append(got, 1) })
	equal(t, "at once", got, []int{0})
	r.do(nodeA)
	equal(t, "one entry later", got, []int{0, 1})
	r.do(nodeA)
	equal(t, "two entries later", got, []int{0, 1, 2})
}

func TestAnEntryIsAppliedOnce(t *testing.T) {
	r := up(t)
	b := command.AppendBatch(command.AppendEntryHeader(nil, 1), r.batch(nodeA, &command.Publish{Message: msg("t", 0, "x")}))
	for range 2 {
		if err := r.m.Apply(7, b); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "published", r.heard("published"), []string{"published t=x"})
}
