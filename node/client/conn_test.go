package client

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/protocol/packet"
)

// handler is a Handler of a test: it accepts every CONNECT and notes what happens.
type handler struct {
	deal    Deal
	packets func(p packet.Packet) error
	fill    func()
	holding bool

	mu   sync.Mutex
	seen []packet.Type
	end  *End
}

func (h *handler) Connect(p *packet.Connect) (*packet.Connack, Deal) {
	h.deal.Receiver.Version = p.Version
	return &packet.Connack{}, h.deal
}

func (h *handler) Packet(p packet.Packet) error {
	h.mu.Lock()
	h.seen = append(h.seen, p.Type())
	h.mu.Unlock()
	if h.packets != nil {
		return h.packets(p)
	}
	return nil
}

func (h *handler) Closed(end End) { h.mu.Lock(); h.end = &end; h.mu.Unlock() }
func (h *handler) Idle()          {}
func (h *handler) Fill() {
	if h.fill != nil {
		h.fill()
	}
}
func (h *handler) Holding() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.holding }

// server is one served connection, seen from the client's side.
type server struct {
	t       *testing.T
	nc      net.Conn
	conn    *Conn
	h       *handler
	metrics Metrics
	served  chan struct{}
	reader  *packet.Reader
}

func serve(t *testing.T, cfg Config, h *handler) *server {
	ours, theirs := net.Pipe()
	s := &server{t: t, nc: ours, h: h, served: make(chan struct{})}
	s.conn = New(theirs, &cfg, &s.metrics, h)
	s.reader = packet.NewReader(ours, 1<<24, packet.FromServer)
	s.reader.SetVersion(packet.V5)
	go func() { s.conn.Serve(); close(s.served) }()
	return s
}

func (s *server) send(p packet.Packet) {
	if _, err := s.nc.Write(p.Append(nil, packet.V5)); err != nil {
		s.t.Fatalf("send %v: %v", p.Type(), err)
	}
}

func (s *server) connect() {
	go func() { _, _ = s.nc.Write((&packet.Connect{Version: packet.V5, ClientID: "c"}).Append(nil, packet.V5)) }()
	s.expect(packet.TypeConnack)
	synctest.Wait()
}

func (s *server) expect(want packet.Type) packet.Packet {
	s.t.Helper()
	p, err := s.reader.Next()
	if err != nil {
		s.t.Fatalf("receive %v: %v", want, err)
	}
	if p.Type() != want {
		s.t.Fatalf("received %v, want %v", p.Type(), want)
	}
	return p
}

func (s *server) expectEnd(reason packet.ReasonCode) {
	s.t.Helper()
	<-s.served
	if s.h.end == nil || s.h.end.Reason != reason {
		s.t.Fatalf("ended with %+v, want %v", s.h.end, reason)
	}
}

func publish(payload []byte) *Message {
	head, _ := packet.AppendPublishHeader(nil, &packet.Publish{Topic: "t", Payload: payload}, packet.V5)
	return &Message{Head: head, Payload: payload}
}

// A client that sends nothing is closed after 1.5 times the Keep Alive; a part of a packet is nothing. [MQTT-3.1.2-22]
func TestKeepAliveIsCountedFromTheLastCompletePacket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, DefaultConfig(), &handler{deal: Deal{KeepAlive: 10 * time.Second}})
		s.connect()
		time.Sleep(9 * time.Second)
		s.send(&packet.Pingreq{})
		begin := time.Now()
		time.Sleep(10 * time.Second)
		go func() { _, _ = s.nc.Write([]byte{0xC0}) }()
		if d := s.expect(packet.TypeDisconnect).(*packet.Disconnect); d.ReasonCode != packet.KeepAliveTimeout {
			t.Fatalf("disconnected with %v", d.ReasonCode)
		}
		if took := time.Since(begin); took != 15*time.Second {
			t.Fatalf("closed after %v", took)
		}
		s.expectEnd(packet.KeepAliveTimeout)
	})
}

func TestKeepAliveDoesNotRunOutWhileThePublisherWaitsForUs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &handler{deal: Deal{KeepAlive: 10 * time.Second}, holding: true}
		s := serve(t, DefaultConfig(), h)
		s.connect()
		time.Sleep(time.Minute)
		if !s.conn.Open() {
			t.Fatal("the connection was closed")
		}
		h.mu.Lock()
		h.holding = false
		h.mu.Unlock()
		s.expect(packet.TypeDisconnect)
		s.expectEnd(packet.KeepAliveTimeout)
	})
}

func TestClientThatSendsNoConnectIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, DefaultConfig(), &handler{})
		begin := time.Now()
		for i := range 9 {
			if _, err := s.nc.Write([]byte{"\x10\x10\x00\x04MQTT\x05\x02"[i]}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if _, err := s.nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("read: %v", err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Fatalf("closed after %v", took)
		}
	})
}

func TestConnectAboveItsLimitIsRefusedUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, DefaultConfig(), &handler{})
		go func() { _, _ = s.nc.Write([]byte("\x10\xff\xff\xff\x7f\x00\x04MQTT\x05")) }()
		if _, err := io.ReadAll(s.nc); err != nil {
			t.Fatal(err)
		}
		<-s.served
	})
}

