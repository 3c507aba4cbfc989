package node

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"quorate/fsm/command"
	"quorate/node/config"
)

// Ready is nil when the node can serve clients: a leader is in contact, everything that was committed while the node was
// away is applied, and the cluster is not about to give it a vote. The error says what is missing.
// It implements admin.Node.
func (n *Node) Ready() error {
	if n.closing.Load() {
		return errClosed
	}
	inCluster, voter, voters := n.suffrage()
	if !inCluster {
		if refused := n.refused.Load(); refused != nil {
			return *refused
		}
		if n.cfg.BootstrapExpect() > 1 {
			return fmt.Errorf("no cluster yet: waiting for %d nodes to meet", n.cfg.BootstrapExpect())
		}
		return errors.New("no cluster has taken this node in yet")
	}
	if _, known := n.consensus.Leader(); !known {
		return fmt.Errorf("no leader; last contact %s ago", n.contactAge())
	}
	if n.consensus.ContactAge() > n.cfg.LeaderWait {
		return fmt.Errorf("no contact with the leader for %s", n.contactAge())
	}
	if !n.consensus.Ready() {
		return errors.New("catching up with the log")
	}
	if !voter && n.awaitsVote(voters) {
		return errors.New("non-voter: waiting for a vote")
	}
	return nil
}

// awaitsVote reports whether the leader is about to give this non-voter a vote: it takes the place of another server of
// its name, or makes the number of voters odd. One that gets a vote only together with a server that may never come
// serves clients without.
func (n *Node) awaitsVote(voters int) bool {
	servers, _ := n.consensus.Servers()
	for _, s := range servers {
		info, _ := n.machine.Node(command.NodeID(s.ID))
		if s.ID != raft.ServerID(n.self) && info.Name == n.cfg.Name {
			return true
		}
	}
	return voters%2 == 0 && voters < config.MaxVoters
}

func (n *Node) contactAge() time.Duration {
	return n.consensus.ContactAge().Round(100 * time.Millisecond)
}

// suffrage is what the Raft configuration says of this node.
func (n *Node) suffrage() (inCluster, voter bool, voters int) {
	servers, _ := n.consensus.Servers()
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			voters++
		}
		if s.ID == raft.ServerID(n.self) {
			inCluster, voter = true, s.Suffrage == raft.Voter
		}
	}
	return inCluster, voter, voters
}
