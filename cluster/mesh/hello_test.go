package mesh_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/mesh"
)

func TestAWrongClusterIsRefusedOnBothSides(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b := r.start(1).knows(2), r.start(2, inCluster("cluster-y")).knows(1)
		defer a.Close()
		defer b.Close()
		settle()
		for _, n := range []*node{a, b} {
			if n.Stats().Refused["cluster"] < 2 {
				t.Fatalf("refusals %v", n.Stats().Refused)
			}
		}
		if p := a.peer(t, 2); p.Up || p.LastError == "" {
			t.Fatalf("peer %+v", p)
		}
	})
}

func TestAnotherServerThanTheWantedOneIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b := r.start(1), r.start(2)
		a.SetPeer("server-gone", addrOf(2)) // a wiped disk came back at the old one's address
		defer a.Close()
		defer b.Close()
		settle()
		if n := b.Stats().Refused["server"]; n == 0 {
			t.Fatalf("refusals %v", b.Stats().Refused)
		}
		if a.Peers()[0].Up {
			t.Fatal("connected to another server than wanted")
		}
	})
}

func TestASecondProcessWithTheSameServerIDIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.start(1)
		twin := r.start(2, func(c *mesh.Config) { c.ServerID = idOf(1); c.ClusterID = "" })
		twin.SetPeer(idOf(1), addrOf(1)) // ignored: it is its own id
		twin.SetPeer(idOf(3), addrOf(1))
		defer a.Close()
		defer twin.Close()
		settle()
		if n := a.Stats().Refused["self"]; n == 0 {
			t.Fatalf("refusals %v", a.Stats().Refused)
		}
	})
}

func TestAdmitIsAskedOnBothSides(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		suspicious := func(c *mesh.Config) {
			c.Admit = func(h mesh.Hello) error {
				if h.Incarnation < 5 {
					return errors.New("start counter went back")
				}
				return nil
			}
		}
		a, b := r.start(1, suspicious).knows(2), r.start(2).knows(1)
		c := r.start(3, func(c *mesh.Config) {
			c.Incarnation = func() uint64 { return 5 }
			c.DurableIndex = func() uint64 { return 42 }
		}).knows(1)
		defer a.Close()
		defer b.Close()
		defer c.Close()
		settle()
		if a.peer(t, 2).Up || b.peer(t, 1).Up || !c.peer(t, 1).Up {
			t.Fatalf("peers %+v %+v %+v", a.Peers(), b.Peers(), c.Peers())
		}
		if a.Stats().Refused["admission"] < 2 {
			t.Fatalf("refusals %v", a.Stats().Refused)
		}
	})
}

// adopter is a server without a cluster id that adopts what allow admits.
func adopter(adopted *[]string, allow func(mesh.Hello) error) option {
	return func(c *mesh.Config) {
		c.ClusterID = ""
		c.Adopt = func(h mesh.Hello) error {
			if err := allow(h); err != nil {
				return err
			}
			*adopted = append(*adopted, h.ClusterID)
			return nil
		}
	}
}

func anyCluster(mesh.Hello) error { return nil }

func TestAFreshServerAdoptsTheClusterItIsCalledByOrCalls(t *testing.T) {
	for name, dials := range map[string][2]bool{"called": {true, false}, "calls": {false, true}, "both": {true, true}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				var adopted []string
				member, fresh := r.start(1), r.start(2, adopter(&adopted, anyCluster))
				if dials[0] {
					member.knows(2)
				}
				if dials[1] {
					fresh.knows(1)
				}
				defer member.Close()
				defer fresh.Close()
				settle()
				if fmt.Sprint(adopted) != "[cluster-x]" || fresh.ClusterID() != "cluster-x" {
					t.Fatalf("adopted %v", adopted)
				}
				if dials[0] && !member.peer(t, 2).Up || dials[1] && !fresh.peer(t, 1).Up {
					t.Fatal("not connected")
				}
				other := r.start(3, inCluster("cluster-y")).knows(2)
				defer other.Close()
				settle()
				if other.peer(t, 2).Up || len(adopted) != 1 {
					t.Fatal("a second cluster got in")
				}
			})
		})
	}
}

