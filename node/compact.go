package node

import (
	"context"
	"time"

	"quorate/fsm"
)

const (
	compactPause = time.Second // between two looks for a segment worth moving
	moveMax      = 4096        // message slots in one go, so that nobody waits long for the machine
)

// victims is what a store of bodies has that wants to be compacted.
type victims interface {
	// Victim returns a test for the places in a segment that is mostly dead, or false.
	Victim() (func(fsm.BodyRef) bool, bool)
}

// compact moves the bodies out of mostly dead segments, until ctx ends.
func compact(ctx context.Context, m *fsm.Machine, store victims) {
	ticker := time.NewTicker(compactPause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		victim, ok := store.Victim()
		if !ok {
			continue
		}
		for from := uint32(0); ctx.Err() == nil; {
			if from, _ = m.MoveBodies(from, moveMax, victim); from == 0 {
				break
			}
		}
	}
}
