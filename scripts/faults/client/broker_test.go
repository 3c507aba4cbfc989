package client

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"quorate/protocol/packet"
	"quorate/scripts/faults/check"
)

// broker is the other end of every connection, played by the test.
type broker struct {
	t       *testing.T
	version packet.Version
	conns   chan *peer
	refuse  map[string]bool // nodes that do not answer a dial
}

// peer is one connection as the broker sees it.
type peer struct {
	t       *testing.T
	version packet.Version
	node    string
	net     net.Conn
	reader  *packet.Reader
}

func newBroker(t *testing.T, v packet.Version) *broker {
	return &broker{t: t, version: v, conns: make(chan *peer, 16), refuse: map[string]bool{}}
}

func (b *broker) dial(_ context.Context, node string) (net.Conn, error) {
	if b.refuse[node] {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	b.conns <- &peer{b.t, b.version, node, ours, packet.NewReader(ours, 1<<20, packet.FromClient)}
	return theirs, nil
}

func (b *broker) options(h *check.History) Options {
	return Options{ID: "c", Version: b.version, Dial: b.dial, History: h}
}

// accept waits for the next connection, reads its CONNECT, and answers.
func (b *broker) accept(ack *packet.Connack) (*peer, packet.Connect) {
	p := <-b.conns
	connect := *expect[*packet.Connect](p)
	p.send(ack)
	return p, connect
}

// connect connects c to n1 while the test answers with ack.
func (b *broker) connect(c *Client, ack *packet.Connack) *peer {
	b.t.Helper()
	result := make(chan error, 1)
	go func() {
		_, err := c.Connect(b.t.Context(), "n1")
		result <- err
	}()
	p, _ := b.accept(ack)
	if err := <-result; err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (p *peer) send(pk packet.Packet) {
	if _, err := p.net.Write(pk.Append(nil, p.version)); err != nil {
		p.t.Errorf("broker writes %v: %v", pk.Type(), err)
	}
}

// expect reads the next packet, which must be a P.
func expect[P packet.Packet](p *peer) P {
	p.t.Helper()
	_ = p.net.SetReadDeadline(time.Now().Add(time.Minute))
	got, err := p.reader.Next()
	if err != nil {
		p.t.Fatalf("broker reads: %v", err)
	}
	want, ok := got.(P)
	if !ok {
		p.t.Fatalf("broker got %v", got.Type())
	}
	return want
}

// silent checks that nothing was sent for a while.
func (p *peer) silent() {
	p.t.Helper()
	_ = p.net.SetReadDeadline(time.Now().Add(time.Second))
	if got, err := p.reader.Next(); err == nil {
		p.t.Fatalf("broker got %v, expected nothing", got.Type())
	}
}

func accepted(present bool) *packet.Connack { return &packet.Connack{SessionPresent: present} }

// phases lists the events of one kind as "phase dup value".
func phases(h *check.History, op check.Op) []string {
	var out []string
	for _, e := range h.Events() {
		if e.Op != op {
			continue
		}
		s := string(e.Phase) + " " + e.Value
		if e.Dup {
			s += " dup"
		}
		out = append(out, s)
	}
	return out
}
