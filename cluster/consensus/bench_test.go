package consensus

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"quorate/fsm"
)

// benchCluster runs nodes on real disks and TCP loopback; frames go by queues in memory.
func benchCluster(b *testing.B, size int, tune func(*Config)) *lan {
	l := newLan(b)
	dir := b.TempDir()
	var servers []raft.Server
	for i := range size {
		h := l.add(fmt.Sprint("n", i))
		opt := StorageOptions{Name: h.name, Fatal: h.fatal}
		st, err := OpenStorage(filepath.Join(dir, h.name), opt)
		if err != nil {
			b.Fatal(err)
		}
		var addr raft.ServerAddress
		h.tune = func(c *Config) {
			tr, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, 10*time.Second, io.Discard)
			if err != nil {
				b.Fatal(err)
			}
			addr, c.Transport = tr.LocalAddr(), tr
			h.machine.quick = true
			if tune != nil {
				tune(c)
			}
		}
		h.startOn(st)
		servers = append(servers, raft.Server{ID: raft.ServerID(h.id), Address: addr})
	}
	if err := l.order[0].node.Bootstrap(servers); err != nil {
		b.Fatal(err)
	}
	leader := l.leader()
	for _, h := range l.order {
		l.until("all to be ready", h.node.Ready)
	}
	slices.SortFunc(l.order, func(x, y *host) int { // the leader first
		switch leader {
		case x:
			return -1
		case y:
			return 1
		}
		return 0
	})
	return l
}

// BenchmarkPropose measures 256 B publishes with so many outstanding at each proposing node.
func BenchmarkPropose(b *testing.B) {
	for _, c := range []struct {
		nodes, from, outstanding, entries, batches int
	}{
		{1, 1, 1, 2, 2},
		{1, 1, 64, 2, 2},
		{1, 1, 4096, 2, 2},
		{3, 1, 1, 2, 2},
		{3, 1, 64, 1, 2},
		{3, 1, 64, 2, 2},
		{3, 1, 4096, 1, 2},
		{3, 1, 4096, 2, 2},
		{3, 3, 1, 2, 2},
		{3, 3, 64, 2, 1},
		{3, 3, 64, 1, 2},
		{3, 3, 64, 2, 2},
		{3, 3, 4096, 1, 2},
		{3, 3, 4096, 2, 1},
		{3, 3, 4096, 2, 2},
	} {
		b.Run(fmt.Sprintf("nodes=%d/proposing=%d/outstanding=%d/entries=%d/batches=%d", c.nodes, c.from, c.outstanding, c.entries, c.batches), func(b *testing.B) {
			l := benchCluster(b, c.nodes, func(cfg *Config) {
				cfg.Bounds.EntriesInFlight, cfg.Bounds.BatchesInFlight = c.entries, c.batches
			})
			defer l.close()
			b.ReportAllocs()
			b.ResetTimer()
			proposeMany(b, l.order[:c.from], c.outstanding)
			b.StopTimer()
		})
	}
}

func proposeMany(b *testing.B, hosts []*host, outstanding int) {
	p := publish("plant/7/temp")
	p.Payload = make([]byte, 256)
	latencies := make([][]time.Duration, len(hosts))
	var wg sync.WaitGroup
	for i, h := range hosts {
		share := b.N / len(hosts)
		latencies[i] = make([]time.Duration, 0, share)
		wg.Go(func() {
			slots := make(chan struct{}, outstanding)
			var all sync.WaitGroup
			for range share {
				slots <- struct{}{}
				all.Add(1)
				begin := time.Now()
				err := h.node.Propose(p, func(_ fsm.Result, err error) {
					if err != nil {
						b.Error(err)
					}
					latencies[i] = append(latencies[i], time.Since(begin)) // callbacks of one node never overlap
					<-slots
					all.Done()
				})
				if err != nil {
					b.Error(err)
					all.Done()
					<-slots
				}
			}
			all.Wait()
		})
	}
	wg.Wait()
	all := slices.Concat(latencies...)
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "proposals/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
}

func BenchmarkReadIndex(b *testing.B) {
	for _, outstanding := range []int{1, 256} {
		for _, who := range []int{0, 1} {
			b.Run(fmt.Sprintf("leader=%v/outstanding=%d", who == 0, outstanding), func(b *testing.B) {
				l := benchCluster(b, 3, nil)
				defer l.close()
				h := l.order[who]
				b.ReportAllocs()
				b.ResetTimer()
				slots := make(chan struct{}, outstanding)
				var all sync.WaitGroup
				for range b.N {
					slots <- struct{}{}
					all.Add(1)
					h.node.ReadIndex(func(err error) {
						if err != nil {
							b.Error(err)
						}
						<-slots
						all.Done()
					})
				}
				all.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
			})
		}
	}
}

// BenchmarkEncodeIntoWindow is the part of Propose that runs under the lock.
func BenchmarkEncodeIntoWindow(b *testing.B) {
	w := newWindow(DefaultBounds(), 1)
	p := publish("plant/7/temp")
	p.Payload = make([]byte, 256)
	done := func(fsm.Result, error) {}
	var buf []outgoing
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.add(p, done); err != nil {
			b.Fatal(err)
		}
		if len(w.sealed) > 0 {
			buf, _ = w.take(buf[:0])
			for _, o := range buf {
				if applied, _ := w.applied(1, o.number); applied != nil {
					w.recycle(applied)
				}
			}
		}
	}
}
