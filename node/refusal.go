package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"quorate/cluster/consensus/storage"
	"quorate/cluster/membership"
	"quorate/cluster/mesh"
	"quorate/fsm/command"
)

// oldCopyAfter is how long a peer has to call this node's data directory an old copy, without one connection in between,
// before the node believes it. One refusal alone may be of a hello that was overtaken by newer news of this node.
const oldCopyAfter = 3 * time.Second

// verdicts are the peers that refuse this node because it went back, and since when.
type verdicts struct {
	mu    sync.Mutex
	since map[command.NodeID]time.Time
}

// lasting notes a verdict and returns whether the peer has kept to it for oldCopyAfter.
func (v *verdicts) lasting(peer command.NodeID) bool {
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.since == nil {
		v.since = make(map[command.NodeID]time.Time)
	}
	first, known := v.since[peer]
	if !known {
		v.since[peer] = now
	}
	return known && now.Sub(first) >= oldCopyAfter
}

// forget is told of a connection: the peer takes this node after all.
func (v *verdicts) forget(peer command.NodeID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.since, peer)
}

// admit decides whether a peer may take part. It is mesh.Config.Admit.
func (n *Node) admit(h mesh.Hello) error {
	err := n.storage.Book.Admit(h.ServerID, h.Name, h.Addr, h.Incarnation, h.DurableIndex)
	if errors.Is(err, storage.ErrWentBack) {
		return &mesh.RefusedError{Code: mesh.RefusedOldCopy, Reason: err.Error()}
	}
	return err
}

// peerRefused ends the node when a peer has seen more of its data directory than there is now: it has forgotten what it
// acknowledged, and must not vote with anybody else either (P12).
func (n *Node) peerRefused(peer command.NodeID, r *mesh.RefusedError) {
	if !r.ByPeer || r.Code != mesh.RefusedOldCopy {
		return
	}
	if n.verdicts.lasting(peer) {
		n.end(&storage.RefusedError{Dir: n.storage.Dir(), Seen: fmt.Sprintf("server %s remembers more of it: %s", peer, r.Reason)})
	}
}

// explainMembers adds to an error of reading the members file where it is and what to do.
func (n *Node) explainMembers(err error) error {
	file, ok := n.opt.Members.(membership.FileStore)
	if !ok {
		return err
	}
	syntax, kind := (*json.SyntaxError)(nil), (*json.UnmarshalTypeError)(nil)
	if !errors.As(err, &syntax) && !errors.As(err, &kind) {
		return fmt.Errorf("%s: %w", file.Path, err)
	}
	if n.storage.Identity().ClusterID == "" { // the file may hold a promise that must not be forgotten
		return &storage.RefusedError{Dir: n.storage.Dir(), Seen: file.Path + " is damaged", Err: err}
	}
	return fmt.Errorf("%s: %w; this server is in a cluster, so run: rm %s  and start it again as before", file.Path, err, file.Path)
}
