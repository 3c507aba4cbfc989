// Package processes runs clusters of real quorate processes on loopback: built from this module, started, killed,
// paused and asked over HTTP. It is what the acceptance tests and scripts/acceptance/recovery share; it checks nothing.
//
// Each cluster has a loopback address of its own, so that its ports stay free while a node is away. Its processes end
// with the one that started them, however that ends. It is for Linux.
package processes

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Build builds the program into dir and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "quorate")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "quorate/cmd/quorate").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build quorate: %w\n%s", err, out)
	}
	return binary, nil
}

// Cluster is a set of nodes that know each other. It may be used by several goroutines at once.
type Cluster struct {
	binary, dir, host string
	flags             []string

	mu    sync.Mutex
	nodes []*Node
}

// New makes a cluster without nodes in dir; flags go to every node.
func New(binary, dir string, flags ...string) *Cluster {
	// 127.0.0.1 itself is where outgoing connections take their ports from.
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	return &Cluster{binary: binary, dir: dir, host: host, flags: flags}
}

// Found starts n1 to nN, which make a cluster together, and waits until all are ready.
func (c *Cluster) Found(ctx context.Context, size int) error {
	for i := range size {
		if _, err := c.Add("n"+strconv.Itoa(i+1), "--expect", strconv.Itoa(size)); err != nil {
			return err
		}
	}
	for _, n := range c.Nodes() {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return AwaitReady(ctx, c.Nodes()...)
}

// Add prepares a node that joins those that are there when it starts.
func (c *Cluster) Add(name string, flags ...string) (*Node, error) {
	n := &Node{Name: name, cluster: c, flags: flags, data: filepath.Join(c.dir, name), log: filepath.Join(c.dir, name+".log")}
	for _, addr := range []*string{&n.MQTT, &n.port, &n.Admin} {
		var err error
		if *addr, err = freePort(c.host); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = append(c.nodes, n)
	return n, nil
}

// freePort returns an address that is free for TCP and UDP. Nobody else asks for ports of this host.
func freePort(host string) (string, error) {
	for {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return "", fmt.Errorf("find a free port: %w", err)
		}
		addr := l.Addr().String()
		p, err := net.ListenPacket("udp", addr)
		_ = l.Close()
		if err == nil {
			return addr, p.Close()
		}
	}
}

// Nodes are all nodes in the order they were added.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes)
}

// Others are all nodes but one.
func (c *Cluster) Others(than *Node) []*Node {
	var others []*Node
	for _, n := range c.Nodes() {
		if n != than {
			others = append(others, n)
		}
	}
	return others
}

// Dial connects to the MQTT listener of a node, by its name.
func (c *Cluster) Dial(ctx context.Context, name string) (net.Conn, error) {
	var d net.Dialer
	for _, n := range c.Nodes() {
		if n.Name == name {
			return d.DialContext(ctx, "tcp", n.MQTT)
		}
	}
	return nil, fmt.Errorf("no node is named %q", name)
}

// Leader is the node that all nodes that run hold for the leader, itself included; paused ones make it wait.
func (c *Cluster) Leader(ctx context.Context) (*Node, error) {
	var leader *Node
	err := Poll(ctx, func() error {
		name := ""
		for _, n := range c.Nodes() {
			if !n.Running() {
				continue
			}
			status, err := n.Status(ctx)
			switch {
			case err != nil:
				return err
			case status.Leader == "" || name != "" && status.Leader != name:
				return fmt.Errorf("%s holds %q for the leader, another node %q", n.Name, status.Leader, name)
			}
			name = status.Leader
		}
		for _, n := range c.Nodes() {
			if n.Name == name && n.Running() {
				leader = n
				return nil
			}
		}
		return fmt.Errorf("the leader %q does not run", name)
	})
	return leader, err
}

// Close kills every node that runs.
func (c *Cluster) Close() {
	for _, n := range c.Nodes() {
		n.Kill()
	}
}

// Tails are the last lines of every node's log.
func (c *Cluster) Tails(lines int) string {
	var b strings.Builder
	for _, n := range c.Nodes() {
		text, err := os.ReadFile(n.log)
		if err != nil {
			continue
		}
		list := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(&b, "--- %s\n%s\n", n.Name, strings.Join(list[max(0, len(list)-lines):], "\n"))
	}
	return b.String()
}

// pollEvery is short against everything that is waited for.
const pollEvery = 20 * time.Millisecond

// Poll calls try until it returns nil, or ctx ends; then the error holds the last one of try.
func Poll(ctx context.Context, try func() error) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// AwaitReady waits until all these nodes serve clients.
func AwaitReady(ctx context.Context, nodes ...*Node) error {
	for _, n := range nodes {
		err := Poll(ctx, func() error {
			if !n.Running() {
				return fmt.Errorf("%s has ended", n.Name)
			}
			return n.Ready(ctx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
