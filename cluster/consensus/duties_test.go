package consensus

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"quorate/fsm"
	"quorate/fsm/command"
)

// up reports whether h's machine believes that a node lives.
func (h *host) up(id command.NodeID) bool {
	nd, ok := h.machine.Node(id)
	return ok && nd.Up
}

func TestADeadNodeIsDeclaredDeadInTimeAndNoLiveOneEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		defer l.close()
		leader := l.found()
		victim := l.order[0]
		if victim == leader {
			victim = l.order[1]
		}
		l.until("all to be up", func() bool {
			return !slices.ContainsFunc(l.order, func(h *host) bool { return !leader.up(h.id) })
		})
		time.Sleep(time.Minute)
		begin := time.Now()
		victim.crash()
		l.until("the death to be known", func() bool { return !leader.up(victim.id) })
		if took := time.Since(begin); took < 14*time.Second || took > 16*time.Second {
			t.Errorf("declared dead after %v", took)
		}
		for _, h := range l.order {
			if h != victim && (!leader.up(h.id) || len(h.reborn) > 0) {
				t.Errorf("%s was declared dead while it lived", h.name)
			}
		}
	})
}

func TestANewLeaderGivesEverybodyTheFullTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c", "d", "e")
		defer l.close()
		first := l.found()
		victim := l.order[0]
		if victim == first {
			victim = l.order[1]
		}
		l.until("all to be up", func() bool {
			return !slices.ContainsFunc(l.order, func(h *host) bool { return !first.up(h.id) })
		})
		victim.crash()
		time.Sleep(13 * time.Second)
		first.crash()
		second := l.leader()
		begin := time.Now()
		l.until("the death to be known", func() bool { return !second.up(victim.id) })
		if took := time.Since(begin); took < 14*time.Second || took > 17*time.Second {
			t.Errorf("declared dead %v after the election", took)
		}
	})
}

func TestANodeThatWasDeclaredDeadWhileItLivedGoesOnUnderANewIncarnation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		defer l.close()
		leader := l.found()
		lost := l.order[0]
		if lost == leader {
			lost = l.order[1]
		}
		if _, err := lost.propose(publish("before")); err != nil {
			t.Fatal(err)
		}
		l.until("the node to be ready", lost.node.Ready)
		l.isolate(lost, true)
		outcome := make(chan error, 1)
		if err := lost.node.Propose(publish("meanwhile"), func(_ fsm.Result, err error) { outcome <- err }); err != nil {
			t.Fatal(err)
		}
		if age := lost.node.ContactAge(); age > time.Second {
			t.Errorf("contact age %v at the cut", age)
		}
		time.Sleep(12 * time.Second)
		if age := lost.node.ContactAge(); age < 12*time.Second || age > 13*time.Second || lost.node.Ready() {
			t.Errorf("contact age %v, ready %v", age, lost.node.Ready())
		}
		if !leader.up(lost.id) {
			t.Error("declared dead before it has closed its clients")
		}
		time.Sleep(8 * time.Second)
		if leader.up(lost.id) {
			t.Error("not declared dead")
		}
		l.isolate(lost, false)
		if err := <-outcome; !errors.Is(err, ErrUnknown) {
			t.Errorf("a proposal of the ended incarnation got %v", err)
		}
		l.until("the node to be ready", lost.node.Ready)
		if _, err := lost.propose(publish("after")); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(lost.reborn, []uint64{2}) || lost.node.Incarnation() != 2 || lost.has("meanwhile") {
			t.Errorf("reborn %v, incarnation %d, applied %v", lost.reborn, lost.node.Incarnation(), lost.machine.topics())
		}
		l.noFatals()
	})
}

func TestAnIdleNodeThatWasDeclaredDeadNoticesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		defer l.close()
		leader := l.found()
		lost := l.order[0]
		if lost == leader {
			lost = l.order[1]
		}
		l.until("its incarnation to open", lost.node.Ready)
		l.isolate(lost, true)
		time.Sleep(20 * time.Second)
		l.isolate(lost, false)
		l.until("the node to be back", func() bool { return leader.up(lost.id) && lost.node.Ready() })
	})
}

func TestTicksComeWhenTheMachineIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		defer l.close()
		leader := l.found()
		time.Sleep(5 * time.Second)
		before := leader.node.raft.LastIndex()
		time.Sleep(time.Minute)
		if grown := leader.node.raft.LastIndex() - before; grown != 0 {
			t.Errorf("an idle cluster wrote %d entries", grown)
		}
		deadline := uint64(time.Now().Add(10 * time.Second).UnixMilli())
		for _, h := range l.order {
			h.machine.with(func(st *fakeState) { st.Deadline = deadline })
			h.machine.tickGap = 3000
		}
		if _, err := leader.propose(publish("wakes the duties")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		var ticks []uint64
		leader.machine.with(func(st *fakeState) { ticks = slices.Clone(st.Ticks) })
		if len(ticks) != 5 {
			t.Fatalf("ticks at %v", ticks)
		}
		for i, at := range ticks {
			if at < deadline || at > deadline+50 {
				t.Errorf("tick %d at %d, due %d", i, at, deadline)
			}
			deadline = at + 3000
		}
	})
}

func TestTheLeaderProposesItsLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a")
		defer l.close()
		want := fsm.DefaultLimits()
		want.MaxSessions = 17
		l.order[0].tune = func(c *Config) { c.Limits = want }
		a := l.found()
		l.until("the limits to be in force", func() bool { return a.machine.Limits() == want })
	})
}

// TestAClockThatIsWrongMovesNoTime: stamps follow the median of a majority and never go back.
func TestAClockThatIsWrongMovesNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		l.order[0].skew, l.order[1].skew = time.Hour, 0
		defer l.close()
		l.found()
		for range 4 {
			h := l.leader()
			if _, err := h.propose(publish("x")); err != nil {
				t.Fatal(err)
			}
			now := int64(h.machine.Now()) - time.Now().UnixMilli()
			if now < -100 || now > 100 {
				t.Errorf("%s stamps %d ms off", h.name, now)
			}
			l.isolate(h, true)
			time.Sleep(10 * time.Second)
			l.leader()
			l.isolate(h, false)
			time.Sleep(10 * time.Second)
		}
		for _, h := range l.order {
			h.machine.with(func(*fakeState) {
				if !slices.IsSorted(h.machine.stamps) {
					t.Errorf("%s saw time go back", h.name)
				}
			})
		}
	})
}

func TestTimeSpentSwitchedOffCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a")
		defer l.close()
		a := l.found()
		if _, err := a.propose(publish("x")); err != nil {
			t.Fatal(err)
		}
		before := a.machine.Now()
		a.crash()
		time.Sleep(time.Hour)
		a.start()
		l.leader()
		if _, err := a.propose(publish("y")); err != nil {
			t.Fatal(err)
		}
		if gone := a.machine.Now() - before; gone < 3600_000 {
			t.Errorf("only %d ms have passed", gone)
		}
	})
}

func TestShortDiskSpaceRefusesPublishesAtEveryNodeUntilThereIsSpaceAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		defer l.close()
		leader := l.found()
		follower := l.order[0]
		if follower == leader {
			follower = l.order[1]
		}
		follower.disk.SetFree(500)
		time.Sleep(2 * time.Second)
		if _, err := follower.propose(publish("x")); !errors.Is(err, ErrDiskFull) {
			t.Errorf("a node short of space took a publish: %v", err)
		}
		if _, err := leader.propose(publish("x")); err != nil {
			t.Errorf("one short disk stopped the cluster: %v", err)
		}
		follower.disk.SetFree(1 << 30)
		leader.disk.SetFree(500)
		time.Sleep(2 * time.Second)
		if _, err := follower.propose(publish("x")); !errors.Is(err, ErrDiskFull) {
			t.Errorf("a publish was taken although the leader is short of space: %v", err)
		}
		if _, err := follower.propose(&command.Release{PacketID: 1}); err != nil {
			t.Errorf("what frees space was refused: %v", err)
		}
		leader.disk.SetFree(1 << 30)
		time.Sleep(2 * time.Second)
		if _, err := follower.propose(publish("x")); err != nil {
			t.Errorf("it did not recover: %v", err)
		}
		// Below the critical mark a follower takes no entries; the others go on, and it catches up when there is space.
		follower.disk.SetFree(0)
		for i := range 20 {
			if _, err := leader.propose(publish("y/%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		follower.disk.SetFree(1 << 30)
		l.until("the follower to catch up", func() bool { return follower.has("y/19") })
		// A leader below the critical mark gives way.
		leader.disk.SetFree(0)
		next := follower
		if _, err := next.propose(&command.Release{PacketID: 2}); err != nil {
			t.Errorf("the cluster stands because of its leader's disk: %v", err)
		}
		leader.disk.SetFree(1 << 30)
		settle(t, l)
		l.until("publishes to be taken again", func() bool { return !leader.node.Status().DiskFull })
		l.noFatals()
	})
}

