//go:build linux

package hostile

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"quorate/protocol/packet"
)

// Bounds of what a flood may do to the others and to the node.
const (
	// ackMax is the longest wait of a good client; a busy machine explains some of it.
	ackMax = 10 * time.Second
	// memoryMax is how much a node may grow by a flood that leaves nothing behind: buffers and what the collector
	// has not come to.
	memoryMax = 64 << 20
)

// calm checks that a node has not grown by more than memoryMax, nor its log by more than a few lines, while do ran.
func calm(t *testing.T, n *node, do func()) {
	t.Helper()
	memory, said := n.residentBytes(), n.log.Len()
	do()
	eventually(t, "the memory of "+n.name+" to be flat", func() bool { return n.residentBytes() < memory+memoryMax })
	if grown := len(withoutGossip(n.log.String()[said:])); grown > 64<<10 {
		t.Errorf("%s logged %d bytes meanwhile:\n%s", n.name, grown, tail(n.log.String(), 10))
	}
	n.alive()
}

// withoutGossip leaves out what the gossip library says of bad datagrams.
func withoutGossip(log string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(log, "\n"), func(line string) bool {
		return strings.Contains(line, "component=gossip")
	}), "\n")
}

// flood is a packet that a client sends many times.
type flood struct {
	name  string
	v     packet.Version
	count int
	one   func(i int) []byte
	want  string // one answer, "" for none
}

// Acknowledgements that nobody waits for cost constant memory and no log, and the client is told (version 5).
func TestFloodsOfUnknownIdentifiersCostNothing(t *testing.T) {
	long(t)
	n := newNode(t, "floods")
	up(t, n)
	good := startGood(t, n, n)
	for _, f := range []flood{
		{"PUBACK", packet.V5, 50_000, unknown(0x40), ""},
		{"PUBCOMP", packet.V311, 50_000, unknown(0x70), ""},
		{"PUBREC", packet.V5, 50_000, unknown(0x50), "PUBREL 0x92"},
		{"PUBREC", packet.V311, 20_000, unknown(0x50), "PUBREL 0x00"},
		{"PUBREL", packet.V5, 50_000, unknown(0x62), "PUBCOMP 0x92"},
		{"PUBREL", packet.V311, 20_000, unknown(0x62), "PUBCOMP 0x00"},
		{"UNSUBSCRIBE", packet.V5, 5_000, func(i int) []byte {
			return pkt(0xA2, binary.BigEndian.AppendUint16(nil, uint16(i%60_000)+1), props(), str("never/subscribed"))
		}, "UNSUBACK"},
		{"PINGREQ", packet.V5, 50_000, func(int) []byte { return pingreq }, "PINGRESP"},
	} {
		t.Run(fmt.Sprintf("%s/v%d", f.name, f.v), func(t *testing.T) { calm(t, n, func() { f.run(t, n) }) })
	}
	good.more(50)
	good.finish(ackMax)
}

func unknown(first byte) func(int) []byte {
	return func(i int) []byte { return pkt(first, binary.BigEndian.AppendUint16(nil, uint16(i%65_535)+1)) }
}

// run sends the flood and reads the answers meanwhile. The connection may be ended by the node, but not by silence.
func (f *flood) run(t *testing.T, n *node) {
	w := login(t, n, f.v, "")
	go func() {
		var b []byte
		for i := range f.count {
			if b = append(b, f.one(i)...); len(b) > 8<<10 {
				w.write(b)
				b = b[:0]
			}
		}
		w.write(append(b, subscribe(f.v, "end", 0)...))
	}()
	for got := 0; ; got++ {
		p, err := w.next()
		if err != nil {
			t.Fatalf("after %d answers: %v", got, err)
		}
		if p.Type() == packet.TypeSuback {
			if f.want != "" && got != f.count {
				t.Fatalf("%d answers to %d packets", got, f.count)
			}
			return
		}
		if d := describe(p); d != f.want {
			t.Fatalf("answer %d is %s, want %q", got, d, f.want)
		}
	}
}

