//go:build linux

package hostile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"quorate/protocol/packet"
)

// Bytes of packets, made by hand: what is sent here no codec would make.

// str is an MQTT string: two bytes of length and the text.
func str(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

// cat puts parts together.
func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

// raw is a text of bytes.
func raw(s string) []byte { return []byte(s) }

// varint is a Variable Byte Integer.
func varint(n int) []byte {
	var b []byte
	for {
		d := byte(n & 127)
		if n >>= 7; n == 0 {
			return append(b, d)
		}
		b = append(b, d|128)
	}
}

// pkt is a Control Packet: its first byte, the Remaining Length and the rest.
func pkt(first byte, parts ...[]byte) []byte {
	body := cat(parts...)
	return cat([]byte{first}, varint(len(body)), body)
}

// props are the properties of a version 5 packet with their length.
func props(parts ...[]byte) []byte {
	body := cat(parts...)
	return append(varint(len(body)), body...)
}

// prop is one property.
func prop(id byte, value ...byte) []byte { return append([]byte{id}, value...) }

// connectHead is a CONNECT up to and with the Keep Alive.
func connectHead(level, flags byte) []byte { return cat(str("MQTT"), []byte{level, flags, 0, 60}) }

// connect is a good CONNECT with a clean start.
func connect(v packet.Version, id string) []byte {
	if v == packet.V5 {
		return pkt(0x10, connectHead(5, 2), props(), str(id))
	}
	if v == packet.V31 {
		return pkt(0x10, str("MQIsdp"), []byte{3, 2, 0, 60}, str(id))
	}
	return pkt(0x10, connectHead(4, 2), str(id))
}

// publish is a PUBLISH; flags are those of the first byte, id is left out with QoS 0.
func publish(v packet.Version, flags byte, name string, id uint16, payload string) []byte {
	var idBytes, p []byte
	if flags&6 != 0 {
		idBytes = binary.BigEndian.AppendUint16(nil, id)
	}
	if v == packet.V5 {
		p = props()
	}
	return pkt(0x30|flags, str(name), idBytes, p, []byte(payload))
}

// subscribe is a SUBSCRIBE with identifier 1 and one filter.
func subscribe(v packet.Version, filter string, options byte) []byte {
	var p []byte
	if v == packet.V5 {
		p = props()
	}
	return pkt(0x82, []byte{0, 1}, p, str(filter), []byte{options})
}

var pingreq = []byte{0xC0, 0}

// wire is one raw connection to the MQTT port of a node.
type wire struct {
	t  *testing.T
	nc net.Conn
	r  *packet.Reader
	v  packet.Version
}

// dial opens a connection and sends nothing.
func dial(t *testing.T, n *node, v packet.Version) *wire {
	t.Helper()
	nc, err := net.DialTimeout("tcp", n.addr(mqttPort), patience)
	if err != nil {
		t.Fatalf("dial %s: %v", n.name, err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	w := &wire{t: t, nc: nc, v: v, r: packet.NewReader(nc, 64<<20, packet.FromServer)}
	w.r.SetVersion(v)
	return w
}

// login opens a connection that is accepted, with a clean start.
func login(t *testing.T, n *node, v packet.Version, id string) *wire {
	t.Helper()
	w := dial(t, n, v)
	w.write(connect(v, id))
	if ack, ok := w.read().(*packet.Connack); !ok || ack.ReasonCode.Failed() {
		t.Fatalf("%s: CONNACK %+v", id, ack)
	}
	return w
}

// write sends bytes. A connection that is closed meanwhile shows at the next read.
func (w *wire) write(b []byte) {
	_ = w.nc.SetWriteDeadline(time.Now().Add(patience))
	_, _ = w.nc.Write(b)
}

// send sends a packet that follows the rules.
func (w *wire) send(p packet.Packet) { w.write(p.Append(nil, w.v)) }

// next returns the next packet, or the error of the end.
func (w *wire) next() (packet.Packet, error) {
	_ = w.nc.SetReadDeadline(time.Now().Add(patience))
	return w.r.Next()
}

// read returns the next packet; the connection must be open.
func (w *wire) read() packet.Packet {
	w.t.Helper()
	p, err := w.next()
	if err != nil {
		w.t.Fatalf("read: %v", err)
	}
	return p
}

// readAck reads until the packet of this type comes, and returns its Reason Code; 0 for types without one.
func (w *wire) readAck(want packet.Type) packet.ReasonCode {
	w.t.Helper()
	for {
		p := w.read()
		if p.Type() == want {
			code, _ := codeOf(p)
			return code
		}
		if p.Type() == packet.TypeDisconnect {
			w.t.Fatalf("%v instead of %v", describe(p), want)
		}
	}
}

// outcome reads what want says should come, and says what came: "DISCONNECT 0x82 closed", "SUBACK 0x8F", "" for nothing
// and open. An open connection is asked, by a PINGREQ, whether more comes.
func (w *wire) outcome(want string) string {
	w.t.Helper()
	var seen []string
	count, end := packetsIn(want), strings.HasSuffix(want, "closed")
	for asked := false; ; {
		if !asked && !end && len(seen) >= count {
			w.write(pingreq)
			asked = true
		}
		p, err := w.next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return strings.Join(append(seen, "silent"), " ")
		case err != nil:
			return strings.Join(append(seen, "closed"), " ")
		case p.Type() == packet.TypePingresp && asked:
			return strings.Join(seen, " ")
		}
		seen = append(seen, describe(p))
	}
}

// packetsIn counts the packets that an outcome names.
func packetsIn(outcome string) (n int) {
	for word := range strings.FieldsSeq(outcome) {
		if !strings.HasPrefix(word, "0x") && word != "closed" {
			n++
		}
	}
	return n
}

// describe is a packet in a word and its codes.
func describe(p packet.Packet) string {
	s := strings.ToUpper(p.Type().String())
	if a, ok := p.(*packet.Suback); ok {
		for _, c := range a.ReasonCodes {
			s += fmt.Sprintf(" 0x%02X", byte(c))
		}
		return s
	}
	if code, ok := codeOf(p); ok {
		s += fmt.Sprintf(" 0x%02X", byte(code))
	}
	return s
}

func codeOf(p packet.Packet) (packet.ReasonCode, bool) {
	switch p := p.(type) {
	case *packet.Connack:
		return p.ReasonCode, true
	case *packet.Puback:
		return p.ReasonCode, true
	case *packet.Pubrec:
		return p.ReasonCode, true
	case *packet.Pubrel:
		return p.ReasonCode, true
	case *packet.Pubcomp:
		return p.ReasonCode, true
	case *packet.Disconnect:
		return p.ReasonCode, true
	case *packet.Suback:
		return p.ReasonCodes[0], true
	}
	return 0, false
}
