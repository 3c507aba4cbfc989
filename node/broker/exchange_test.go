package broker

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"quorate/node/listener"
	"quorate/protocol/packet"
)

// unsteady is a client with a persistent session whose connection breaks after a random number of packets, and which
// comes back to a random node.
type unsteady struct {
	t       *testing.T
	cluster *fakeCluster
	rand    *rand.Rand
	id      string
	nc      net.Conn
	r       *packet.Reader
	left    int // packets until the connection breaks
	steady  bool
}

var errBroken = errors.New("connection broke")

// connect comes back until a node takes it, and returns whether the session was there.
func (u *unsteady) connect() (present bool) {
	for range 100 {
		if u.nc != nil {
			_ = u.nc.Close()
		}
		n := u.cluster.nodes[u.rand.IntN(len(u.cluster.nodes))]
		ours, theirs := net.Pipe()
		go n.Serve(theirs, listener.Info{Listener: "test"})
		u.nc, u.r, u.left = ours, packet.NewReader(ours, 1<<20, packet.FromServer), 1+u.rand.IntN(30)
		u.r.SetVersion(packet.V5)
		c := &packet.Connect{Version: packet.V5, ClientID: u.id}
		c.Properties.HasSessionExpiry, c.Properties.SessionExpirySeconds = true, 1000
		c.Properties.ReceiveMaximum = uint16(1 + u.rand.IntN(20))
		if u.write(c) != nil {
			continue
		}
		if p, err := u.next(); err == nil {
			if ack, ok := p.(*packet.Connack); ok && ack.ReasonCode == packet.Success {
				return ack.SessionPresent
			}
		}
	}
	u.t.Fatal("no node takes the client")
	return false
}

func (u *unsteady) write(p packet.Packet) error {
	_, err := u.nc.Write(p.Append(nil, packet.V5))
	return err
}

func (u *unsteady) next() (packet.Packet, error) {
	if u.left--; u.left < 0 && !u.steady {
		_ = u.nc.Close()
		return nil, errBroken
	}
	return u.r.Next()
}

// sent is a message of the publisher that is not acknowledged to the end.
type sent struct {
	n   int
	id  uint16
	qos byte
	rec bool
}

// publisher sends messages 1 to total, alternating QoS 1 and 2, each acknowledged before it ends.
func (u *unsteady) publish(total int) {
	var open []*sent
	n := 0
	for n < total || len(open) > 0 {
		u.connect()
		for _, s := range open {
			if u.resend(s) != nil {
				break
			}
		}
		for {
			for n < total && len(open) < 8 {
				n++
				s := &sent{n: n, id: uint16(n%60000 + 1), qos: byte(1 + n%2)}
				open = append(open, s)
				if u.write(s.packet(false)) != nil {
					break
				}
			}
			p, err := u.next()
			if err != nil || n == total && len(open) == 0 {
				break
			}
			if open = u.acknowledged(open, p); n == total && len(open) == 0 {
				break
			}
		}
	}
	_ = u.nc.Close()
}

func (s *sent) packet(dup bool) *packet.Publish {
	return &packet.Publish{Topic: "x", QoS: s.qos, PacketID: s.id, Dup: dup, Payload: fmt.Appendf(nil, "%d", s.n)}
}

func (u *unsteady) resend(s *sent) error {
	if s.rec {
		return u.write(&packet.Pubrel{PacketID: s.id})
	}
	return u.write(s.packet(true))
}

func (u *unsteady) acknowledged(open []*sent, p packet.Packet) []*sent {
	for i, s := range open {
		switch p := p.(type) {
		case *packet.Puback:
			if p.PacketID == s.id {
				return append(open[:i:i], open[i+1:]...)
			}
		case *packet.Pubcomp:
			if p.PacketID == s.id {
				return append(open[:i:i], open[i+1:]...)
			}
		case *packet.Pubrec:
			if p.PacketID == s.id {
				s.rec = true
				_ = u.write(&packet.Pubrel{PacketID: s.id})
			}
		}
	}
	return open
}

// received is what the subscriber got: how often, and in which order first, by QoS.
type received struct {
	times  map[int]int
	newest [3]int
	rec    map[uint16]bool
}

// take handles one packet; it fails the test when order or exactly once is broken.
func (u *unsteady) take(got *received, p packet.Packet) {
	switch p := p.(type) {
	case *packet.Pubrel:
		delete(got.rec, p.PacketID)
		_ = u.write(&packet.Pubcomp{PacketID: p.PacketID})
	case *packet.Publish:
		var n int
		if _, err := fmt.Sscan(string(p.Payload), &n); err != nil {
			u.t.Errorf("payload %q", p.Payload)
		}
		id, qos := p.PacketID, p.QoS
		if got.times[n] == 0 && n < got.newest[qos] {
			u.t.Errorf("first delivery of %d comes after %d", n, got.newest[qos])
		}
		if qos == 1 || !got.rec[id] {
			got.times[n]++
		}
		if qos == 2 {
			got.rec[id] = true
		}
		if got.times[n] > 1 && qos == 2 {
			u.t.Errorf("QoS 2 message %d came twice", n)
		}
		got.newest[qos] = max(got.newest[qos], n)
		if qos == 2 {
			_ = u.write(&packet.Pubrec{PacketID: id})
		} else {
			_ = u.write(&packet.Puback{PacketID: id})
		}
	}
}

// Nothing acknowledged is lost, order is kept, and QoS 2 comes exactly once, over broken connections and moves between
// nodes on both sides. (P1, P3, P8)
func TestExchangesSurviveBrokenConnections(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { exchange(t, seed) })
		})
	}
}

func exchange(t *testing.T, seed uint64) {
	const total = 300
	cluster := newFakeCluster(t, 3, nil)
	cluster.delay = time.Millisecond
	defer cluster.close(t)
	client := func(id string, stream uint64) *unsteady {
		return &unsteady{t: t, cluster: cluster, id: id, rand: rand.New(rand.NewPCG(seed, stream))}
	}
	sub := client("sub", 1)
	got := &received{times: map[int]int{}, rec: map[uint16]bool{}}
	sub.connect()
	sub.left = 100
	if err := sub.write(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "x", QoS: 2}}}); err != nil {
		t.Fatal(err)
	}
	if p, err := sub.next(); err != nil || p.Type() != packet.TypeSuback {
		t.Fatalf("SUBACK: %v %v", p, err)
	}
	published := make(chan struct{})
	go func() {
		defer close(published)
		client("pub", 2).publish(total)
	}()
	for len(got.times) < total || len(got.rec) > 0 {
		p, err := sub.next()
		if err == nil {
			sub.take(got, p)
			continue
		}
		if !errors.Is(err, errBroken) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
			t.Fatal(err)
		}
		if !sub.connect() {
			t.Fatal("the session is gone")
		}
	}
	<-published
	_ = sub.nc.Close()
}