// A PUBLISH of QoS 2 that comes 500 times with one identifier, and never a PUBREL, is one message. [MQTT-4.3.3-10]
func TestQoS2WithOneIdentifierIsOneMessage(t *testing.T) {
	long(t)
	n := newNode(t, "qos2")
	up(t, n)
	for _, expiry := range []uint32{0, 300} {
		t.Run(fmt.Sprintf("session expiry %d", expiry), func(t *testing.T) {
			name := fmt.Sprintf("once/%d", expiry)
			sub := login(t, n, packet.V5, "")
			sub.write(subscribe(packet.V5, name, 2))
			sub.readAck(packet.TypeSuback)
			pub := dial(t, n, packet.V5)
			pub.send(&packet.Connect{Version: packet.V5, CleanStart: true, ClientID: name, Properties: packet.Properties{HasSessionExpiry: expiry > 0, SessionExpirySeconds: expiry}})
			pub.readAck(packet.TypeConnack)
			for i := range 500 {
				pub.write(publish(packet.V5, 4|8*byte(min(i, 1)), name, 7, "once"))
			}
			for i := range 500 {
				if code := pub.readAck(packet.TypePubrec); code.Failed() {
					t.Fatalf("PUBREC %d: %v", i, code)
				}
			}
			pub.send(&packet.Pubrel{PacketID: 7})
			pub.readAck(packet.TypePubcomp)
			pub.write(publish(packet.V5, 4, name, 7, "last"))
			pub.readAck(packet.TypePubrec)
			var got []string
			for done := 0; done < 2; {
				switch p := sub.read().(type) {
				case *packet.Publish:
					got = append(got, string(p.Payload))
					sub.send(&packet.Pubrec{PacketID: p.PacketID})
				case *packet.Pubrel:
					sub.send(&packet.Pubcomp{PacketID: p.PacketID})
					done++
				}
			}
			if !slices.Equal(got, []string{"once", "last"}) {
				t.Fatalf("got %q", got)
			}
		})
	}
}

// Topic aliases cost what the broker allows: their number and the bytes of their topics.
func TestTopicAliasesAreBounded(t *testing.T) {
	long(t)
	n := newNode(t, "alias")
	up(t, n)
	calm(t, n, func() {
		for range 50 { // connections that each set all aliases to topics of 64 KiB
			w := login(t, n, packet.V5, "")
			for alias := byte(1); alias <= 32; alias++ {
				w.write(pkt(0x30, str(strings.Repeat("t", 65_500)+string(rune('A'+alias))), props(prop(0x23, 0, alias))))
			}
			if got, want := w.outcome(aliasInvalid), aliasInvalid; got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	})
	w := login(t, n, packet.V5, "")
	for range 1_000 { // one alias, set anew all the time
		w.write(pkt(0x30, str("a"), props(prop(0x23, 0, 1)), raw("x")))
		w.write(pkt(0x30, str(""), props(prop(0x23, 0, 1)), raw("x")))
	}
	if got := w.outcome(""); got != "" {
		t.Fatalf("got %q", got)
	}
}

// A client that does not read costs its bounds and nobody else anything: QoS 0 for it is dropped and counted.
func TestZeroWindowClientCostsItsBoundsOnly(t *testing.T) {
	long(t)
	n := newNode(t, "zero", "--max-outgoing", "1MiB")
	up(t, n)
	good := startGood(t, n, n)
	calm(t, n, func() {
		var deaf []*wire
		for i := range 8 {
			w := login(t, n, packet.V5, fmt.Sprintf("deaf-%d", i))
			w.write(subscribe(packet.V5, "loud", 0))
			w.readAck(packet.TypeSuback)
			deaf = append(deaf, w)
		}
		pub := login(t, n, packet.V5, "loud")
		payload := strings.Repeat("x", 64<<10)
		for range 400 {
			pub.write(publish(packet.V5, 0, "loud", 0, payload))
		}
		if got := pub.outcome(""); got != "" {
			t.Fatalf("the publisher got %q", got)
		}
		eventually(t, "messages for the deaf to be dropped", func() bool { return n.metric("quorate_messages_dropped_total") > 100 })
		good.more(50)
		// A client that asks without end and never reads the answers is closed.
		asker := login(t, n, packet.V5, "asker")
		block := []byte(strings.Repeat(string(pingreq), 32<<10))
		eventually(t, "the asker to be closed", func() bool {
			_ = asker.nc.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			_, err := asker.nc.Write(block)
			return err != nil && !strings.Contains(err.Error(), "timeout")
		})
		for _, w := range deaf {
			_ = w.nc.Close()
		}
	})
	good.more(50)
	good.finish(ackMax)
}
