// Package outage measures how long a cluster of three serves nobody after its leader, or every node, is gone. The clock
// starts with the fault and stops when QoS 1 publishes that were written after it are acknowledged through every other
// node. The publishes are retained messages, so that each has to be on the disks of a majority before its PUBACK.
package outage

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"quorate/protocol/packet"
	"quorate/scripts/acceptance/processes"
	"quorate/scripts/faults/client"
)

// Fault is how the nodes are taken away.
type Fault string

// The faults.
const (
	LeaderKilled Fault = "leader killed (SIGKILL)"
	LeaderPaused Fault = "leader paused (SIGSTOP)"
	AllKilled    Fault = "all nodes killed (SIGKILL) and started again"
)

// Faults are all of them.
func Faults() []Fault { return []Fault{LeaderKilled, LeaderPaused, AllKilled} }

// roundTime bounds one round, with the cluster's recovery after it.
const roundTime = 90 * time.Second

// Round is one measurement.
type Round struct {
	// Acked is the time until a publish through every other node was acknowledged; after AllKilled it is counted from
	// the start of the first process, as Ready is.
	Acked time.Duration
	// Ready is the time until /readyz of all nodes was 200; only after AllKilled.
	Ready time.Duration
}

// Measure plays one round on a cluster whose nodes are all ready, and leaves it so.
func Measure(ctx context.Context, c *processes.Cluster, fault Fault) (Round, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	if fault == AllKilled {
		return restart(ctx, c)
	}
	leader, err := c.Leader(ctx)
	if err != nil {
		return Round{}, err
	}
	var probes []*client.Client
	for _, n := range c.Others(leader) {
		p, err := connect(ctx, c, n)
		if err != nil {
			return Round{}, err
		}
		defer p.Drop()
		probes = append(probes, p)
	}
	began := time.Now()
	// What is published before the leader really stands still could still be acknowledged by it.
	if fault == LeaderPaused {
		err = leader.Pause(ctx)
	} else {
		leader.Kill()
	}
	if err != nil {
		return Round{}, err
	}
	err = publish(ctx, probes)
	round := Round{Acked: time.Since(began)}
	if fault == LeaderPaused {
		leader.Signal(syscall.SIGCONT)
	} else {
		err = errors.Join(err, leader.Start())
	}
	return round, errors.Join(err, processes.AwaitReady(ctx, c.Nodes()...))
}

// restart kills all nodes at once and starts them again.
func restart(ctx context.Context, c *processes.Cluster) (Round, error) {
	for _, n := range c.Nodes() {
		n.Signal(syscall.SIGKILL)
	}
	for _, n := range c.Nodes() {
		<-n.Ended()
	}
	began := time.Now()
	for _, n := range c.Nodes() {
		if err := n.Start(); err != nil {
			return Round{}, err
		}
	}
	if err := processes.AwaitReady(ctx, c.Nodes()...); err != nil {
		return Round{}, err
	}
	round := Round{Ready: time.Since(began)}
	for _, n := range c.Nodes() {
		p, err := connect(ctx, c, n)
		if err != nil {
			return Round{}, err
		}
		defer p.Drop()
		if err := publish(ctx, []*client.Client{p}); err != nil {
			return Round{}, err
		}
	}
	round.Acked = time.Since(began)
	return round, nil
}

// connect connects a publisher to one node and has a first message acknowledged.
func connect(ctx context.Context, c *processes.Cluster, n *processes.Node) (*client.Client, error) {
	p := client.New(client.Options{ID: "probe-" + n.Name, Version: packet.V5, Dial: c.Dial, CleanStart: true})
	if _, err := p.Connect(ctx, n.Name); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", n.Name, err)
	}
	return p, publish(ctx, []*client.Client{p})
}

// publish publishes one message through each client and waits for all acknowledgements.
func publish(ctx context.Context, probes []*client.Client) error {
	var sent []*client.Publication
	for _, p := range probes {
		m, err := p.Publish("probe/"+p.ID(), strconv.FormatInt(time.Now().UnixNano(), 10), 1, true)
		if err != nil {
			return fmt.Errorf("%s: %w", p.ID(), err)
		}
		sent = append(sent, m)
	}
	for i, m := range sent {
		select {
		case <-m.Done():
			if m.Err() != nil {
				return fmt.Errorf("%s: %w", probes[i].ID(), m.Err())
			}
		case <-ctx.Done():
			return fmt.Errorf("%s waits for its acknowledgement: %w", probes[i].ID(), ctx.Err())
		}
	}
	return nil
}
