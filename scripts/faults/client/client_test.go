package client

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"context"

	"github.com/google/go-cmp/cmp"

	"quorate/protocol/packet"
	"quorate/scripts/faults/check"
)

var versions = []packet.Version{packet.V31, packet.V311, packet.V5}

// bubble runs f in virtual time for every protocol version.
func bubble(t *testing.T, f func(t *testing.T, v packet.Version)) {
	for _, v := range versions {
		t.Run(v.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, v) })
		})
	}
}

func TestUnacknowledgedPublishesAreSentAgainInOrderWithDUP(t *testing.T) {
	bubble(t, func(t *testing.T, v packet.Version) {
		b, h := newBroker(t, v), check.NewHistory()
		c := New(b.options(h))
		p := b.connect(c, accepted(false))
		var ids []uint16
		for i := range 3 {
			go func() { _, _ = c.Publish("t", fmt.Sprint(i), 1, false) }()
			m := expect[*packet.Publish](p)
			if m.Dup {
				t.Fatal("the first attempt has DUP=1")
			}
			ids = append(ids, m.PacketID)
		}
		p.send(&packet.Puback{PacketID: ids[1]})
		synctest.Wait()
		_ = p.net.Close()
		synctest.Wait()

		p = b.connect(c, accepted(true))
		for _, want := range []uint16{ids[0], ids[2]} {
			m := expect[*packet.Publish](p)
			if !m.Dup || m.PacketID != want {
				t.Fatalf("got identifier %d dup %v, want %d with DUP=1 [MQTT-4.4.0-1]", m.PacketID, m.Dup, want)
			}
		}
		p.silent()
		want := []string{"invoke 0", "invoke 1", "invoke 2", "ok 1"}
		if diff := cmp.Diff(want, phases(h, check.Publish)); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff([]string{"note 0 dup", "note 2 dup"}, phases(h, check.Resend)); diff != "" {
			t.Fatal(diff)
		}
		c.Drop()
	})
}

func TestALostSessionEndsWhatWasUnderWayAndIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, packet.V5)
		c := New(b.options(check.NewHistory()))
		p := b.connect(c, accepted(false))
		sent := make(chan *Publication, 1)
		go func() {
			m, _ := c.Publish("t", "1", 1, false)
			sent <- m
		}()
		expect[*packet.Publish](p)
		m := <-sent
		c.Drop()
		p = b.connect(c, accepted(false))
		p.silent()
		<-m.Done()
		if !errors.Is(m.Err(), errSessionLost) || c.SessionLost() != 1 || c.Unacked() != 0 {
			t.Fatalf("err %v, lost %d, unacked %d", m.Err(), c.SessionLost(), c.Unacked())
		}
		c.Drop()
	})
}

func TestQoS2SenderGoesOnWithPUBRELOverConnections(t *testing.T) {
	bubble(t, func(t *testing.T, v packet.Version) {
		b, h := newBroker(t, v), check.NewHistory()
		c := New(b.options(h))
		p := b.connect(c, accepted(false))
		go func() { _, _ = c.Publish("t", "1", 2, false) }()
		id := expect[*packet.Publish](p).PacketID
		p.send(&packet.Pubrec{PacketID: id})
		if got := expect[*packet.Pubrel](p).PacketID; got != id {
			t.Fatalf("PUBREL %d", got)
		}
		c.Drop()
		p = b.connect(c, accepted(true))
		if got := expect[*packet.Pubrel](p).PacketID; got != id {
			t.Fatalf("PUBREL %d after the reconnect", got)
		}
		if n := c.Unacked(); n != 1 {
			t.Fatalf("%d unacknowledged", n)
		}
		p.send(&packet.Pubcomp{PacketID: id})
		synctest.Wait()
		if n := c.Unacked(); n != 0 {
			t.Fatalf("%d unacknowledged", n)
		}
		if diff := cmp.Diff([]string{"invoke 1", "ok 1"}, phases(h, check.Publish)); diff != "" {
			t.Fatal(diff)
		}
		c.Drop()
	})
}

func TestQoS2ReceiverTakesAnIdentifierOnceUntilPUBREL(t *testing.T) {
	bubble(t, func(t *testing.T, v packet.Version) {
		b, h := newBroker(t, v), check.NewHistory()
		c := New(b.options(h))
		p := b.connect(c, accepted(false))
		m := &packet.Publish{Topic: "t", QoS: 2, PacketID: 9, Payload: []byte("1")}
		p.send(m)
		expect[*packet.Pubrec](p)
		c.Drop()
		p = b.connect(c, accepted(true))
		m.Dup = true
		p.send(m)
		expect[*packet.Pubrec](p)
		if diff := cmp.Diff([]string{"note 1"}, phases(h, check.Deliver)); diff != "" {
			t.Fatal(diff)
		}
		p.send(&packet.Pubrel{PacketID: 9})
		expect[*packet.Pubcomp](p)
		p.send(&packet.Publish{Topic: "t", QoS: 2, PacketID: 9, Payload: []byte("2")})
		expect[*packet.Pubrec](p)
		if diff := cmp.Diff([]string{"note 1", "note 2"}, phases(h, check.Deliver)); diff != "" {
			t.Fatal(diff)
		}
		c.Drop()
	})
}

