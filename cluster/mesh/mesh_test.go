package mesh_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"quorate/cluster/clustertest"
	"quorate/cluster/mesh"
	"quorate/fsm/command"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a set of meshes on one network in a bubble.
type rig struct {
	t   *testing.T
	net *clustertest.Network
}

func bubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.NewNetwork(clustertest.Options{Seed: 1})
		defer n.Close()
		f(t, &rig{t: t, net: n})
	})
}

func idOf(i int) command.NodeID  { return command.NodeID(fmt.Sprintf("server-%d", i)) }
func ipOf(i int) string          { return fmt.Sprintf("10.0.0.%d", i) }
func addrOf(i int) string        { return ipOf(i) + ":7946" }
func inCluster(id string) option { return func(c *mesh.Config) { c.ClusterID = id } }

type option func(*mesh.Config)

// node is a mesh with what it received.
type node struct {
	*mesh.Mesh
	mu     sync.Mutex
	got    []string
	events []string
}

func (n *node) frames() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.got...)
}

func (n *node) history() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fmt.Sprint(n.events)
}

func (n *node) record(event string, id command.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, event+" "+string(id))
}

// start starts server i on host i.
func (r *rig) start(i int, options ...option) *node {
	r.t.Helper()
	cfg := mesh.Default()
	cfg.Network, cfg.Listen = r.net.Host(ipOf(i)), addrOf(i)
	cfg.ServerID, cfg.Name, cfg.Incarnation = idOf(i), fmt.Sprint("n", i), func() uint64 { return 1 }
	cfg.ClusterID = "cluster-x"
	for _, o := range options {
		o(&cfg)
	}
	m, err := mesh.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	n := &node{Mesh: m}
	for _, kind := range []byte{mesh.KindPublish, mesh.KindMember} {
		m.Handle(kind, func(from command.NodeID, payload []byte) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.got = append(n.got, fmt.Sprintf("%s %d %s", from, kind, payload))
		})
	}
	m.OnUp(func(id command.NodeID) { n.record("up", id) })
	m.OnDown(func(id command.NodeID) { n.record("down", id) })
	m.Start()
	r.t.Cleanup(func() { _ = m.Close() })
	return n
}

func (n *node) knows(ids ...int) *node {
	for _, i := range ids {
		n.SetPeer(idOf(i), addrOf(i))
	}
	return n
}

func settle() { time.Sleep(time.Second); synctest.Wait() }

func (n *node) peer(t *testing.T, i int) mesh.Peer {
	t.Helper()
	for _, p := range n.Peers() {
		if p.ID == idOf(i) {
			return p
		}
	}
	t.Fatalf("no peer %d in %+v", i, n.Peers())
	return mesh.Peer{}
}

func TestFramesArriveOnceAndInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b := r.start(1).knows(2), r.start(2).knows(1)
		defer a.Close()
		defer b.Close()
		if a.Send(idOf(2), mesh.KindPublish, nil) {
			t.Fatal("sent before the connection was up")
		}
		settle()
		var want []string
		for i := range 2000 {
			payload := fmt.Sprint(i, string(bytes.Repeat([]byte{'x'}, i)))
			want = append(want, "server-1 5 "+payload)
			if !a.Send(idOf(2), mesh.KindPublish, []byte(payload)) {
				t.Fatalf("send %d refused", i)
			}
		}
		settle()
		if got := b.frames(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("got %d frames of %d", len(got), len(want))
		}
		if a.history() != "[up server-2]" || b.history() != "[up server-1]" {
			t.Fatalf("events %s, %s", a.history(), b.history())
		}
	})
}

func TestALargeFrameArrivesWholeAndATooLargeOneIsNotSent(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b := r.start(1).knows(2), r.start(2)
		defer a.Close()
		defer b.Close()
		settle()
		large := bytes.Repeat([]byte("0123456789abcdef"), mesh.PayloadBytesMax/16)
		if !a.Send(idOf(2), mesh.KindPublish, large) {
			t.Fatal("send of the largest frame refused")
		}
		if a.Send(idOf(2), mesh.KindPublish, append(large, 'x')) {
			t.Fatal("too large a frame was queued")
		}
		settle()
		a.Send(idOf(2), mesh.KindPublish, []byte("after"))
		settle()
		got := b.frames()
		if len(got) != 2 || got[0] != "server-1 5 "+string(large) || got[1] != "server-1 5 after" {
			t.Fatalf("got %d frames", len(got))
		}
	})
}

