package node

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"quorate/node/config"
)

// Ready is nil when the node can serve clients: a leader is in contact, everything that was committed while the node was
// away is applied, and the cluster has given it a vote, or has enough voters without it. The error says what is missing.
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
	// A new server is about to get its vote; one beyond the last vote serves clients without.
	if !voter && voters < config.MaxVoters {
		return errors.New("non-voter: waiting for a vote")
	}
	return nil
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
