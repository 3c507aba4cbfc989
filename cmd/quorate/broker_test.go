package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/protocol/packet"
)

// patience bounds every wait of these tests; none of them gets near it.
const patience = 20 * time.Second

// scripted is a broker that plays one side of a conversation and checks the other.
type scripted struct {
	t       *testing.T
	ln      net.Listener
	version packet.Version
	conn    net.Conn
	reader  *packet.Reader
}

// step is one line of the conversation.
type step func(s *scripted) error

// play starts a broker that plays the steps. The port is for the client; finish waits for the last step.
func play(t *testing.T, version packet.Version, steps ...step) (port string, finish func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{t: t, ln: ln, version: version}
	var playing sync.WaitGroup
	playing.Go(func() {
		defer ln.Close()
		for i, st := range steps {
			if err := st(s); err != nil {
				t.Errorf("step %d: %v", i+1, err)
				break
			}
		}
		if s.conn != nil {
			_ = s.conn.Close()
		}
	})
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port, playing.Wait
}

// accept takes the next connection.
func accept(s *scripted) error {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	_ = s.ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	conn, err := s.ln.Accept()
	if err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	s.conn, s.reader = conn, packet.NewReader(conn, 1<<20, packet.FromClient)
	return nil
}

// want reads one packet and compares how it shows.
func want(text string) step {
	return func(s *scripted) error {
		p, err := s.reader.Next()
		if err != nil {
			return fmt.Errorf("want %s: %w", text, err)
		}
		if got := show(p, s.version); got != text {
			return fmt.Errorf("got  %s\nwant %s", got, text)
		}
		return nil
	}
}

// wantEnd waits for the client to close.
func wantEnd(s *scripted) error {
	if p, err := s.reader.Next(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("want the end of the connection, got %v, %v", p, err)
	}
	return nil
}

// send sends packets, in one write so that the client has them all at once.
func send(packets ...packet.Packet) step {
	return func(s *scripted) error {
		var b []byte
		for _, p := range packets {
			b = p.Append(b, s.version)
		}
		_, err := s.conn.Write(b)
		return err
	}
}

// hangUp closes without a word.
func hangUp(s *scripted) error { return s.conn.Close() }

// hello is the usual beginning: CONNECT as it should show, and a plain CONNACK.
func hello(connect string) step {
	return func(s *scripted) error {
		return errors.Join(accept(s), want(connect)(s), send(&packet.Connack{})(s))
	}
}

// show is a packet on one line, with everything that tests look at.
func show(p packet.Packet, v packet.Version) string {
	switch p := p.(type) {
	case *packet.Connect:
		var b strings.Builder
		fmt.Fprintf(&b, "CONNECT v=%s id=%q clean=%d keepalive=%d", p.Version, p.ClientID, b2i(p.CleanStart), p.KeepAlive)
		if p.HasUsername {
			fmt.Fprintf(&b, " user=%q", p.Username)
		}
		if p.HasPassword {
			fmt.Fprintf(&b, " password=%q", p.Password)
		}
		if w := p.Will; w != nil {
			fmt.Fprintf(&b, " will=%q:%q,q%d,r%d,delay%d", w.Topic, w.Payload, w.QoS, b2i(w.Retain), w.DelaySeconds)
		}
		if p.Properties.HasSessionExpiry {
			fmt.Fprintf(&b, " expiry=%d", p.Properties.SessionExpirySeconds)
		}
		if p.Properties.ReceiveMaximum != 0 {
			fmt.Fprintf(&b, " receive-maximum=%d", p.Properties.ReceiveMaximum)
		}
		return b.String()
	case *packet.Publish:
		s := describe(p, v) + fmt.Sprintf(" %q", p.Payload)
		if p.HasExpiry {
			s += fmt.Sprintf(" expiry=%d", p.ExpirySeconds)
		}
		if f, err := packet.ParseForwarded(p.Forwarded); err == nil {
			for _, u := range f.UserProperties {
				s += fmt.Sprintf(" %s:%s", u.Name, u.Value)
			}
		}
		return s
	case *packet.Subscribe:
		s := strings.TrimSuffix(describe(p, v), "\n")
		if p.SubscriptionID != 0 {
			s += fmt.Sprintf(" id=%d", p.SubscriptionID)
		}
		return s
	case *packet.Disconnect:
		if p.Properties.HasSessionExpiry {
			return fmt.Sprintf("DISCONNECT expiry=%d", p.Properties.SessionExpirySeconds)
		}
	}
	return strings.TrimSuffix(describe(p, v), "\n")
}

// outcome is what a command leaves behind.
type outcome struct {
	code     int
	out, err string
}

// invoke runs a command as main does.
func invoke(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	code := run(ctx, console{in: strings.NewReader(stdin), out: &out, err: &errs}, args)
	return outcome{code, out.String(), errs.String()}
}
