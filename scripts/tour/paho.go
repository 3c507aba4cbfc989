package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"
	"github.com/eclipse/paho.golang/paho/session/state"
)

const sessionExpirySeconds = 3600

// open connects a paho client with the session state sess to one node.
func open(ctx context.Context, node, id string, clean bool, conf paho.ClientConfig) (*paho.Client, *paho.Connack, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", node)
	if err != nil {
		return nil, nil, err
	}
	conf.Conn = conn
	conf.PacketTimeout = 2 * time.Minute // a publish waits for its acknowledgement over connections
	c := paho.NewClient(conf)
	expiry := uint32(sessionExpirySeconds)
	ack, err := c.Connect(ctx, &paho.Connect{
		ClientID:   id,
		CleanStart: clean,
		KeepAlive:  10,
		Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", node, err)
	}
	return c, ack, nil
}

// subscribe makes a new persistent session that subscribes to every line, and
// leaves it.
func subscribe(ctx context.Context, s settings) error {
	c, _, err := open(ctx, s.nodes[0], s.id, true, paho.ClientConfig{})
	if err != nil {
		return err
	}
	filter := "line/#"
	if _, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 2}}}); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	if err := c.Disconnect(&paho.Disconnect{}); err != nil {
		return err
	}
	fmt.Printf("%s subscribed to %s on %s and left\n", s.id, filter, s.nodes[0])
	return nil
}

// publisher is a persistent session that is always connected to some node.
type publisher struct {
	s       settings
	session *state.State

	mu  sync.Mutex
	cur *paho.Client
	up  chan struct{} // closed when cur is set
}

// stay keeps the publisher connected until ctx ends.
func (p *publisher) stay(ctx context.Context) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		node := p.s.nodes[attempt%len(p.s.nodes)]
		c, ack, err := open(ctx, node, p.s.id, false, paho.ClientConfig{Session: p.session})
		if err != nil {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		fmt.Printf("%s is connected to %s, session present %v\n", p.s.id, node, ack.SessionPresent)
		p.mu.Lock()
		p.cur = c
		close(p.up)
		p.mu.Unlock()
		select {
		case <-c.Done():
		case <-ctx.Done():
			_ = c.Disconnect(&paho.Disconnect{})
		}
		p.mu.Lock()
		p.cur, p.up = nil, make(chan struct{})
		p.mu.Unlock()
	}
}

// send publishes one message and waits for its end. Only a publish that was
// provably not sent is tried again here; the session resends the others.
func (p *publisher) send(ctx context.Context, m *paho.Publish) error {
	for {
		p.mu.Lock()
		c, up := p.cur, p.up
		p.mu.Unlock()
		if c == nil {
			select {
			case <-up:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		_, err := c.PublishWithOptions(ctx, m, paho.PublishOptions{})
		if !errors.Is(err, session.ErrNoConnection) {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// publish sends count messages of QoS 1 and as many of QoS 2, each topic in
// order, and writes one line for each: its outcome, QoS, topic and number.
func publish(ctx context.Context, s settings) error {
	out, err := os.Create(s.acked)
	if err != nil {
		return err
	}
	defer out.Close()
	p := &publisher{s: s, session: state.NewInMemory(), up: make(chan struct{})}
	stayCtx, leave := context.WithCancel(ctx)
	var stay, workers sync.WaitGroup
	stay.Go(func() { p.stay(stayCtx) })

	var mu sync.Mutex
	lines := bufio.NewWriter(out)
	var acked, unknown atomic.Int64
	half := make(chan error, 1)
	start := time.Now()
	done := func(qos byte, topic string, n int, err error) {
		outcome := "acked"
		if err != nil {
			outcome = "unknown"
			unknown.Add(1)
		} else if acked.Add(1) == int64(s.count) { // of two times count
			go func() { half <- runHalf(ctx, s.half) }()
		}
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(lines, outcome, qos, topic, n)
	}
	for qos := byte(1); qos <= 2; qos++ {
		for t := range s.topics {
			workers.Go(func() {
				topic := fmt.Sprintf("line/%d/%d", qos, t)
				for n := t; n < s.count; n += s.topics {
					done(qos, topic, n, p.send(ctx, &paho.Publish{Topic: topic, QoS: qos, Payload: fmt.Append(nil, n)}))
				}
			})
		}
	}
	workers.Wait()
	leave()
	stay.Wait()
	fmt.Printf("%d of %d messages acknowledged, %d unknown, in %v\n", acked.Load(), 2*s.count, unknown.Load(), time.Since(start).Round(time.Millisecond))
	if err := lines.Flush(); err != nil {
		return err
	}
	if acked.Load() < int64(s.count) {
		return errors.New("not even half was acknowledged")
	}
	return <-half
}

func runHalf(ctx context.Context, command string) error {
	if command == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, "bash", "-c", command)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("half-way command: %w", err)
	}
	return nil
}

// receive comes back to the session that subscribe made, receives until
// everything acknowledged is there, and gives the verdict.
func receive(ctx context.Context, s settings) error {
	want, err := readOutcomes(s.acked)
	if err != nil {
		return err
	}
	got := newInbox(want)
	conf := paho.ClientConfig{OnPublishReceived: []func(paho.PublishReceived) (bool, error){
		func(r paho.PublishReceived) (bool, error) {
			got.add(r.Packet.Topic, string(r.Packet.Payload), r.Packet.QoS, r.Packet.Duplicate())
			return true, nil
		},
	}}
	c, ack, err := open(ctx, s.nodes[0], s.id, false, conf)
	if err != nil {
		return err
	}
	fmt.Printf("%s is back on %s, session present %v\n", s.id, s.nodes[0], ack.SessionPresent)
	if !ack.SessionPresent {
		return errors.New("the session is lost")
	}
	select {
	case <-got.complete:
	case <-ctx.Done():
	case <-c.Done():
	}
	// What comes now comes twice, or was not acknowledged.
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
	}
	_ = c.Disconnect(&paho.Disconnect{})
	return got.verdict()
}

func readOutcomes(name string) (map[string]bool, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	want := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 4 {
			return nil, fmt.Errorf("%s: bad line %q", name, line)
		}
		want[f[2]+" "+f[3]] = f[0] == "acked"
	}
	return want, nil
}
