package membership_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"quorate/cluster/membership"
)

func TestThreeServersFoundOneClusterAndAFourthJoins(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for host := 1; host <= 3; host++ {
			r.start(host, r.disk())
		}
		r.waitConfig(10*time.Second, "[n1* n2* n3*]")
		r.waitMembers(10 * time.Second)
		d := r.disk()
		r.start(4, d)
		r.waitConfig(30*time.Second, "[n1* n2* n3* n4]")
		r.start(5, r.disk(), expect(0))
		r.waitConfig(30*time.Second, "[n1* n2* n3* n4* n5*]")
		r.start(6, r.disk(), expect(0))
		r.start(7, r.disk(), expect(0))
		r.waitConfig(30*time.Second, "[n1* n2* n3* n4* n5* n6 n7]")
		time.Sleep(time.Minute)
		if l := r.leader(); len(l.Problems()) != 0 || l.summary() != "[n1* n2* n3* n4* n5* n6 n7]" {
			t.Fatalf("%s, problems %v", l.summary(), l.Problems())
		}
		for _, s := range r.all() {
			if s.disk.cluster() != d.cluster() || d.cluster() == "" {
				t.Fatal("cluster ids differ")
			}
		}
	})
}

func TestAServerAloneFoundsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start(1, r.disk(), expect(1), seeds())
		r.waitConfig(5*time.Second, "[n1*]")
		r.start(2, r.disk(), expect(0))
		r.waitConfig(20*time.Second, "[n1* n2]")
		time.Sleep(20 * time.Second) // two voters survive no more than one
		r.waitConfig(time.Second, "[n1* n2]")
		r.start(3, r.disk(), expect(0))
		r.waitConfig(20*time.Second, "[n1* n2* n3*]")
	})
}

func TestServersFindEachOtherAgainAfterALongCut(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for host := 1; host <= 3; host++ {
			r.start(host, r.disk(), seeds(1))
		}
		r.waitConfig(10*time.Second, "[n1* n2* n3*]")
		r.waitMembers(10 * time.Second)
		for _, cut := range [][][]string{{{ipOf(1)}, {ipOf(2), ipOf(3)}}, {{ipOf(1)}, {ipOf(2)}, {ipOf(3)}}} {
			r.net.Partition(cut...)
			time.Sleep(30 * time.Minute)
			r.net.Heal()
			r.waitMembers(10 * time.Second)
			r.waitConfig(10*time.Second, "[n1* n2* n3*]")
		}
	})
}

func TestARestartedServerFindsTheClusterWithoutItsSeeds(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var last *server
		for host := 1; host <= 3; host++ {
			last = r.start(host, r.disk())
		}
		r.waitConfig(10*time.Second, "[n1* n2* n3*]")
		r.waitMembers(10 * time.Second)
		time.Sleep(time.Minute)
		last.crash()
		time.Sleep(5 * time.Minute)
		r.start(3, last.disk, seeds())
		r.waitMembers(10 * time.Second)
		r.waitConfig(5*time.Second, "[n1* n2* n3*]")
	})
}

func TestAServerThatMovesNeedsNoConfigurationChange(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var last *server
		for host := 1; host <= 3; host++ {
			last = r.start(host, r.disk())
		}
		r.waitConfig(10*time.Second, "[n1* n2* n3*]")
		_, before := consensus{r.leader()}.Servers()
		last.crash()
		moved := r.start(9, last.disk, named("n3"))
		r.waitFor(10*time.Second, "the moved server follows", func() bool {
			leader, ok := consensus{moved}.Leader()
			l := r.leader()
			return ok && l != nil && leader == l.disk.id && moved.raft.AppliedIndex() >= before
		})
		r.waitMembers(time.Minute)
		r.waitConfig(time.Second, "[n1* n2* n3*]")
	})
}

func TestAWipedServerGetsAVoteOnlyInPlaceOfItsFormerSelf(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var last *server
		for host := 1; host <= 3; host++ {
			last = r.start(host, r.disk())
		}
		r.waitConfig(10*time.Second, "[n1* n2* n3*]")
		time.Sleep(time.Minute)
		last.crash()
		fresh := r.start(3, r.disk())
		seen := make(map[string]bool)
		r.waitFor(2*time.Minute, "the wiped server is a voter", func() bool {
			l := r.leader()
			if l == nil {
				return false
			}
			servers, _ := consensus{l}.Servers()
			oldIn, freshVotes := false, false
			for _, s := range servers {
				oldIn = oldIn || string(s.ID) == string(last.disk.id)
				freshVotes = freshVotes || string(s.ID) == string(fresh.disk.id) && s.Suffrage == 0
			}
			if oldIn && freshVotes {
				t.Fatal("both the old and the new server have a vote")
			}
			seen[l.summary()] = true
			return freshVotes
		})
		if !seen["[n1* n2* n3* n3]"] {
			t.Fatalf("the new server was no non-voter first: %v", seen)
		}
		r.waitConfig(time.Second, "[n1* n2* n3*]")
	})
}

