package consensus

import (
	"github.com/hashicorp/raft"

	"quorate/cluster/consensus/storage"
)

// guardedTransport stands between Raft and its transport.
//
// It never installs the heartbeat fast path: with it a deposed leader can store an entry under the next leader's term,
// and state machines diverge (hashicorp/raft #695, open; seen in 6 of 10 rounds).
//
// It looks at what arrives before Raft does. Entries that were damaged on the way are refused before Raft deletes
// anything for their sake. And what a durable snapshot of this server holds is taken out of requests: Raft compares
// the entry before the new ones with its log, and rejects the request when the log no longer has it, although the
// snapshot proves that it is the same. The leader then goes back until it must send a snapshot, which ends at the same
// entry, and so on for ever at full speed: seen when the answer to the first entries after a snapshot was lost.
type guardedTransport struct {
	raft.Transport
	storage *storage.Storage
	rpcs    chan raft.RPC
}

func newGuardedTransport(inner raft.Transport, st *storage.Storage) *guardedTransport {
	return &guardedTransport{Transport: inner, storage: st, rpcs: make(chan raft.RPC)}
}

// SetHeartbeatHandler implements raft.Transport by doing nothing.
func (*guardedTransport) SetHeartbeatHandler(func(raft.RPC)) {}

// Consumer implements raft.Transport.
func (t *guardedTransport) Consumer() <-chan raft.RPC { return t.rpcs }

// RequestPreVote implements raft.WithPreVote.
func (t *guardedTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest,
	resp *raft.RequestPreVoteResponse,
) error {
	return t.Transport.(raft.WithPreVote).RequestPreVote(id, target, args, resp) // Start has checked it
}

// Close implements raft.WithClose.
func (t *guardedTransport) Close() error {
	if c, ok := t.Transport.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

// run hands requests on until stop.
func (t *guardedTransport) run(stop <-chan struct{}) {
	in := t.Transport.Consumer()
	for {
		var rpc raft.RPC
		select {
		case <-stop:
			return
		case rpc = <-in:
		}
		if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
			if err := checkEntries(req.Entries); err != nil {
				rpc.Respond(&raft.AppendEntriesResponse{}, err)
				continue
			}
			rpc.Command = t.verified(req)
		}
		select {
		case <-stop:
			return
		case t.rpcs <- rpc:
		}
	}
}

func checkEntries(entries []*raft.Log) error {
	for _, e := range entries {
		if err := storage.CheckEntry(e); err != nil {
			return err
		}
	}
	return nil
}

// verified returns the request without what the snapshot holds, and with no more committed than it proves.
//
// Everything up to the snapshot is committed, so a leader of this or a later term has the same there (Raft, section
// 5.4: leader completeness); one of an earlier term is rejected by Raft before the log matters. A PrevLogEntry of 0 is
// the start of the log, where everything matches.
//
// The commit index goes no further than the entries of the request, as Raft demands ("min(leaderCommit, index of last
// new entry)"). hashicorp/raft goes to the end of its log: right only as long as nothing unproven lies there.
func (t *guardedTransport) verified(req *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	snapshot := t.storage.SnapshotIndex()
	proven := req.PrevLogEntry
	if n := len(req.Entries); n > 0 {
		proven = req.Entries[n-1].Index
	}
	held := req.PrevLogEntry > 0 && req.PrevLogEntry <= snapshot
	if !held && req.LeaderCommitIndex <= proven {
		return req
	}
	out := *req // the transport may share the request with its sender
	if held {
		proven = max(proven, snapshot)
		out.PrevLogEntry, out.PrevLogTerm = 0, 0
		for len(out.Entries) > 0 && out.Entries[0].Index <= snapshot {
			out.Entries = out.Entries[1:]
		}
	}
	out.LeaderCommitIndex = min(out.LeaderCommitIndex, proven)
	return &out
}
