package node

import (
	"time"

	"quorate/cluster/consensus"
	"quorate/cluster/membership"
	"quorate/fsm"
	"quorate/fsm/command"
)

// raftMembers shows consensus to membership.
type raftMembers struct {
	*consensus.Node
	self    command.NodeID
	machine *fsm.Machine
}

var _ membership.Consensus = raftMembers{}

// Progress implements membership.Consensus. A leader is always in contact with itself.
func (r raftMembers) Progress(id command.NodeID) (applied uint64, silent time.Duration, ok bool) {
	if id == r.self && r.IsLeader() {
		return r.machine.Applied(), 0, true
	}
	p, ok := r.Node.Progress(id)
	return p.Applied, p.ContactAge, ok
}
