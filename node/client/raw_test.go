package client

import (
	"encoding/binary"
	"net"
	"sync"
	"testing"

	"quorate/protocol/packet"
)

// serveTCP is serve over a socket, which can be written without waiting.
func serveTCP(t *testing.T, cfg Config, h *handler) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ours, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	theirs, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, nc: ours, h: h, served: make(chan struct{})}
	s.conn = New(theirs, &cfg, &s.metrics, h)
	if s.conn.raw == nil {
		t.Fatal("a TCP connection is not read and written without waiting")
	}
	s.reader = packet.NewReader(ours, 1<<24, packet.FromServer)
	s.reader.SetVersion(packet.V5)
	go func() { s.conn.Serve(); close(s.served) }()
	return s
}

// What a client does not take at once comes later, whole and in order, and holds nobody up. [MQTT-4.6.0-6]
func TestSlowSocketGetsEverythingInOrder(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Writers = new(Writers)
	cfg.QoS0BytesMax = 1 << 30
	s := serveTCP(t, cfg, &handler{})
	s.send(&packet.Connect{Version: packet.V5, ClientID: "c"})
	s.expect(packet.TypeConnack)
	const messages = 4000
	var wg sync.WaitGroup
	var order sync.Mutex
	next := uint32(0)
	for w := range 4 {
		wg.Go(func() {
			var b Batch
			for i := range messages / 4 {
				order.Lock()
				payload := make([]byte, 16+int(next)%9000) // copied and shared ones
				binary.BigEndian.PutUint32(payload, next)
				next++
				batch := &b
				if w == 0 {
					batch = nil
				}
				if !s.conn.PublishQoS0(publish(payload), batch) {
					t.Error("dropped")
				}
				order.Unlock()
				switch {
				case i%7 == 0 && w == 1:
					b.FlushHere()
				case i%7 == 0:
					b.Flush()
				}
			}
			b.FlushHere()
		})
	}
	wg.Wait() // more than the socket takes is queued, and nobody has waited for the client
	for i := range uint32(messages) {
		p := s.expect(packet.TypePublish).(*packet.Publish)
		if got := binary.BigEndian.Uint32(p.Payload); got != i || len(p.Payload) != 16+int(i)%9000 {
			t.Fatalf("message %d with %d bytes, want %d", got, len(p.Payload), i)
		}
	}
	s.send(&packet.Pingreq{})
	s.conn.Close(packet.ServerShuttingDown, "")
	if d := s.expect(packet.TypeDisconnect).(*packet.Disconnect); d.ReasonCode != packet.ServerShuttingDown {
		t.Fatalf("disconnected with %v", d.ReasonCode)
	}
	_ = s.nc.Close()
	<-s.served
	if s.conn.out.pending != 0 {
		t.Fatalf("%d bytes are counted as waiting", s.conn.out.pending)
	}
}
