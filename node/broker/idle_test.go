package broker

import (
	"fmt"
	"net"
	"runtime"
	"testing"

	"quorate/node/listener"
	"quorate/protocol/packet"
)

// BenchmarkIdleConnections says what a connected client with one subscription costs while it is idle, in the broker alone:
// the clients are bare sockets.
func BenchmarkIdleConnections(b *testing.B) {
	for b.Loop() {
		cluster := newFakeCluster(b, 1, nil)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		l := listener.New(ln, cluster.nodes[0], listener.Config{Logger: testLogger(b)})
		go func() { _ = l.Serve() }()
		const clients = 2000
		conns := make([]net.Conn, 0, clients)
		buf := make([]byte, 64)
		goroutines := runtime.NumGoroutine()
		before, stacksBefore := memory()
		for i := range clients {
			nc, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			for _, p := range []packet.Packet{connect(fmt.Sprint("c", i)), subscribe(fmt.Sprint("home/", i), 1)} {
				_, _ = nc.Write(p.Append(nil, packet.V311))
				_, _ = nc.Read(buf)
			}
			conns = append(conns, nc)
		}
		used, stacks := memory()
		used, stacks = used-before, stacks-stacksBefore
		b.ReportMetric(float64(used)/clients, "heap-B/conn")
		b.ReportMetric(float64(stacks)/clients, "stack-B/conn")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/clients, "goroutines/conn")
		for _, nc := range conns {
			_ = nc.Close()
		}
		_ = l.Close(b.Context())
		cluster.close(b)
	}
}

func memory() (heap, stacks uint64) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse, m.StackInuse
}
