package node

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/consensus/storage"
	"quorate/cluster/mesh"
)

// One refusal may be of a hello that was overtaken; only a peer that keeps to it is believed.
func TestOldCopyIsBelievedWhenThePeerKeepsToIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{storage: new(storage.Storage), gone: make(chan error, 1)}
		refuse := func(r *mesh.RefusedError) bool {
			n.peerRefused("p", r)
			select {
			case err := <-n.gone:
				if refused := (*storage.RefusedError)(nil); !errors.As(err, &refused) {
					t.Fatalf("ended with %v", err)
				}
				return true
			default:
				return false
			}
		}
		oldCopy := &mesh.RefusedError{Code: mesh.RefusedOldCopy, Reason: "went back", ByPeer: true}
		f := func(wait time.Duration, r *mesh.RefusedError, want bool) {
			t.Helper()
			time.Sleep(wait)
			if got := refuse(r); got != want {
				t.Fatalf("ended: %v, want %v", got, want)
			}
		}
		f(0, oldCopy, false)
		f(oldCopyAfter-time.Millisecond, oldCopy, false)
		n.verdicts.forget("p") // there was a connection
		f(time.Millisecond, oldCopy, false)
		f(oldCopyAfter, &mesh.RefusedError{Code: mesh.RefusedAdmission, ByPeer: true}, false)
		f(0, &mesh.RefusedError{Code: mesh.RefusedOldCopy}, false) // this node's own verdict about the peer
		f(0, oldCopy, true)
	})
}
