package broker

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/node/listener"
	"quorate/protocol/packet"
)

// dial connects a bare client of version 5 and returns its end of the connection with a Reader.
func (n *testNode) dial(t *testing.T, c *packet.Connect) (net.Conn, *packet.Reader) {
	t.Helper()
	c.Version = packet.V5
	ours, theirs := net.Pipe()
	go n.Serve(theirs, listener.Info{Listener: "test"})
	r := packet.NewReader(ours, 1<<20, packet.FromServer)
	r.SetVersion(packet.V5)
	write(t, ours, c)
	if ack, ok := next(t, r).(*packet.Connack); !ok || ack.ReasonCode != packet.Success {
		t.Fatalf("connect: %+v", ack)
	}
	return ours, r
}

func write(t *testing.T, nc net.Conn, p packet.Packet) {
	t.Helper()
	if _, err := nc.Write(p.Append(nil, packet.V5)); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, r *packet.Reader) packet.Packet {
	t.Helper()
	p, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// SUBSCRIBE "#" over many retained messages costs a page of memory, not all of them, and the client gets them as fast as
// it reads. (RELIABILITY 4.2)
func TestRetainedMessagesArePaced(t *testing.T) {
	for _, qos := range []byte{0, 1} {
		t.Run(fmt.Sprint("qos ", qos), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { pacedRetained(t, qos) })
		})
	}
}

func pacedRetained(t *testing.T, qos byte) {
	const messages = 3000
	cluster := newFakeCluster(t, 1, nil)
	defer cluster.close(t)
	n := cluster.nodes[0]
	for i := range messages {
		c := &command.Publish{Message: command.Message{
			Topic: fmt.Sprintf("r/%05d", i), Retain: true, QoS: 1, Payload: []byte(strings.Repeat("x", 1000)),
		}}
		if err := n.Propose(c, func(fsm.Result, error) {}); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait()
	nc, r := n.dial(t, &packet.Connect{ClientID: "reader", CleanStart: true})
	defer nc.Close()
	write(t, nc, &packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "#", QoS: qos}}})
	synctest.Wait()
	var l *link
	n.links.each(func(x *link) { l = x })
	waiting := n.cfg.Client.FillBytes - l.conn.Room()
	l.mu.Lock()
	queued := l.sends().LocalWaiting()
	l.mu.Unlock()
	if waiting > 2*n.cfg.Client.FillBytes || queued > n.cfg.QueueMessagesMax {
		t.Fatalf("%d bytes and %d messages wait for a client that does not read", waiting, queued)
	}
	if p := next(t, r); p.Type() != packet.TypeSuback {
		t.Fatalf("received %v before SUBACK", p.Type())
	}
	for i := range messages {
		p, ok := next(t, r).(*packet.Publish)
		if !ok || p.Topic != fmt.Sprintf("r/%05d", i) || !p.Retain || p.QoS != qos {
			t.Fatalf("message %d: %+v", i, p)
		}
		if qos > 0 {
			id := p.PacketID
			write(t, nc, &packet.Puback{PacketID: id})
		}
	}
	synctest.Wait()
	if dropped := n.Metrics().DroppedQueue.Load(); dropped != 0 {
		t.Fatalf("%d messages were dropped", dropped)
	}
}

// Shutdown says so to every client, reports what they acknowledged, and sends their wills.
func TestShutdownLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := newFakeCluster(t, 2, nil)
		defer cluster.close(t)
		n := cluster.nodes[0]
		watch, watched := cluster.nodes[1].dial(t, &packet.Connect{ClientID: "watch", CleanStart: true})
		defer watch.Close()
		write(t, watch, &packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "will"}}})
		next(t, watched)
		c := &packet.Connect{ClientID: "c", Will: &packet.Will{Topic: "will", Payload: []byte("gone")}}
		c.Properties.HasSessionExpiry, c.Properties.SessionExpirySeconds = true, 100
		nc, r := n.dial(t, c)
		defer nc.Close()
		write(t, nc, &packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "x", QoS: 1}}})
		next(t, r)
		write(t, watch, &packet.Publish{Topic: "x", QoS: 1, PacketID: 1, Payload: []byte("1")})
		next(t, watched)
		write(t, nc, &packet.Puback{PacketID: next(t, r).(*packet.Publish).PacketID})

		done := make(chan error)
		go func() { done <- n.Shutdown(t.Context()) }()
		if d, ok := next(t, r).(*packet.Disconnect); !ok || d.ReasonCode != packet.ServerShuttingDown {
			t.Fatalf("received %+v", d)
		}
		if p, ok := next(t, watched).(*packet.Publish); !ok || string(p.Payload) != "gone" {
			t.Fatalf("received %+v instead of the will", p)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		// What was acknowledged is not sent again by another node.
		again, r := cluster.nodes[1].dial(t, c)
		defer again.Close()
		write(t, again, &packet.Pingreq{})
		if p := next(t, r); p.Type() != packet.TypePingresp {
			t.Fatalf("received %v", p.Type())
		}
	})
}

// A Receive Maximum full of messages flows on while acknowledgements are reported lazily, also when identifiers collide.
func TestManyMessagesReachAPersistentSessionInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := newFakeCluster(t, 1, nil)
		defer cluster.close(t)
		n := cluster.nodes[0]
		c := &packet.Connect{ClientID: "c"}
		c.Properties.HasSessionExpiry, c.Properties.SessionExpirySeconds = true, 100
		nc, r := n.dial(t, c)
		defer nc.Close()
		write(t, nc, &packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "x/#", QoS: 2}}})
		next(t, r)
		const messages = 5000
		for i := range messages {
			m := command.Message{Topic: "x/y", QoS: byte(1 + i%2), Payload: fmt.Appendf(nil, "%d", i)}
			if err := n.Propose(&command.Publish{Message: m}, func(fsm.Result, error) {}); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		var newest [3]int
		for got := 0; got < messages; {
			switch p := next(t, r).(type) {
			case *packet.Publish:
				var i int
				if _, err := fmt.Sscan(string(p.Payload), &i); err != nil || i < newest[p.QoS] || p.Dup {
					t.Fatalf("message %s after %d, dup %t", p.Payload, newest[p.QoS], p.Dup)
				}
				newest[p.QoS] = i
				if p.QoS == 1 {
					got++
					write(t, nc, &packet.Puback{PacketID: p.PacketID})
				} else {
					write(t, nc, &packet.Pubrec{PacketID: p.PacketID})
				}
			case *packet.Pubrel:
				got++
				write(t, nc, &packet.Pubcomp{PacketID: p.PacketID})
			}
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Fatalf("the window waited %v for lazy reports", took)
		}
		time.Sleep(2 * time.Second)
		state, _ := n.machine.Session(n.owner("c"))
		if len(state.Out2) != 0 || len(state.Done) != 0 {
			t.Fatalf("the log still holds %d unfinished and %d done messages", len(state.Out2), len(state.Done))
		}
	})
}

func (n *testNode) owner(clientID string) command.Ref {
	ref, _, _ := n.machine.Owner(clientID)
	return ref
}
