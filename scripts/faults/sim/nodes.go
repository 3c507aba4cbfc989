package sim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quorate/cluster/consensus"
	"quorate/cluster/membership"
	"quorate/node"
	"quorate/node/config"
)

// The ports of every node.
const (
	mqttPort    = "1883"
	clusterPort = "7946"
)

// box is the disk of a node, and the process that runs on it.
type box struct {
	disk    *consensus.MemoryStorage
	members membership.MemoryStore
	skew    time.Duration // of its wall clock
	log     logTail

	cur   *node.Node
	dead  *atomic.Bool   // set when the present process becomes a ghost
	ended sync.WaitGroup // processes that were killed and still unwind
}

// boot starts the process.
func (b *box) boot(c *cluster, m *member) error {
	host := c.net.Restart(m.ip)
	cfg := config.Default(m.name)
	cfg.Name, cfg.Data, cfg.Admin = m.name, "", "off"
	cfg.MQTT = []string{m.ip + ":" + mqttPort}
	cfg.Cluster = m.ip + ":" + clusterPort
	cfg.AllowAnonymous, cfg.InsecureCluster = true, true
	cfg.Expect = len(c.nodes)
	for _, o := range c.nodes {
		if o != m {
			cfg.Join = append(cfg.Join, o.ip+":"+clusterPort)
		}
	}
	dead := &atomic.Bool{}
	n, err := node.New(node.Options{
		Config:  cfg,
		Network: host,
		OpenStorage: func(opt consensus.StorageOptions) (*consensus.Storage, error) {
			opt.Fatal = func(err error) {
				if dead.CompareAndSwap(false, true) {
					c.net.Kill(m.ip)
					c.fatal(m.name, err)
				}
			}
			st, err := b.disk.Open(opt)
			if err == nil {
				haunt(st, dead)
			}
			return st, err
		},
		OpenBodies: node.MemoryBodies,
		Members:    &b.members,
		Clock: consensus.Clock{
			Wall: func() time.Time { return time.Now().Add(b.skew) },
			Boot: func() time.Duration { return time.Since(c.begin) },
		},
		Logger: slog.New(slog.NewTextHandler(&b.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
		Fatal:  func(err error) { c.fatal(m.name, err) },
	})
	if err != nil {
		return err
	}
	if err := n.Start(); err != nil {
		return err
	}
	b.cur, b.dead = n, dead
	return nil
}

// kill ends the process at once, whose network is gone already: it becomes a
// ghost, which stop waits for.
func (b *box) kill() {
	n := b.cur
	b.cur = nil
	if n == nil {
		return
	}
	b.dead.Store(true)
	b.ended.Go(func() { _ = n.Close() })
}

// endTime is how long a process may take to end. One that takes longer would
// keep its bubble, and so the test, for ever.
const endTime = 5 * time.Minute

// stop ends the process in order, and waits for the ghosts.
func (b *box) stop() {
	limit := time.AfterFunc(endTime, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("sim: a node did not end in %v; its goroutines follow\n%s", endTime, b.log.String()))
	})
	defer limit.Stop()
	if b.cur != nil {
		_ = b.cur.Close()
	}
	b.ended.Wait()
}

// ready reports whether the node serves.
func (b *box) ready() bool { return b.cur != nil && b.cur.Ready() == nil }

// digest returns the state of the node.
func (b *box) digest() (index, digest uint64) {
	if b.cur == nil {
		return 0, 0
	}
	return b.cur.Digest()
}

// leader returns the name of the leader that the node knows.
func (b *box) leader() (string, bool) {
	if b.cur == nil {
		return "", false
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // the other nodes need not be asked
	name := b.cur.Status(ctx).Leader
	return name, name != ""
}

// logTail keeps the last lines of a node's log.
type logTail struct {
	mu    sync.Mutex
	lines []string
}

// logLinesMax is how many lines a failing run shows of each node.
const logLinesMax = 40

// Write implements io.Writer.
func (t *logTail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, string(bytes.TrimSpace(p)))
	if n := len(t.lines) - logLinesMax; n > 0 {
		t.lines = t.lines[n:]
	}
	return len(p), nil
}

func (t *logTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}

// tails shows what the nodes logged last.
func (c *cluster) tails() string {
	var b strings.Builder
	for _, m := range c.nodes {
		fmt.Fprintf(&b, "--- %s\n%s\n", m.name, m.log.String())
	}
	return b.String()
}
