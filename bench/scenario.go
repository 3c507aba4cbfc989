package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// shape is the size of a scenario. Negative numbers in a change leave the
// scenario's own.
type shape struct {
	publishers  int
	subscribers int // of each publisher's topic
	rate        int // messages per second of all publishers; 0: closed loop
	window      int // of each publisher; in an open loop a full one delays what is due
	qos         int
	bytes       int
	persistent  bool // sessions of the subscribers
	clients     int  // connections of connect, idle and offline scenarios
}

func (s shape) changed(c shape) shape {
	set := func(to *int, v int) {
		if v >= 0 {
			*to = v
		}
	}
	set(&s.publishers, c.publishers)
	set(&s.subscribers, c.subscribers)
	set(&s.rate, c.rate)
	set(&s.window, c.window)
	set(&s.qos, c.qos)
	set(&s.bytes, c.bytes)
	set(&s.clients, c.clients)
	s.bytes = max(s.bytes, stampBytes)
	return s
}

// target is what is measured.
type target struct {
	name  string
	nodes []string // MQTT addresses
	pids  []int    // processes whose CPU and memory are counted
}

func (t target) node(i int) string { return t.nodes[i%len(t.nodes)] }

// result is what one scenario measured on one target. Numbers that do not
// apply are zero and not shown.
type result struct {
	scenario, target       string
	perSecond              float64 // delivered messages, or connections
	published, delivered   int64
	acks, deliveries       latency
	cpuPerMessage, perConn float64 // microseconds; KiB of resident memory
	lost                   int64
	note                   string
}

// String returns one line.
func (r result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-14s %-12s %9.0f/s", r.scenario, r.target, r.perSecond)
	if r.acks.count > 0 {
		fmt.Fprintf(&b, "  ack p50 %6d p99 %7d us", r.acks.p50, r.acks.p99)
	}
	if r.deliveries.count > 0 {
		fmt.Fprintf(&b, "  end to end p50 %6d p99 %7d us", r.deliveries.p50, r.deliveries.p99)
	}
	if r.cpuPerMessage > 0 {
		fmt.Fprintf(&b, "  cpu %6.1f us/msg", r.cpuPerMessage)
	}
	if r.perConn > 0 {
		fmt.Fprintf(&b, "  memory %5.1f KiB/conn", r.perConn)
	}
	if r.lost != 0 {
		fmt.Fprintf(&b, "  NOT DELIVERED %d", r.lost)
	}
	if r.note != "" {
		fmt.Fprintf(&b, "  %s", r.note)
	}
	return b.String()
}

// scenario is a kind of load.
type scenario struct {
	name, what string
	shape
	run func(ctx context.Context, t target, s shape, length time.Duration) (result, error)
}

var scenarios = []scenario{
	{"qos0", "QoS 0, open loop, one subscriber a topic", shape{publishers: 10, subscribers: 1, rate: 5000, bytes: 64}, traffic("qos0")},
	{"qos0-full", "QoS 0, closed loop without loss", shape{publishers: 10, subscribers: 1, window: 500, bytes: 256}, traffic("qos0-full")},
	{"qos1", "QoS 1, open loop, transient subscribers", shape{publishers: 10, subscribers: 1, rate: 1000, window: 64, qos: 1, bytes: 64}, traffic("qos1")},
	{"qos1-full", "QoS 1, closed loop", shape{publishers: 10, subscribers: 1, window: 32, qos: 1, bytes: 64}, traffic("qos1-full")},
	{"durable", "QoS 1, closed loop, persistent subscribers: every message is stored", shape{publishers: 10, subscribers: 1, window: 32, qos: 1, bytes: 64, persistent: true}, traffic("durable")},
	{"qos2-full", "QoS 2, closed loop, persistent subscribers", shape{publishers: 10, subscribers: 1, window: 32, qos: 2, bytes: 64, persistent: true}, traffic("qos2-full")},
	{"fanout", "QoS 0, one publisher, 200 subscribers", shape{publishers: 1, subscribers: 200, rate: 50, bytes: 64}, traffic("fanout")},
	{"fanout-100", "QoS 0, closed loop, 100 subscribers", shape{publishers: 1, subscribers: 100, window: 50, bytes: 256}, traffic("fanout-100")},
	{"fanout-1000", "QoS 0, closed loop, 1,000 subscribers", shape{publishers: 1, subscribers: 1000, window: 20, bytes: 256}, traffic("fanout-1000")},
	{"connects", "clean connections as fast as 50 clients make them", shape{publishers: 50, clients: 3000}, connects},
	{"idle", "memory of idle connections", shape{clients: 5000}, idle},
	{"offline-1", "QoS 1 to one persistent session that is away", shape{publishers: 4, window: 32, qos: 1, bytes: 64, clients: 1}, offline("offline-1")},
	{"offline-1000", "QoS 1 to 1,000 persistent sessions that are away, one filter", shape{publishers: 4, window: 32, qos: 1, bytes: 64, clients: 1000}, offline("offline-1000")},
}

func findScenario(name string) (scenario, bool) {
	for _, s := range scenarios {
		if s.name == name {
			return s, true
		}
	}
	return scenario{}, false
}