func TestACutPeerGoesDownAndComesBackAfterTheHeal(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b := r.start(1).knows(2), r.start(2).knows(1)
		defer a.Close()
		defer b.Close()
		settle()
		r.net.Cut(ipOf(1), ipOf(2)) // one direction is enough: no probe is answered on either connection
		time.Sleep(8 * time.Second)
		if a.peer(t, 2).Up || b.peer(t, 1).Up {
			t.Fatal("still up 8 s after the cut")
		}
		if a.Send(idOf(2), mesh.KindPublish, nil) {
			t.Fatal("sent to a peer that is down")
		}
		time.Sleep(10 * time.Minute)
		r.net.Heal()
		time.Sleep(5 * time.Second)
		if !a.peer(t, 2).Up || !b.peer(t, 1).Up {
			t.Fatal("not up 5 s after the heal")
		}
		if a.history() != "[up server-2 down server-2 up server-2]" {
			t.Fatalf("events %s", a.history())
		}
	})
}

func TestASlowPeerDoesNotHoldUpOthersAndItsQueueIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.start(1, func(c *mesh.Config) { c.QueueBytesMax = 1 << 20 }).knows(2, 3)
		slow, quick := r.start(2), r.start(3)
		release := make(chan struct{})
		slow.Handle(mesh.KindPublish, func(command.NodeID, []byte) { <-release })
		defer a.Close()
		defer slow.Close()
		defer quick.Close()
		defer close(release)
		settle()
		refused := 0
		for i := range 4000 {
			if !a.Send(idOf(2), mesh.KindPublish, make([]byte, 1000)) {
				refused++
			}
			if !a.Send(idOf(3), mesh.KindPublish, []byte("x")) {
				t.Fatal("the quick peer's frame was refused")
			}
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if n := len(quick.frames()); n != 4000 {
			t.Fatalf("the quick peer got %d frames", n)
		}
		p := a.peer(t, 2)
		if refused == 0 || uint64(refused) != p.Dropped || p.QueuedBytes > 1<<20 {
			t.Fatalf("refused %d, peer %+v", refused, p)
		}
		time.Sleep(20 * time.Second)
		if a.peer(t, 2).Up {
			t.Fatal("a peer that takes nothing for 20 s is still up")
		}
	})
}

func TestAMovedPeerIsFoundAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.start(1)
		a.SetPeer(idOf(2), "10.0.0.9:7946")
		defer a.Close()
		time.Sleep(time.Minute)
		b := r.start(2)
		defer b.Close()
		var heard []string
		b.OnHello(func(h mesh.Hello) { heard = append(heard, h.Name+" at "+h.Addr) })
		a.knows(2)
		time.Sleep(3 * time.Second)
		if !a.peer(t, 2).Up {
			t.Fatalf("peer %+v", a.peer(t, 2))
		}
		if fmt.Sprint(heard) != "[n1 at 10.0.0.1:7946]" {
			t.Fatalf("heard %v", heard)
		}
		a.RemovePeer(idOf(2))
		settle()
		if len(a.Peers()) != 0 || a.Send(idOf(2), mesh.KindPublish, nil) || a.history() != "[up server-2 down server-2]" {
			t.Fatalf("after removal: %v %s", a.Peers(), a.history())
		}
	})
}

func TestARestartedPeerIsReachedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b := r.start(1).knows(2), r.start(2).knows(1)
		defer a.Close()
		settle()
		for range 3 {
			r.net.PowerOff(ipOf(2))
			_ = b.Close()
			time.Sleep(30 * time.Second)
			r.net.Restart(ipOf(2))
			b = r.start(2).knows(1)
			time.Sleep(4 * time.Second)
			if !a.peer(t, 2).Up || !b.peer(t, 1).Up {
				t.Fatal("not connected 4 s after the restart")
			}
		}
		_ = b.Close()
	})
}
