package broker

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"quorate/node/listener"
	"quorate/protocol/packet"
)

// sink is a connection that swallows what is written and reads what the benchmark feeds it.
type sink struct {
	net.Conn
	in      *io.PipeReader
	written atomic.Int64
	writes  atomic.Int64
}

func (s *sink) Read(p []byte) (int, error) { return s.in.Read(p) }
func (s *sink) Write(p []byte) (int, error) {
	s.written.Add(int64(len(p)))
	s.writes.Add(1)
	return len(p), nil
}
func (s *sink) Close() error                     { return s.in.Close() }
func (s *sink) SetReadDeadline(time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// benchClient is a client whose packets are written by the benchmark.
type benchClient struct {
	*sink
	out *io.PipeWriter
}

func (n *testNode) benchClient(b *testing.B, packets ...packet.Packet) *benchClient {
	r, w := io.Pipe()
	c := &benchClient{&sink{in: r}, w}
	go n.Serve(c.sink, listener.Info{})
	for _, p := range packets {
		before := c.written.Load()
		if _, err := w.Write(p.Append(nil, packet.V311)); err != nil {
			b.Fatal(err)
		}
		for c.written.Load() == before {
			time.Sleep(100 * time.Microsecond)
		}
	}
	return c
}

func connect(id string) packet.Packet {
	return &packet.Connect{Version: packet.V311, ClientID: id, CleanStart: true}
}

func subscribe(filter string, qos byte) packet.Packet {
	return &packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: filter, QoS: qos}}}
}

// cpu returns the processor time that the process has used. The machine of a benchmark may be busy with other things.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPublishQoS0 is the way of a QoS 0 message from the publisher's bytes to the buffers of its subscribers and
// into a socket that costs nothing. ns/op is for one delivered message.
func BenchmarkPublishQoS0(b *testing.B) {
	for _, subscribers := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("subscribers=%d", subscribers), func(b *testing.B) {
			cluster := newFakeCluster(b, 1, nil)
			defer cluster.close(b)
			n := cluster.nodes[0]
			var subs []*benchClient
			for i := range subscribers {
				subs = append(subs, n.benchClient(b, connect(fmt.Sprint("s", i)), subscribe("bench/+", 0)))
			}
			pub := n.benchClient(b, connect("pub"))
			defer func() {
				for _, c := range append(subs, pub) {
					_ = c.out.Close()
				}
			}()
			one := (&packet.Publish{Topic: "bench/1", Payload: make([]byte, 100)}).Append(nil, packet.V311)
			const burst = 32
			var chunk []byte
			for range burst {
				chunk = append(chunk, one...)
			}
			before := n.Metrics().Delivered[0].Load()
			b.ReportAllocs()
			messages := 0
			start := cpu()
			for b.Loop() {
				if messages%burst == 0 && messages/burst%max(subscribers, 1) == 0 {
					if _, err := pub.out.Write(chunk); err != nil {
						b.Fatal(err)
					}
				}
				messages++
			}
			b.StopTimer()
			b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(n.Metrics().Delivered[0].Load()-before)/float64(b.N), "delivered/op")
		})
	}
}

// BenchmarkMatch is the matching of the live tree by many publishers at once, without what a publisher remembers.
func BenchmarkMatch(b *testing.B) {
	var t liveTree
	t.init()
	for i := range 100_000 {
		s := &sub{}
		s.opts.Store(&options{})
		filter := fmt.Sprintf("site/%d/device/%d/+", i%100, i)
		if i%10 != 0 {
			filter = fmt.Sprintf("site/%d/device/%d/temperature", i%100, i)
		}
		t.add(filter, s)
	}
	var topics []string
	for i := range 1024 {
		topics = append(topics, fmt.Sprintf("site/%d/device/%d/temperature", i*37%100, i*37))
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var dst [][]*sub
		i := 0
		for pb.Next() {
			i++
			dst = t.match(topics[i%len(topics)], dst[:0])
		}
	})
}

// BenchmarkLoopback is the whole way over TCP on the loopback interface, clients included. ns/op is for one delivered
// message.
func BenchmarkLoopback(b *testing.B) {
	for _, subscribers := range []int{1, 10, 100} {
		for _, qos := range []byte{0, 1} {
			b.Run(fmt.Sprintf("qos=%d/subscribers=%d", qos, subscribers), func(b *testing.B) { benchLoopback(b, subscribers, qos, true) })
		}
		b.Run(fmt.Sprintf("persistent/subscribers=%d", subscribers), func(b *testing.B) { benchLoopback(b, subscribers, 1, false) })
	}
}

func benchLoopback(b *testing.B, subscribers int, qos byte, clean bool) {
	cluster := newFakeCluster(b, 1, nil)
	defer cluster.close(b)
	n := cluster.nodes[0]
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	l := listener.New(ln, n, listener.Config{Logger: testLogger(b)})
	go func() { _ = l.Serve() }()
	defer func() { _ = l.Stop() }()
	dial := func(packets ...packet.Packet) net.Conn {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, 256)
		for _, p := range packets {
			_, _ = nc.Write(p.Append(nil, packet.V311))
			_, _ = nc.Read(buf)
		}
		return nc
	}
	var got atomic.Int64
	for i := range subscribers {
		nc := dial(&packet.Connect{ClientID: fmt.Sprint("s", i), CleanStart: clean}, subscribe("bench/+", qos))
		defer nc.Close()
		go count(nc, qos, &got)
	}
	pub := dial(connect("pub"))
	defer pub.Close()
	go func() { _, _ = io.Copy(io.Discard, pub) }()
	one := (&packet.Publish{Topic: "bench/1", QoS: qos, PacketID: 1, Payload: make([]byte, 100)}).Append(nil, packet.V311)
	const burst = 16
	var chunk []byte
	for range burst {
		chunk = append(chunk, one...)
	}
	sent := int64(0)
	i := 0
	start := cpu()
	b.ReportAllocs()
	for b.Loop() {
		i++
		if int64(i) <= sent {
			continue
		}
		for sent-got.Load() > int64(burst*subscribers*8) {
			time.Sleep(20 * time.Microsecond)
		}
		if _, err := pub.Write(chunk); err != nil {
			b.Fatal(err)
		}
		sent += int64(burst * subscribers)
	}
	for got.Load() < sent-int64(burst*subscribers) {
		time.Sleep(20 * time.Microsecond)
	}
	b.ReportMetric(float64(cpu()-start)/float64(got.Load()), "cpu-ns/op")
}

// count counts PUBLISHes cheaply: all have the same size.
func count(nc net.Conn, qos byte, got *atomic.Int64) {
	size := len((&packet.Publish{Topic: "bench/1", QoS: qos, PacketID: 1, Payload: make([]byte, 100)}).Append(nil, packet.V311))
	buf := make([]byte, 64<<10)
	rest := 0
	var acks []byte
	for {
		n, err := nc.Read(buf[rest:])
		if err != nil {
			return
		}
		n += rest
		acks = acks[:0]
		at := 0
		for ; n-at >= size; at += size {
			if qos == 1 {
				acks = append(acks, 0x40, 2, buf[at+11], buf[at+12])
			}
			got.Add(1)
		}
		rest = copy(buf, buf[at:n])
		if len(acks) > 0 {
			_, _ = nc.Write(acks)
		}
	}
}