func TestARefusedConnectSaysWhyAndIsRecordedAsFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, h := newBroker(t, packet.V5), check.NewHistory()
		c := New(b.options(h))
		go b.accept(&packet.Connack{ReasonCode: packet.ServerUnavailable})
		_, err := c.Connect(t.Context(), "n1")
		var refused *Refused
		if !errors.As(err, &refused) || refused.Reason != packet.ServerUnavailable {
			t.Fatalf("err %v", err)
		}
		if diff := cmp.Diff([]string{"invoke ", "fail "}, phases(h, check.Connect)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestAConnectWithoutAnAnswerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, h := newBroker(t, packet.V5), check.NewHistory()
		c := New(b.options(h))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := c.Connect(ctx, "n1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("err %v", err)
		}
		if diff := cmp.Diff([]string{"invoke "}, phases(h, check.Connect)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestAnUnansweredPingDropsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, h := newBroker(t, packet.V5), check.NewHistory()
		opt := b.options(h)
		opt.KeepAlive = 4
		c := New(opt)
		p := b.connect(c, accepted(false))
		expect[*packet.Pingreq](p)
		p.send(&packet.Pingresp{})
		expect[*packet.Pingreq](p)
		start := time.Now()
		c.Wait(t.Context())
		if d := time.Since(start); d > 10*time.Second {
			t.Fatalf("dropped after %v", d)
		}
		if len(phases(h, check.Drop)) != 1 {
			t.Fatal("the drop is not recorded")
		}
	})
}

func TestPublisherMovesOnAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, h := newBroker(t, packet.V311), check.NewHistory()
		b.refuse["n2"] = true
		c := New(b.options(h))
		pub := &Publisher{Window: 2, Roam: Roam{
			Client: c, Nodes: []string{"n1", "n2", "n3"}, Rand: rand.New(rand.NewPCG(1, 1)),
			Patience: time.Second, Backoff: time.Second,
		}}
		n := 0
		done := make(chan error, 1)
		go func() {
			done <- pub.Run(t.Context(), func() (Post, bool) {
				n++
				return Post{Topic: "t", Value: fmt.Sprint(n), QoS: 1}, n <= 3
			})
		}()
		p, _ := b.accept(accepted(false))
		expect[*packet.Publish](p)
		expect[*packet.Publish](p)
		// Window full and no acknowledgement: the client gives the connection up.
		p, _ = b.accept(accepted(true))
		for range 2 {
			m := expect[*packet.Publish](p)
			if !m.Dup {
				t.Fatal("no DUP on a second attempt")
			}
			p.send(&packet.Puback{PacketID: m.PacketID})
		}
		p.send(&packet.Puback{PacketID: expect[*packet.Publish](p).PacketID})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		c.Drop()
	})
}

func TestSubscriberSubscribesOnlyWhenItsSessionIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, h := newBroker(t, packet.V5), check.NewHistory()
		c := New(b.options(h))
		sub := &Subscriber{
			Roam:          Roam{Client: c, Nodes: []string{"n1"}, Rand: rand.New(rand.NewPCG(1, 1)), Patience: time.Second, Backoff: time.Second},
			Subscriptions: []packet.Subscription{{Filter: "a", QoS: 1}, {Filter: "b", QoS: 2}},
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		ready := make(chan struct{}, 8)
		go func() {
			defer close(done)
			sub.Run(ctx, func() { ready <- struct{}{} })
		}()
		for _, present := range []bool{false, true, false} {
			p, connect := b.accept(accepted(present))
			if !connect.Properties.HasSessionExpiry {
				t.Fatal("a persistent session needs a Session Expiry Interval")
			}
			for range 2 {
				if present {
					continue
				}
				s := expect[*packet.Subscribe](p)
				p.send(&packet.Suback{PacketID: s.PacketID, ReasonCodes: []packet.ReasonCode{packet.GrantedQoS1}})
			}
			<-ready
			_ = p.net.Close()
		}
		cancel()
		go func() { // one more connection may be under way
			for range b.conns {
			}
		}()
		<-done
		c.Drop()
		close(b.conns)
	})
}
