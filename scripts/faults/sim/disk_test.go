package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"quorate/cluster/consensus/storage"
	"quorate/protocol/packet"
)

var errBroken = errors.New("input/output error")

// DESIGN: a failed fsync ends the process, and nothing is acknowledged that is
// not on the disks of a majority, whatever the step of a write that fails.
func TestNothingIsLostWhenADiskFailsAtAnyStep(t *testing.T) {
	onStage(t, func(s *stage) {
		s.subscriber("sub", packet.V5, 0, packet.Subscription{Filter: "a/#", QoS: 2})
		s.ready.Wait()
		for i := range 3 {
			s.publisher(fmt.Sprintf("pub-%d", i), packet.V5, 8, false, []byte{1, 2}, fmt.Sprintf("a/%d", i))
		}
		rng := rand.New(rand.NewPCG(4, 4))
		hit := map[storage.Step]int{}
		for _, step := range []storage.Step{
			storage.StepWriteLog, storage.StepSyncLog, storage.StepWriteMark, storage.StepWriteVote, storage.StepDeleteLog,
		} {
			for range 3 {
				if s.breakAt(step, pick(rng, s.names()), rng.IntN(20)) {
					hit[step]++
				}
			}
		}
		for _, step := range []storage.Step{storage.StepWriteLog, storage.StepSyncLog, storage.StepWriteMark} {
			if hit[step] == 0 {
				t.Errorf("step %q was never hit: the test proves nothing", step)
			}
		}
		s.drain()
		s.valid("queue", "exactly-once", "order", "session-present", "drained")
	})
}

// breakAt makes the disk of a node fail once, at the n-th time it takes the
// step, while messages are published and the leader is cut off for a while.
// It reports whether the step was taken. A node whose disk fails must end.
func (s *stage) breakAt(step storage.Step, name string, n int) bool {
	s.t.Helper()
	var times atomic.Int64
	disk := s.node(name).disk
	disk.SetHook(func(at storage.Step) error {
		if at == step && times.Add(1) == int64(n+1) {
			return errBroken
		}
		return nil
	})
	s.isolate(s.leaderOr(rand.New(rand.NewPCG(5, uint64(n)))))
	time.Sleep(4 * time.Second)
	s.mend()
	time.Sleep(2 * time.Second)
	disk.SetHook(nil)
	taken := times.Load() > int64(n)
	ended := false
	for len(s.failed) > 0 {
		if <-s.failed == name {
			ended = true
		}
	}
	if taken && !ended {
		s.t.Errorf("the disk of %s failed at step %q and the node went on", name, step)
	}
	s.crash(name)
	time.Sleep(time.Second)
	s.recover()
	return taken
}
