//go:build linux

package hostile

import (
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"quorate/protocol/packet"
)

// goodClients are a persistent subscriber and a publisher of QoS 1 that go on for as long as a node is ill-treated.
type goodClients struct {
	t       *testing.T
	sub     *wire
	pub     *wire
	acked   atomic.Int64 // PUBACKs of success, in order
	arrived atomic.Int64 // messages at the subscriber, in order
	slowest atomic.Int64 // nanoseconds between a PUBLISH and its PUBACK
	stop    chan struct{}
	done    chan string // why the publisher ended, "" when it was told to
	ended   chan string // likewise the subscriber
}

// goodTopic is theirs.
const goodTopic = "good/clients"

// startGood connects the subscriber to one node and the publisher to another, or the same.
func startGood(t *testing.T, subNode, pubNode *node) *goodClients {
	t.Helper()
	g := &goodClients{t: t, stop: make(chan struct{}), done: make(chan string, 1), ended: make(chan string, 1)}
	g.sub = dial(t, subNode, packet.V5)
	g.sub.send(&packet.Connect{Version: packet.V5, CleanStart: true, ClientID: "good-sub", Properties: packet.Properties{HasSessionExpiry: true, SessionExpirySeconds: 300}})
	g.sub.readAck(packet.TypeConnack)
	g.sub.write(subscribe(packet.V5, goodTopic, 1))
	if code := g.sub.readAck(packet.TypeSuback); code != 1 {
		t.Fatalf("SUBACK %v", code)
	}
	g.pub = login(t, pubNode, packet.V5, "good-pub")
	go func() { g.ended <- g.receive() }()
	go func() { g.done <- g.publish() }()
	return g
}

// publish sends one message after the other.
func (g *goodClients) publish() string {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := int64(0); ; i++ {
		select {
		case <-g.stop:
			return ""
		case <-tick.C:
		}
		began := time.Now()
		g.pub.write(publish(packet.V5, 2, goodTopic, uint16(i%60_000)+1, strconv.FormatInt(i, 10)))
		p, err := g.pub.next()
		if err != nil {
			return "publisher: " + err.Error()
		}
		if ack, ok := p.(*packet.Puback); !ok || ack.ReasonCode.Failed() {
			return "publisher got " + describe(p)
		}
		g.acked.Add(1)
		if took := int64(time.Since(began)); took > g.slowest.Load() {
			g.slowest.Store(took)
		}
	}
}

// receive takes every message and acknowledges it.
func (g *goodClients) receive() string {
	for {
		p, err := g.sub.next()
		if err != nil {
			return "subscriber: " + err.Error()
		}
		m, ok := p.(*packet.Publish)
		if !ok {
			return "subscriber got " + describe(p)
		}
		if want := strconv.FormatInt(g.arrived.Load(), 10); string(m.Payload) != want {
			return "subscriber got message " + string(m.Payload) + " in place of " + want
		}
		g.sub.send(&packet.Puback{PacketID: m.PacketID})
		g.arrived.Add(1)
	}
}

// more waits until count more messages were acknowledged and arrived.
func (g *goodClients) more(count int64) {
	g.t.Helper()
	want := g.acked.Load() + count
	eventually(g.t, "acknowledgements and messages of the good clients", func() bool {
		select {
		case why := <-g.done:
			g.t.Fatal(why)
		case why := <-g.ended:
			g.t.Fatal(why)
		default:
		}
		return g.acked.Load() >= want && g.arrived.Load() >= want
	})
}

// finish ends the publisher and checks that every message arrived once, in order, and none waited long.
func (g *goodClients) finish(slowestMax time.Duration) {
	g.t.Helper()
	close(g.stop)
	if why := <-g.done; why != "" {
		g.t.Fatal(why)
	}
	eventually(g.t, "the last message of the good publisher", func() bool { return g.arrived.Load() == g.acked.Load() })
	if slowest := time.Duration(g.slowest.Load()); slowest > slowestMax {
		g.t.Errorf("a good PUBLISH waited %v for its PUBACK", slowest)
	}
	_ = g.sub.nc.Close()
	<-g.ended
}
