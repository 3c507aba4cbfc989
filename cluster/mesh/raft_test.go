package mesh_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"quorate/cluster/mesh"
)

// counter is a state machine that counts.
type counter struct{}

func (counter) Apply(*raft.Log) any                 { return nil }
func (counter) Snapshot() (raft.FSMSnapshot, error) { return nil, raft.ErrNothingNewToSnapshot }
func (counter) Restore(io.ReadCloser) error         { return nil }

func startRaft(t *testing.T, i int, transport raft.Transport, servers []raft.Server) *raft.Raft {
	t.Helper()
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(idOf(i))
	c.Logger = hclog.NewNullLogger()
	store := raft.NewInmemStore()
	snaps := raft.NewInmemSnapshotStore()
	if err := raft.BootstrapCluster(c, store, store, snaps, transport, raft.Configuration{Servers: servers}); err != nil {
		t.Fatal(err)
	}
	r, err := raft.NewRaft(c, counter{}, store, store, snaps, transport)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRaftRunsOverTheClusterPortAndSurvivesACut(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var servers []raft.Server
		for i := 1; i <= 3; i++ {
			servers = append(servers, raft.Server{ID: raft.ServerID(idOf(i)), Address: raft.ServerAddress(idOf(i))})
		}
		var nodes []*node
		var rafts []*raft.Raft
		for i := 1; i <= 3; i++ {
			n := r.start(i).knows(1, 2, 3)
			nodes = append(nodes, n)
			rafts = append(rafts, startRaft(t, i, n.RaftTransport(), servers))
		}
		for round := range 5 {
			time.Sleep(20 * time.Second)
			leader := -1
			for i, x := range rafts {
				if x.State() == raft.Leader {
					leader = i
				}
			}
			if leader < 0 {
				t.Fatalf("round %d: no leader", round)
			}
			if err := rafts[leader].Apply([]byte("x"), time.Second).Error(); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			r.net.Isolate(ipOf(leader + 1))
			time.Sleep(20 * time.Second)
			r.net.Heal()
		}
		for i := range nodes {
			if err := rafts[i].Shutdown().Error(); err != nil {
				t.Fatal(err)
			}
			_ = nodes[i].Close()
		}
	})
}

func TestTheTransportHidesTheHeartbeatFastPathAndKeepsPreVote(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		n := r.start(1)
		defer n.Close()
		transport := n.RaftTransport()
		if _, ok := transport.(raft.WithPreVote); !ok {
			t.Fatal("no pre-vote")
		}
		if _, ok := transport.(mesh.Transport); !ok {
			t.Fatalf("transport is %T", transport)
		}
		if got := string(transport.LocalAddr()); got != fmt.Sprint(idOf(1)) {
			t.Fatalf("local address %s", got)
		}
		if err := transport.(raft.WithClose).Close(); err != nil {
			t.Fatal(err)
		}
	})
}