// A client that does not read costs at most the bounds: QoS 0 is dropped, then the write times out.
func TestSlowClientIsDroppedFromAndThenClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.QoS0BytesMax = 10_000
		s := serve(t, cfg, &handler{})
		s.connect()
		begin := time.Now()
		queued := 0
		var b Batch
		for range 100 {
			if s.conn.PublishQoS0(publish(make([]byte, 1000)), &b) {
				queued++
			}
		}
		b.Flush()
		if queued < 8 || queued > 10 || s.metrics.DroppedQoS0.Load() != uint64(100-queued) {
			t.Fatalf("%d messages were queued, %d counted as dropped", queued, s.metrics.DroppedQoS0.Load())
		}
		<-s.served
		if took := time.Since(begin); took > cfg.WriteTimeout+cfg.CloseTimeout {
			t.Fatalf("closed after %v", took)
		}
	})
}

func TestControlPacketsBeyondTheirBoundCloseTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.OutboundBytesMax = 100
		s := serve(t, cfg, &handler{})
		s.connect()
		for range 100 {
			s.conn.Send(&packet.Puback{PacketID: 1})
		}
		<-s.served
		if s.metrics.ClosedSlow.Load() != 1 {
			t.Fatal("the close was not counted")
		}
	})
}

// What is queued for a connection while it is written to goes out in one write.
func TestQueuedPacketsAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, DefaultConfig(), &handler{})
		s.connect()
		before := s.metrics.Writes.Load()
		var b Batch
		large := bytes.Repeat([]byte("x"), shareBytesMin)
		for i := range 50 {
			payload := []byte("small")
			if i%10 == 0 {
				payload = large
			}
			s.conn.PublishIn(publish(payload), &b)
		}
		b.Flush()
		for i := range 50 {
			p := s.expect(packet.TypePublish).(*packet.Publish)
			if want := len("small"); i%10 != 0 && len(p.Payload) != want || i%10 == 0 && !bytes.Equal(p.Payload, large) {
				t.Fatalf("message %d has %d bytes", i, len(p.Payload))
			}
		}
		synctest.Wait()
		if n := s.metrics.Writes.Load() - before; n != 1 {
			t.Fatalf("%d writes", n)
		}
		_ = s.nc.Close()
		<-s.served
	})
}

func TestPanicEndsTheConnectionOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, DefaultConfig(), &handler{packets: func(packet.Packet) error { panic("a bug") }})
		s.connect()
		s.send(&packet.Pingreq{})
		if d := s.expect(packet.TypeDisconnect).(*packet.Disconnect); d.ReasonCode != packet.UnspecifiedError {
			t.Fatalf("disconnected with %v", d.ReasonCode)
		}
		s.expectEnd(packet.UnspecifiedError)
		if s.metrics.Panics.Load() != 1 {
			t.Fatal("the panic was not counted")
		}
		if !errors.Is(s.h.end.Err, ErrPanic) {
			t.Fatalf("ended with %v, and nobody hears of the bug", s.h.end.Err)
		}
	})
}

func TestPanicOfTheWriterIsTheReasonOfTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, DefaultConfig(), &handler{fill: func() { panic("a bug") }})
		s.send(&packet.Connect{Version: packet.V5, ClientID: "c"})
		_, _ = io.Copy(io.Discard, s.nc)
		<-s.served
		if s.h.end == nil || !errors.Is(s.h.end.Err, ErrPanic) {
			t.Fatalf("ended with %+v, and nobody hears of the bug", s.h.end)
		}
	})
}

// Fill is asked for as long as there is room, and not before CONNACK. [MQTT-3.2.0-1]
func TestFillFollowsWhatTheClientTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &handler{}
		cfg := DefaultConfig()
		cfg.FillBytes = 1000
		s := serve(t, cfg, h)
		left := 100
		h.fill = func() {
			for s.conn.Room() > 0 && left > 0 {
				s.conn.Publish(publish(make([]byte, 100)))
				left--
			}
			if left > 0 {
				s.conn.Kick()
			}
		}
		s.conn.Kick()
		synctest.Wait()
		if left != 100 {
			t.Fatal("filled before CONNACK")
		}
		s.connect()
		if waiting := 100 - left; waiting > 12 {
			t.Fatalf("%d messages were taken for a client that does not read", waiting)
		}
		for range 100 {
			s.expect(packet.TypePublish)
		}
		_ = s.nc.Close()
		<-s.served
	})
}

func TestNothingIsSentAfterDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, DefaultConfig(), &handler{})
		s.connect()
		s.conn.Close(packet.SessionTakenOver, "")
		s.conn.Send(&packet.Pingresp{})
		s.conn.PublishQoS0(publish(nil), &Batch{})
		s.expect(packet.TypeDisconnect)
		if _, err := s.reader.Next(); !errors.Is(err, io.EOF) {
			t.Fatalf("after DISCONNECT: %v", err)
		}
		s.expectEnd(packet.SessionTakenOver)
	})
}
