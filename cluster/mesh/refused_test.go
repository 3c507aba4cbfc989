package mesh_test

import (
	"sync/atomic"
	"testing"

	"quorate/cluster/mesh"
	"quorate/fsm/command"
)

// What Admit says of an old copy reaches the server that runs on it, by its code.
func TestTheCodeOfARefusalReachesWhoIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var told atomic.Int32
		a := r.start(1, func(c *mesh.Config) {
			c.Admit = func(mesh.Hello) error { return &mesh.RefusedError{Code: mesh.RefusedOldCopy, Reason: "went back"} }
		})
		b := r.start(2, func(c *mesh.Config) {
			c.OnRefused = func(peer command.NodeID, e *mesh.RefusedError) {
				if peer == idOf(1) && e.ByPeer && e.Code == mesh.RefusedOldCopy && e.Reason == "went back" {
					told.Add(1)
				}
			}
		}).knows(1)
		defer a.Close()
		defer b.Close()
		settle()
		if told.Load() == 0 || b.peer(t, 1).Up {
			t.Fatalf("told %d times, peers %+v", told.Load(), b.Peers())
		}
		if a.Stats().Refused["old_copy"] == 0 {
			t.Fatalf("refusals %v", a.Stats().Refused)
		}
	})
}
