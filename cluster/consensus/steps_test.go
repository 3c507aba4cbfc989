package consensus

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/consensus/storage"
	"quorate/fsm"
	"quorate/fsm/command"
)

// TestALeaderMayDieBetweenAnyTwoStepsOfAProposal kills, cuts or stops the leader, as seen by a follower's proposals,
// when the frame leaves, when it arrives, and before each write of each disk; and lets frames be lost or come twice.
// Every proposal is applied once, in order, and answered.
func TestALeaderMayDieBetweenAnyTwoStepsOfAProposal(t *testing.T) {
	faults := map[string]func(l *lan, leader *host){
		"crash": func(l *lan, leader *host) { leader.crash() },
		"cut":   func(l *lan, leader *host) { l.isolate(leader, true) },
		"one-way cut": func(l *lan, leader *host) {
			for _, h := range l.order {
				if h != leader {
					l.setCut(leader, h, true)
				}
			}
		},
	}
	type moment struct {
		name string
		arm  func(l *lan, leader, origin *host, strike func())
	}
	moments := []moment{
		{"as the frame leaves", func(l *lan, leader, origin *host, strike func()) {
			l.drop = func(from, to command.NodeID, kind byte, _ []byte) bool {
				if from == origin.id && to == leader.id && kind == KindPropose {
					strike()
					return true
				}
				return false
			}
		}},
		{"as the frame arrives", func(l *lan, leader, origin *host, strike func()) {
			l.drop = func(from, to command.NodeID, kind byte, _ []byte) bool {
				if from == origin.id && to == leader.id && kind == KindPropose {
					strike()
				}
				return false
			}
		}},
	}
	for _, step := range []storage.Step{storage.StepWriteLog, storage.StepSyncLog, storage.StepWriteMark} {
		for _, who := range []string{"leader", "origin", "third"} {
			moments = append(moments, moment{fmt.Sprintf("before %s at the %s", step, who), func(l *lan, leader, origin *host, strike func()) {
				h := leader
				if who != "leader" {
					h = origin
				}
				if who == "third" {
					for _, o := range l.order {
						if o != leader && o != origin {
							h = o
						}
					}
				}
				h.disk.SetHook(func(s storage.Step) error {
					if s == step {
						strike()
					}
					return nil
				})
			}})
		}
	}
	for fault, inflict := range faults {
		for _, m := range moments {
			t.Run(fault+" "+m.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { stepFault(t, inflict, m.arm) })
			})
		}
	}
}

func stepFault(t *testing.T, inflict func(*lan, *host), arm func(l *lan, leader, origin *host, strike func())) {
	l := newLan(t, "a", "b", "c")
	l.delay = time.Millisecond
	for _, h := range l.order {
		h.disk.SetSyncDelay(time.Millisecond)
	}
	defer l.close()
	leader := l.found()
	origin := l.order[0]
	if origin == leader {
		origin = l.order[1]
	}
	if _, err := origin.propose(publish("first")); err != nil {
		t.Fatal(err)
	}
	struck := make(chan struct{}, 1)
	strike := func() {
		select {
		case struck <- struct{}{}:
		default:
		}
	}
	l.mu.Lock()
	arm(l, leader, origin, strike)
	l.mu.Unlock()
	hi := newHistory()
	for i := range 30 {
		if err := hi.propose(origin, fmt.Sprintf("%s/%d", origin.name, i)); err != nil {
			t.Fatal(err)
		}
	}
	<-struck
	l.mu.Lock()
	l.drop = nil
	l.mu.Unlock()
	for _, h := range l.order {
		h.disk.SetHook(nil)
	}
	inflict(l, leader)
	for i := range 30 {
		if err := hi.propose(origin, fmt.Sprintf("%s/later/%d", origin.name, i)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(2 * time.Second)
	healAll(l)
	settle(t, l)
	if ok, unknown := hi.check(t, origin.name, origin.machine.topics()); ok+unknown != 60 || unknown > 0 {
		t.Errorf("%d applied, %d unknown", ok, unknown)
	}
}

func TestFramesThatComeTwiceAreTakenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		defer l.close()
		leader := l.found()
		origin := l.order[0]
		if origin == leader {
			origin = l.order[1]
		}
		var frames [][]byte
		l.mu.Lock()
		l.drop = func(from, _ command.NodeID, kind byte, payload []byte) bool {
			if from == origin.id && kind == KindPropose {
				frames = append(frames, slices.Clone(payload))
			}
			return false
		}
		l.mu.Unlock()
		for i := range 5 {
			if _, err := origin.propose(publish("x/%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range slices.Backward(frames) {
			leader.node.handlePropose(origin.id, f)
		}
		if _, err := origin.propose(publish("x/5")); err != nil {
			t.Fatal(err)
		}
		if got := origin.machine.topics(); len(got) != 6 {
			t.Errorf("applied %v", got)
		}
		leader.node.handlePropose("somebody else", frames[0])
		leader.node.handlePropose(origin.id, []byte("garbage"))
		if _, err := origin.propose(publish("x/6")); err != nil {
			t.Fatal(err)
		}
	})
}

// TestEverythingIsThereAfterEveryNodeLostPower crashes all nodes at once, in the middle of writing.
func TestEverythingIsThereAfterEveryNodeLostPower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		for _, h := range l.order {
			h.disk.SetSyncDelay(3 * time.Millisecond)
		}
		defer l.close()
		l.found()
		acked := make(map[string]bool)
		for round := range 5 {
			for i := range 40 {
				for _, h := range l.order {
					topic := publish("%s/%d/%d", h.name, round, i)
					if err := h.node.Propose(topic, func(_ fsm.Result, err error) {
						if err == nil {
							l.mu.Lock()
							acked[topic.Topic] = true
							l.mu.Unlock()
						}
					}); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Millisecond)
			}
			for _, h := range l.order {
				h.crash()
			}
			for _, h := range l.order {
				h.start()
			}
			settle(t, l)
		}
		for _, h := range l.order {
			have := make(map[string]int)
			for _, topic := range h.machine.topics() {
				have[topic]++
			}
			for topic := range acked {
				if have[topic] != 1 {
					t.Errorf("%s is %d times at %s", topic, have[topic], h.name)
				}
			}
		}
		if len(acked) < 100 {
			t.Errorf("only %d were acknowledged: the test proves nothing", len(acked))
		}
	})
}