func TestAFreshServerMayRefuseToAdopt(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var adopted []string
		formedOnly := func(h mesh.Hello) error {
			if !h.Formed() {
				return errors.New("not formed yet")
			}
			return nil
		}
		var mu sync.Mutex
		index := uint64(1)
		durable := func(c *mesh.Config) {
			c.DurableIndex = func() uint64 { mu.Lock(); defer mu.Unlock(); return index }
		}
		founder, fresh := r.start(1, durable).knows(2), r.start(2, adopter(&adopted, formedOnly)).knows(1)
		defer founder.Close()
		defer fresh.Close()
		time.Sleep(10 * time.Second)
		if fresh.ClusterID() != "" || founder.peer(t, 2).Up {
			t.Fatal("adopted a cluster that never had a leader")
		}
		mu.Lock()
		index = 2
		mu.Unlock()
		time.Sleep(3 * time.Second)
		if fresh.ClusterID() != "cluster-x" || !founder.peer(t, 2).Up || !fresh.peer(t, 1).Up {
			t.Fatal("did not adopt a formed cluster")
		}
	})
}

func TestOnlyMembershipFramesPassBeforeThereIsACluster(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var adopted []string
		a, b := r.start(1, inCluster("")).knows(2), r.start(2, adopter(&adopted, anyCluster)).knows(1)
		defer a.Close()
		defer b.Close()
		settle()
		if a.Send(idOf(2), mesh.KindPublish, []byte("no")) || !a.Send(idOf(2), mesh.KindMember, []byte("yes")) {
			t.Fatal("wrong frames accepted")
		}
		settle()
		a.SetClusterID("cluster-x")
		settle()
		if b.ClusterID() != "cluster-x" || !a.peer(t, 2).Up || !b.peer(t, 1).Up {
			t.Fatalf("founder's id was not taken over: %q", b.ClusterID())
		}
		if !a.Send(idOf(2), mesh.KindPublish, []byte("now")) {
			t.Fatal("refused inside a cluster")
		}
		settle()
		if got := fmt.Sprint(b.frames()); got != "[server-1 12 yes server-1 5 now]" {
			t.Fatalf("frames %s", got)
		}
	})
}

func TestSilentAndGarbageConnectionsAreClosedAndHarmNobody(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.start(1, func(c *mesh.Config) { c.PendingMax = 10 })
		defer a.Close()
		client := r.net.Host("10.0.1.1")
		var silent []net.Conn
		for range 15 {
			c, err := client.Dial(t.Context(), addrOf(1))
			if err != nil {
				t.Fatal(err)
			}
			silent = append(silent, c)
		}
		start := time.Now()
		for _, c := range silent {
			if n, _ := c.Read(make([]byte, 1)); n != 0 {
				t.Fatal("answered a silent client")
			}
		}
		if took := time.Since(start); took > 6*time.Second {
			t.Fatalf("silent clients held for %v", took)
		}
		for _, garbage := range []string{"POST / HTTP/1.1\r\n\r\n", "\x16\x03\x01", "M\x01\x00\x05aaaaa", "R\x01\xff\xff", "M\x00\x00\x00", "\x10\x10"} {
			c, err := client.Dial(t.Context(), addrOf(1))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write([]byte(garbage))
			if n, _ := c.Read(make([]byte, 1)); n != 0 {
				t.Fatalf("answered %q", garbage)
			}
		}
		synctest.Wait() // a refusal is counted after its connection was closed
		refused := a.Stats().Refused
		if refused["busy"] != 5 || refused["silence"] < 10 || refused["protocol"] < 5 {
			t.Fatalf("refusals %v", refused)
		}
		b := r.start(2).knows(1)
		defer b.Close()
		settle()
		if !b.peer(t, 1).Up {
			t.Fatal("a good peer was kept out")
		}
	})
}

func TestAFrameOfFourGigabytesEndsTheConnectionOnly(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b := r.start(1), r.start(2).knows(1)
		defer a.Close()
		defer b.Close()
		settle()
		l, err := r.net.Host(ipOf(3)).Listen(":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		evil, err := mesh.DialForTest(t.Context(), r.net.Host(ipOf(3)), addrOf(1), mesh.Hello{ClusterID: "cluster-x", ServerID: idOf(3), Wanted: idOf(1)})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = evil.Write(binary.BigEndian.AppendUint32(nil, 0xffffffff))
		if _, err := evil.Read(make([]byte, 1)); err == nil {
			t.Fatal("connection survived")
		}
		if !b.peer(t, 1).Up {
			t.Fatal("another peer suffered")
		}
	})
}

func TestGossipStreamsPassThroughWithoutTheirFirstByte(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b := r.start(1), r.start(2)
		defer a.Close()
		defer b.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		out, err := b.DialGossip(ctx, addrOf(1))
		if err != nil {
			t.Fatal(err)
		}
		in, err := a.Gossip().Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = out.Write([]byte("hi"))
		buf := make([]byte, 10)
		if n, err := in.Read(buf); err != nil || string(buf[:n]) != "hi" {
			t.Fatalf("read %q, %v", buf[:n], err)
		}
	})
}