func TestALeaderThatShutsDownHandsOverAndIsDeadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		defer l.close()
		old := l.found()
		begin := time.Now()
		outcomes := make(chan error, 100)
		for i := range 100 {
			if err := old.node.Propose(publish("last/%d", i), func(_ fsm.Result, err error) { outcomes <- err }); err != nil {
				t.Fatal(err)
			}
		}
		if err := old.node.TransferAndShutdown(t.Context()); err != nil {
			t.Error(err)
		}
		for range 100 {
			if err := <-outcomes; err != nil {
				t.Error(err)
			}
		}
		if err := old.node.Propose(publish("late"), nil); !errors.Is(err, ErrShuttingDown) {
			t.Errorf("a closed node said %v", err)
		}
		if err := old.readIndex(); !errors.Is(err, ErrShuttingDown) {
			t.Errorf("a closed node said %v", err)
		}
		l.mu.Lock()
		old.node = nil
		l.mu.Unlock()
		next := l.leader()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("hand-over took %v", took)
		}
		if next.up(old.id) {
			t.Error("the node that left is still up in the log")
		}
	})
}

func TestARemovedServerNotices(t *testing.T) {
	for _, self := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newLan(t, "a", "b", "c")
			removed := make(chan string, 3)
			for _, h := range l.order {
				h.tune = func(c *Config) { c.Removed = func() { removed <- h.name } }
			}
			defer l.close()
			leader := l.found()
			victim := leader
			for _, h := range l.order {
				if !self && h != leader {
					victim = h
				}
			}
			time.Sleep(5 * time.Second)
			if err := leader.node.Remove(t.Context(), victim.id); err != nil {
				t.Fatal(err)
			}
			select {
			case name := <-removed:
				if name != victim.name {
					t.Errorf("%s was removed, and %s noticed", victim.name, name)
				}
			case <-time.After(time.Minute):
				t.Errorf("%s did not notice (leader: %v)", victim.name, self)
			}
		})
	}
}

func TestANonvoterAppliesServesAndIsPromoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a")
		defer l.close()
		a := l.found()
		b := l.add("b")
		b.start()
		if err := a.node.AddNonvoter(t.Context(), b.id); err != nil {
			t.Fatal(err)
		}
		l.until("the non-voter to be ready", b.node.Ready)
		if _, err := b.propose(publish("x")); err != nil {
			t.Fatal(err)
		}
		l.until("the leader to know how far it is", func() bool {
			p, ok := a.node.Progress(b.id)
			return ok && p.Applied >= a.machine.Applied()-1
		})
		if err := a.node.Promote(t.Context(), b.id); err != nil {
			t.Fatal(err)
		}
		servers, _ := b.node.Servers()
		if len(servers) != 2 || servers[1].Suffrage != raft.Voter {
			time.Sleep(time.Second)
			if servers, _ = b.node.Servers(); len(servers) != 2 || servers[1].Suffrage != raft.Voter {
				t.Errorf("servers %v", servers)
			}
		}
		if err := b.readIndex(); err != nil {
			t.Error(err)
		}
	})
}

func TestAWedgedLeaderIsFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fatal error
		cfg := Default()
		cfg.Fatal = func(err error) { fatal = err }
		cfg.Timings.Election = 1500 * time.Millisecond
		n := &Node{cfg: cfg, started: time.Now(), logger: newSilent()}
		n.noteApplyError(raft.ErrLeadershipTransferInProgress)
		time.Sleep(3 * time.Second)
		n.noteApplyError(nil)
		n.noteApplyError(raft.ErrLeadershipTransferInProgress)
		time.Sleep(4 * time.Second)
		n.noteApplyError(raft.ErrLeadershipTransferInProgress)
		if fatal != nil {
			t.Errorf("too early: %v", fatal)
		}
		time.Sleep(time.Second)
		n.noteApplyError(raft.ErrLeadershipTransferInProgress)
		if fatal == nil {
			t.Error("a leader that refuses for ever goes on")
		}
	})
}
