package client

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"quorate/protocol/packet"
)

// broker is the other end of a pipe: it answers CONNECT, and then what answer says to each packet.
func broker(t *testing.T, nc net.Conn, answer func(packet.Packet) packet.Packet) {
	r := packet.NewReader(nc, 1<<20, packet.FromClient)
	for {
		p, err := r.Next()
		if err != nil {
			return
		}
		reply := packet.Packet(&packet.Connack{})
		if _, ok := p.(*packet.Connect); !ok {
			reply = answer(p)
		}
		if reply == nil {
			continue
		}
		if _, err := nc.Write(reply.Append(nil, packet.V311)); err != nil {
			t.Errorf("write: %v", err)
		}
	}
}

func connected(t *testing.T, ctx context.Context, keepAlive uint16, answer func(packet.Packet) packet.Packet) *Conn {
	t.Helper()
	mine, theirs := net.Pipe()
	go broker(t, theirs, answer)
	c, err := Connect(ctx, mine, Options{Timeout: 5 * time.Second,
		Connect: &packet.Connect{Version: packet.V311, CleanStart: true, KeepAlive: keepAlive}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The time between two packets of the client does not exceed the Keep Alive. [MQTT-3.1.2-20]
func TestAnIdleConnectionIsKeptAliveByPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pings, last := 0, time.Now()
		c := connected(t, t.Context(), 10, func(p packet.Packet) packet.Packet {
			if gap := time.Since(last); gap > 10*time.Second {
				t.Errorf("%s of silence", gap)
			}
			last = time.Now()
			pings++
			return &packet.Pingresp{}
		})
		time.AfterFunc(time.Minute, c.Close)
		if _, err := c.Next(); err == nil {
			t.Error("want an error after Close")
		}
		if pings < 6 || pings > 12 {
			t.Errorf("%d pings in a minute", pings)
		}
	})
}

func TestABrokerThatDoesNotAnswerPingsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connected(t, t.Context(), 10, func(packet.Packet) packet.Packet { return nil })
		began := time.Now()
		if _, err := c.Next(); !errors.Is(err, ErrKeepAlive) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != 15*time.Second {
			t.Errorf("noticed after %s, want 15s: a ping after half the Keep Alive, and one whole", took)
		}
		c.Close()
	})
}

func TestTheEndOfTheContextEndsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		c := connected(t, ctx, 0, func(packet.Packet) packet.Packet { return nil })
		began := time.Now()
		if _, err := c.Next(); err == nil || time.Since(began) != 3*time.Second {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
		c.Close()
	})
}

func TestABrokerThatNeverAnswersConnectIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine, theirs := net.Pipe()
		defer theirs.Close()
		go func() { _, _ = theirs.Read(make([]byte, 100)) }()
		began := time.Now()
		_, err := Connect(t.Context(), mine, Options{Timeout: 5 * time.Second, Connect: &packet.Connect{Version: packet.V311, CleanStart: true}})
		if err == nil || time.Since(began) != 5*time.Second {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
	})
}

func TestTheDialerTriesEveryAddressOnceAndGoesOnFromThere(t *testing.T) {
	var tried []string
	d := &Dialer{Addrs: []string{"a:1", "b:1", "c:1"}, Timeout: time.Second, Dial: func(_ context.Context, addr string) (net.Conn, error) {
		tried = append(tried, addr)
		return nil, errors.New("nobody")
	}}
	opt := Options{Timeout: time.Second, Connect: &packet.Connect{Version: packet.V5, CleanStart: true}}
	if _, err := d.Connect(t.Context(), opt); err == nil || len(tried) != 3 {
		t.Errorf("got %v after %v", err, tried)
	}
	d.Refer("no-port d:1 e:1")
	if _, err := d.Connect(t.Context(), opt); err == nil || tried[3] != "d:1" || tried[4] != "a:1" || len(tried) != 7 {
		t.Errorf("got %v after %v", err, tried)
	}
}
