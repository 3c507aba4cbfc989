package consensus

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"quorate/fsm/command"
)

// Bootstrap founds a cluster of these servers. Exactly one server may do it, once; addresses are the server ids. It
// waits until the configuration is durable here.
func (n *Node) Bootstrap(servers []raft.Server) error {
	if err := n.raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		return fmt.Errorf("bootstrap cluster: %w", err)
	}
	return nil
}

// Servers returns the latest configuration this server has, which may not be committed, and what index its log reaches.
func (n *Node) Servers() (servers []raft.Server, lastIndex uint64) {
	return n.raft.GetConfiguration().Configuration().Servers, n.raft.LastIndex()
}

// voters returns the servers whose majority decides.
func (n *Node) voters() []raft.ServerID {
	servers, _ := n.Servers()
	ids := make([]raft.ServerID, 0, len(servers))
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// AddNonvoter adds a server without a vote. It waits until that is committed; only the leader can do it.
func (n *Node) AddNonvoter(ctx context.Context, id command.NodeID) error {
	return n.change(ctx, "add non-voter", id, func(timeout time.Duration) raft.IndexFuture {
		return n.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), 0, timeout)
	})
}

// Promote gives a server a vote. It should have caught up (Progress), or the cluster waits for it.
func (n *Node) Promote(ctx context.Context, id command.NodeID) error {
	return n.change(ctx, "promote", id, func(timeout time.Duration) raft.IndexFuture {
		return n.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(id), 0, timeout)
	})
}

// Demote takes a server's vote away.
func (n *Node) Demote(ctx context.Context, id command.NodeID) error {
	return n.change(ctx, "demote", id, func(timeout time.Duration) raft.IndexFuture {
		return n.raft.DemoteVoter(raft.ServerID(id), 0, timeout)
	})
}

// Remove takes a server out of the cluster. A removed leader shuts down (Config.Removed).
func (n *Node) Remove(ctx context.Context, id command.NodeID) error {
	return n.change(ctx, "remove", id, func(timeout time.Duration) raft.IndexFuture {
		return n.raft.RemoveServer(raft.ServerID(id), 0, timeout)
	})
}

// changeTimeout bounds how long a change waits for an earlier one when the context sets no limit.
const changeTimeout = 10 * time.Second

func (n *Node) change(ctx context.Context, what string, id command.NodeID, ask func(time.Duration) raft.IndexFuture) error {
	timeout := changeTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), time.Millisecond)
	}
	gone := make(chan struct{})
	defer context.AfterFunc(ctx, func() { close(gone) })()
	if err := wait(ask(timeout), gone); err != nil {
		return fmt.Errorf("%s %s: %w", what, id, err)
	}
	return nil
}

// Progress is what the leader knows of another node.
type Progress struct {
	// Applied is the last index that the node's machine has applied.
	Applied uint64
	// ContactAge is how long ago it was last heard of by a leader that knew that it leads.
	ContactAge time.Duration
}

// Progress returns what this node, as the leader, knows of another; false when it does not lead or has not heard of it.
func (n *Node) Progress(id command.NodeID) (Progress, bool) {
	s := n.session.Load()
	if s == nil {
		return Progress{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.peers[id]
	if st == nil || st.contact.IsZero() {
		return Progress{}, false
	}
	return Progress{Applied: st.applied, ContactAge: time.Since(st.contact)}, true
}

// Status is a picture of this node for people and metrics.
type Status struct {
	// State is Raft's word: Follower, Candidate, Leader or Shutdown.
	State string
	Term  uint64
	// LastIndex is the end of the log, CommitIndex what is known to be committed, Applied what the machine has applied,
	// SnapshotIndex the newest snapshot.
	LastIndex, CommitIndex, Applied, SnapshotIndex uint64
	// PendingBytes are proposed here and not yet applied; LogBytes are the log after the newest snapshot.
	PendingBytes, LogBytes uint64
	// DiskFull says that publishes which must be stored are refused.
	DiskFull bool
}

// Status returns the picture of now. It is not a consistent cut.
func (n *Node) Status() Status {
	st := n.cfg.Storage
	pending, _ := n.window.pending()
	return Status{
		State: n.raft.State().String(), Term: n.raft.CurrentTerm(),
		LastIndex: n.raft.LastIndex(), CommitIndex: n.raft.CommitIndex(), Applied: n.cfg.Machine.Applied(),
		SnapshotIndex: st.SnapshotIndex(), PendingBytes: uint64(pending), LogBytes: st.LogBytes(st.SnapshotIndex()),
		DiskFull: n.diskFull.Load(),
	}
}