func TestNobodyIsRemovedWhenGossipCallsThemDead(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var last *server
		for host := 1; host <= 3; host++ {
			last = r.start(host, r.disk())
		}
		r.waitConfig(10*time.Second, "[n1* n2* n3*]")
		r.start(4, r.disk(), expect(0))
		r.waitConfig(20*time.Second, "[n1* n2* n3* n4]")
		last.crash()
		time.Sleep(20 * time.Minute)
		r.waitConfig(10*time.Second, "[n1* n2* n3* n4]")
	})
}

func TestASecondLiveServerOfANameIsRefusedAndToldWhatToDo(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for host := 1; host <= 3; host++ {
			r.start(host, r.disk())
		}
		r.waitConfig(10*time.Second, "[n1* n2* n3*]")
		twin := r.start(4, r.disk(), named("n2"), expect(0))
		r.waitFor(time.Minute, "the twin is refused", func() bool {
			twin.mu.Lock()
			defer twin.mu.Unlock()
			return twin.refused != nil
		})
		text := twin.refused.Error()
		if !strings.Contains(text, `"n2"`) || !strings.Contains(text, "--name") || !strings.Contains(text, addrOf(2)) || !strings.Contains(text, addrOf(4)) {
			t.Fatalf("refused with %q", text)
		}
		l := r.leader()
		if l.summary() != "[n1* n2* n3*]" || len(l.Problems()) == 0 {
			t.Fatalf("%s, problems %v", l.summary(), l.Problems())
		}
		for _, s := range r.all() {
			if s != twin && s.refused != nil {
				t.Fatalf("host %d was refused: %v", s.host, s.refused)
			}
		}
	})
}

func TestAServerLeavesAndIsNotAddedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for host := 1; host <= 5; host++ {
			r.start(host, r.disk())
		}
		r.waitConfig(time.Minute, "[n1* n2* n3* n4* n5*]")
		r.noteMembers()
		for _, s := range r.all() {
			if !(consensus{s}).IsLeader() {
				if err := s.Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
				break
			}
		}
		time.Sleep(5 * time.Minute)
		servers, _ := consensus{r.leader()}.Servers()
		if len(servers) != 4 {
			t.Fatalf("%d servers after one left", len(servers))
		}
	})
}

func TestRemoveRefusesToEndTheQuorum(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for host := 1; host <= 3; host++ {
			r.start(host, r.disk())
		}
		r.waitConfig(10*time.Second, "[n1* n2* n3*]")
		var down, up *server
		for _, s := range r.all() {
			if !(consensus{s}).IsLeader() {
				down, up = up, s
			}
		}
		if err := up.Remove(t.Context(), "nobody"); !errors.Is(err, membership.ErrNotMember) {
			t.Fatalf("remove of a stranger: %v", err)
		}
		down.crash()
		time.Sleep(20 * time.Second)
		l := r.leader()
		if err := l.Remove(t.Context(), string(up.disk.id)); !errors.Is(err, membership.ErrQuorum) {
			t.Fatalf("remove of the last other voter: %v", err)
		}
		if err := up.Remove(t.Context(), string(up.disk.id)); err == nil || !strings.Contains(err.Error(), "majority") {
			t.Fatalf("the same asked from a follower: %v", err)
		}
		name := r.nameOf(down)
		if err := up.Remove(t.Context(), name); err != nil {
			t.Fatalf("remove of the dead server %s: %v", name, err)
		}
		servers, _ := consensus{r.leader()}.Servers()
		if len(servers) != 2 {
			t.Fatalf("servers %v", servers)
		}
	})
}

func (r *rig) nameOf(s *server) string {
	for _, m := range r.leader().Members() {
		if m.ServerID == s.disk.id {
			return m.Name
		}
	}
	return ""
}

func TestTwoClustersDoNotMixWhenOneNamesTheOtherAsSeed(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start(1, r.disk(), expect(1), seeds())
		r.start(2, r.disk(), expect(1), seeds())
		time.Sleep(20 * time.Second)
		wrong := r.byHost[2]
		wrong.crash()
		r.start(2, wrong.disk, expect(1), seeds(1))
		time.Sleep(5 * time.Minute)
		for _, s := range r.all() {
			servers, _ := consensus{s}.Servers()
			if len(servers) != 1 || !(consensus{s}).IsLeader() {
				t.Fatalf("host %d: %v", s.host, servers)
			}
		}
	})
}