// smallLogs makes snapshots come soon and leave no log behind them.
func smallLogs(l *lan) {
	for _, h := range l.order {
		h.tune = func(c *Config) { c.Bounds.TrailingBytes = 0 }
	}
}

func (l *lan) others(not *host) (list []*host) {
	for _, h := range l.order {
		if h != not {
			list = append(list, h)
		}
	}
	return list
}

func TestANodeThatFellBehindGetsASnapshotAndThenTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		smallLogs(l)
		defer l.close()
		leader := l.found()
		behind := l.others(leader)[0]
		behind.crash()
		for i := range 50 {
			if _, err := leader.propose(publish("x/%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := leader.node.Snapshot(); err != nil {
			t.Fatal(err)
		}
		behind.start()
		if _, err := leader.propose(publish("y")); err != nil {
			t.Fatal(err)
		}
		l.until("it to catch up", func() bool { return behind.has("y") })
		if behind.node.cfg.Storage.SnapshotIndex() == 0 {
			t.Error("it got no snapshot: the test proves nothing")
		}
		behind.crash()
		behind.start()
		l.until("it to be ready after a restart", behind.node.Ready)
		settle(t, l)
		l.leader()
	})
}

// TestTheAnswerToTheFirstEntriesAfterASnapshotMayBeLost: without guardedTransport the leader then sends the snapshot
// again and again, for ever, without a pause.
func TestTheAnswerToTheFirstEntriesAfterASnapshotMayBeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		smallLogs(l)
		defer l.close()
		leader := l.found()
		behind := l.others(leader)[0]
		l.isolate(behind, true)
		for i := range 50 {
			if _, err := leader.propose(publish("x/%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := leader.node.Snapshot(); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if _, err := leader.propose(publish("y/%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		behind.disk.SetSyncDelay(400 * time.Millisecond) // longer than the transport waits
		l.isolate(behind, false)
		l.until("it to catch up", func() bool { return behind.has("y/4") })
		behind.disk.SetSyncDelay(0)
		settle(t, l)
	})
}

func TestAProposalWhoseResultASnapshotSwallowedIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		smallLogs(l)
		defer l.close()
		leader := l.found()
		origin := l.others(leader)[0]
		l.until("the node to be ready", origin.node.Ready)
		l.setCut(leader, origin, true) // its proposals arrive, nothing comes back
		outcome := make(chan error, 2)
		if err := origin.node.Propose(publish("swallowed"), func(_ fsm.Result, err error) { outcome <- err }); err != nil {
			t.Fatal(err)
		}
		l.until("the leader to apply it", func() bool { return leader.has("swallowed") })
		if err := leader.node.Snapshot(); err != nil {
			t.Fatal(err)
		}
		if err := origin.node.Propose(publish("after"), func(_ fsm.Result, err error) { outcome <- err }); err != nil {
			t.Fatal(err)
		}
		l.setCut(leader, origin, false)
		if err := <-outcome; !errors.Is(err, ErrUnknown) {
			t.Errorf("the swallowed proposal got %v", err)
		}
		if err := <-outcome; err != nil {
			t.Errorf("the one after it got %v", err)
		}
		if !origin.has("swallowed") || !origin.has("after") {
			t.Errorf("applied %v", origin.machine.topics())
		}
	})
}

func TestALargeLogIsSnapshottedAndCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a")
		l.order[0].tune = func(c *Config) {
			c.Bounds.SnapshotBytes, c.Bounds.TrailingBytes = 64<<10, 8<<10
		}
		defer l.close()
		a := l.found()
		big := publish("big")
		big.Payload = make([]byte, 1000)
		for range 200 {
			if _, err := a.propose(big); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(20 * time.Second)
		st := a.node.cfg.Storage
		if st.SnapshotIndex() == 0 || st.LogBytes(0) > 9<<10 {
			t.Errorf("snapshot at %d, %d bytes of log left", st.SnapshotIndex(), st.LogBytes(0))
		}
	})
}
