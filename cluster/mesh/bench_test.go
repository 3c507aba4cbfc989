package mesh_test

import (
	"runtime"
	"sync/atomic"
	"testing"

	"quorate/cluster/mesh"
	"quorate/fsm/command"
)

// loopback returns two connected meshes on real sockets.
func loopback(b testing.TB) (from, to *mesh.Mesh) {
	b.Helper()
	up := make(chan command.NodeID, 1)
	open := func(id command.NodeID) *mesh.Mesh {
		cfg := mesh.Default()
		cfg.Listen, cfg.ServerID, cfg.ClusterID = "127.0.0.1:0", id, "cluster-x"
		m, err := mesh.New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = m.Close() })
		return m
	}
	from, to = open("a"), open("b")
	from.OnUp(func(id command.NodeID) { up <- id })
	from.SetPeer("b", to.Addr())
	from.Start()
	to.Start()
	<-up
	return from, to
}

func TestTwoServersMeetOverLoopback(t *testing.T) {
	from, to := loopback(t)
	got := make(chan string, 1)
	to.Handle(mesh.KindPublish, func(id command.NodeID, payload []byte) { got <- string(id) + " " + string(payload) })
	if !from.Send("b", mesh.KindPublish, []byte("hi")) {
		t.Fatal("not sent")
	}
	if s := <-got; s != "a hi" {
		t.Fatalf("got %q", s)
	}
}

func benchmarkSend(b *testing.B, size int) {
	from, to := loopback(b)
	var received atomic.Int64
	to.Handle(mesh.KindPublish, func(command.NodeID, []byte) { received.Add(1) })
	payload := make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	sent := int64(0)
	for b.Loop() {
		for !from.Send("b", mesh.KindPublish, payload) {
			runtime.Gosched() // the queue is full
		}
		sent++
	}
	for received.Load() < sent {
		runtime.Gosched()
	}
	b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "frames/s")
}

func BenchmarkSend64(b *testing.B)  { benchmarkSend(b, 64) }
func BenchmarkSend256(b *testing.B) { benchmarkSend(b, 256) }
func BenchmarkSend64K(b *testing.B) { benchmarkSend(b, 64<<10) }
