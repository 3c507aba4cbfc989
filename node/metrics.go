package node

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"quorate/protocol/packet"
)

// collector reads the counters of all components when Prometheus asks: nothing is counted twice, and nothing is counted
// in a place that traffic passes. Every label is bounded: QoS, packet types, Reason Codes, names of peers. Numbers of
// clients and topics are never labels.
type collector struct {
	n     *Node
	descs map[string]*prometheus.Desc
}

// metric is one name with its help and labels.
type metric struct {
	name, help string
	labels     []string
}

var _ prometheus.Collector = (*collector)(nil)

func (n *Node) buildMetrics() error {
	c := &collector{n: n, descs: map[string]*prometheus.Desc{}}
	for _, m := range metrics() {
		c.descs[m.name] = prometheus.NewDesc("quorate_"+m.name, m.help, m.labels, nil)
	}
	n.metrics = prometheus.NewRegistry()
	n.metrics.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return nil
}

func metrics() []metric {
	label := func(names ...string) []string { return names }
	return []metric{
		{"build_info", "Always 1; the version is a label.", label("version")},
		{"ready", "1 when the node can serve clients, as /readyz says.", nil},
		{"raft_leader", "1 when this node leads.", nil},
		{"leader_contact_age_seconds", "Time since the last verified contact with the leader.", nil},
		{"log_applied_index", "Index of the last log entry applied here.", nil},
		{"cluster_peer_up", "1 when there is a connection to the peer.", label("peer")},
		{"cluster_peer_queued_bytes", "Bytes that wait to be sent to the peer.", label("peer")},
		{"cluster_peer_sent_bytes_total", "Bytes sent to the peer over the mesh.", label("peer")},
		{"cluster_peer_dropped_frames_total", "Frames the queue to the peer did not take.", label("peer")},
		{"cluster_received_bytes_total", "Bytes received from all peers over the mesh.", nil},
		{"cluster_refused_connections_total", "Connections to the cluster port that were refused.", label("cause")},

		{"connections", "Clients connected and accepted.", nil},
		{"sockets", "Client connections open, accepted or not.", nil},
		{"sockets_accepted_total", "Client connections ever opened.", nil},
		{"connects_refused_total", "CONNACKs that were no success.", label("reason")},
		{"connections_ended_total", "Ends of accepted connections.", label("reason")},
		{"connections_taken_over_total", "Connections that another connection of their client replaced.", nil},
		{"connect_timeouts_total", "CONNECTs that the log did not decide in time.", nil},
		{"panics_total", "Connections ended by a bug; the log has the stack.", nil},
		{"cutoffs_total", "Times that all clients were sent away for want of a leader.", nil},
		{"packets_received_total", "Control Packets from clients.", label("type")},
		{"packets_sent_total", "Control Packets to clients.", label("type")},
		{"received_bytes_total", "Bytes from clients.", nil},
		{"sent_bytes_total", "Bytes to clients.", nil},
		{"messages_received_total", "Messages published by clients.", label("qos")},
		{"messages_sent_total", "Messages queued for clients.", label("qos")},
		{"messages_received_bytes_total", "Payloads of messages published by clients.", nil},
		{"messages_road_total", "Messages by the road they took: log, direct (QoS above 0), or direct and then log.", label("road")},
		{"messages_unmatched_total", "Messages that nobody subscribes to.", nil},
		{"messages_dropped_total", "Messages not delivered to somebody, by cause.", label("cause")},
		{"messages_refused_total", "Messages and subscriptions refused, by cause.", label("cause")},
		{"cluster_messages_sent_total", "QoS 0 messages sent to peers.", nil},
		{"cluster_messages_received_total", "QoS 0 messages received from peers.", nil},

		{"sessions", "Sessions of the cluster, as the log has them.", label("kind")},
		{"filters", "Topic Filters with persistent subscribers or routes, in the cluster.", nil},
		{"shared_groups", "Shared subscriptions, in the cluster.", nil},
		{"retained_messages", "Retained messages, in the cluster.", nil},
		{"delayed_messages", "Messages that wait for their delay, in the cluster.", nil},
		{"stored_messages", "Messages kept for somebody, in the cluster.", nil},
		{"stored_bytes", "Bytes of the messages kept for somebody, in the cluster.", nil},
		{"stored_dropped_total", "Stored messages given up, by cause, since the state began.", label("cause")},
		{"machine_work", "Pieces of work that wait in the state machine.", nil},
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s := sample{c: c, to: to}
	s.node()
	s.mesh()
	s.connections()
	s.messages()
	s.state()
}

// sample is one answer to Prometheus.
type sample struct {
	c  *collector
	to chan<- prometheus.Metric
}

func (s sample) gauge(name string, v float64, labels ...string) {
	s.to <- prometheus.MustNewConstMetric(s.c.descs[name], prometheus.GaugeValue, v, labels...)
}

func (s sample) count(name string, v uint64, labels ...string) {
	s.to <- prometheus.MustNewConstMetric(s.c.descs[name], prometheus.CounterValue, float64(v), labels...)
}

func (s sample) flag(name string, v bool, labels ...string) {
	f := 0.0
	if v {
		f = 1
	}
	s.gauge(name, f, labels...)
}

func (s sample) node() {
	n := s.c.n
	s.gauge("build_info", 1, n.opt.Version)
	s.flag("ready", n.Ready() == nil)
	s.flag("raft_leader", n.consensus.IsLeader())
	s.gauge("leader_contact_age_seconds", n.consensus.ContactAge().Seconds())
	s.gauge("log_applied_index", float64(n.machine.Applied()))
}

func (s sample) mesh() {
	m := s.c.n.mesh
	for _, p := range m.Peers() {
		// By id and not by name: for a while two servers may have one name, a wiped one and its successor.
		peer := string(p.ID)
		s.flag("cluster_peer_up", p.Up, peer)
		s.gauge("cluster_peer_queued_bytes", float64(p.QueuedBytes), peer)
		s.count("cluster_peer_sent_bytes_total", p.BytesOut, peer)
		s.count("cluster_peer_dropped_frames_total", p.Dropped, peer)
	}
	st := m.Stats()
	s.count("cluster_received_bytes_total", st.BytesIn)
	for cause, v := range st.Refused {
		s.count("cluster_refused_connections_total", v, cause)
	}
}

func (s sample) connections() {
	n := s.c.n
	b := n.broker.Metrics()
	c := &b.Client
	s.gauge("connections", float64(n.broker.Connections()))
	s.gauge("sockets", float64(c.Connections.Load()))
	s.count("sockets_accepted_total", c.Accepted.Load())
	s.byReason("connects_refused_total", c.Refused[:])
	s.byReason("connections_ended_total", c.Ended[:])
	s.count("connections_taken_over_total", b.TakenOver.Load())
	s.count("connect_timeouts_total", b.ConnectTimeouts.Load())
	s.count("panics_total", c.Panics.Load())
	s.count("cutoffs_total", b.CutOffs.Load())
	for t := packet.TypeConnect; t <= packet.TypeAuth; t++ {
		s.count("packets_received_total", c.PacketsIn[t].Load(), t.String())
		s.count("packets_sent_total", c.PacketsOut[t].Load(), t.String())
	}
	s.count("received_bytes_total", c.BytesIn.Load())
	s.count("sent_bytes_total", c.BytesOut.Load())
}

// byReason gives the Reason Codes that have occurred.
func (s sample) byReason(name string, counters []atomic.Uint64) {
	for code := range counters {
		if v := counters[code].Load(); v > 0 {
			s.count(name, v, packet.ReasonCode(code).String())
		}
	}
}

func (s sample) messages() {
	b := s.c.n.broker.Metrics()
	for qos := range b.Published {
		s.count("messages_received_total", b.Published[qos].Load(), strconv.Itoa(qos))
		s.count("messages_sent_total", b.Delivered[qos].Load(), strconv.Itoa(qos))
	}
	s.count("messages_received_bytes_total", b.PublishedBytes.Load())
	s.count("messages_road_total", b.Logged.Load(), "log")
	s.count("messages_road_total", b.Direct.Load(), "direct")
	s.count("messages_road_total", b.Reproposed.Load(), "direct_then_log")
	s.count("messages_unmatched_total", b.Unmatched.Load())
	for cause, v := range map[string]*atomic.Uint64{
		"queue_full": &b.DroppedQueue, "expired": &b.DroppedExpired, "peer_frame": &b.DroppedFrame, "overload": &b.DroppedOverload,
		"no_group_member": &b.DroppedNoMember, "slow_client": &b.Client.DroppedQoS0, "too_large": &b.Client.DroppedTooLarge,
	} {
		s.count("messages_dropped_total", v.Load(), cause)
	}
	for cause, v := range map[string]*atomic.Uint64{"access": &b.RefusedAccess, "topic": &b.RefusedTopic, "quota": &b.RefusedQuota} {
		s.count("messages_refused_total", v.Load(), cause)
	}
	s.count("cluster_messages_sent_total", b.FramesOut.Load())
	s.count("cluster_messages_received_total", b.FramesIn.Load())
}

func (s sample) state() {
	st := s.c.n.machine.Stats()
	s.gauge("sessions", float64(st.Connected), "connected")
	s.gauge("sessions", float64(st.Persisted), "persistent")
	s.gauge("sessions", float64(st.Sessions), "all")
	s.gauge("filters", float64(st.Filters))
	s.gauge("shared_groups", float64(st.Groups))
	s.gauge("retained_messages", float64(st.Retained))
	s.gauge("delayed_messages", float64(st.Delayed))
	s.gauge("stored_messages", float64(st.StoredMessages))
	s.gauge("stored_bytes", float64(st.StoredBytes))
	s.count("stored_dropped_total", st.Dropped, "quota")
	s.count("stored_dropped_total", st.Expired, "expired")
	s.gauge("machine_work", float64(st.Work))
}
