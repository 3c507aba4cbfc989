package node_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/consensus"
	"quorate/cluster/membership"
	"quorate/node/admin"
)

// members are the nodes that the first one shows, by name, and whether each votes.
func (b *bubble) members() (names []string, votes []bool) {
	for _, m := range b.nodes[0].Status(b.t.Context()).Nodes {
		names, votes = append(names, m.Name), append(votes, m.Voter)
	}
	return names, votes
}

// join adds a node that was told where the others are, and nothing of how many.
func (b *bubble) join() {
	b.disks = append(b.disks, consensus.NewMemoryStorage())
	b.books = append(b.books, &membership.MemoryStore{})
	b.nodes, b.dying = append(b.nodes, nil), append(b.dying, nil)
	b.start(len(b.disks) - 1)
}

// Four voters survive no more failures than three: the fourth node gets its vote when there is a fifth, and must not keep
// its clients waiting for that.
func TestAFourthNodeIsReadyWithoutAVoteUntilThereIsAFifth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3)
		defer b.close()
		b.until("three nodes are ready", 15*time.Second, b.allReady)
		b.join()
		b.until("the fourth is ready", 30*time.Second, b.allReady)
		if _, votes := b.members(); !slices.Equal(votes, []bool{true, true, true, false}) {
			t.Errorf("votes of four: %v", votes)
		}
		b.join()
		b.until("five vote", 30*time.Second, func() bool {
			_, votes := b.members()
			return b.allReady() && slices.Equal(votes, []bool{true, true, true, true, true})
		})
	})
}

// A wiped disk is a new server: it serves when it has the vote of the old one, and from then on the old one is not shown.
func TestAWipedNodeIsReadyOnceItHasTakenThePlaceOfTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3)
		defer b.close()
		b.until("three nodes are ready", 15*time.Second, b.allReady)
		old := b.nodes[2].ID()
		b.crash(2)
		b.disks[2], b.books[2] = consensus.NewMemoryStorage(), &membership.MemoryStore{}
		b.net.Restart(ip(2))
		b.start(2)
		b.until("the wiped node is ready", time.Minute, b.allReady)
		if b.nodes[2].ID() == old {
			t.Error("the wiped node has the id of the old one")
		}
		names, votes := b.members()
		if !slices.Equal(names, []string{"n1", "n2", "n3"}) || slices.Contains(votes, false) {
			t.Errorf("members %v, votes %v", names, votes)
		}
		for _, m := range b.nodes[0].Status(t.Context()).Nodes {
			if m.State == admin.StateUnreachable {
				t.Errorf("%s (%s) is shown as unreachable", m.Name, m.ID)
			}
		}
	})
}
