package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"

	"quorate/protocol/packet"
)

// stampBytes is the time at the start of every payload.
const stampBytes = 8

// base is the start of all stamps: the clock is monotonic and of one process.
var base = time.Now()

func now() int64 { return int64(time.Since(base)) }

// link is one connection of a load client.
type link struct {
	nc     net.Conn
	reader *packet.Reader

	mu  sync.Mutex // guards buf and writes: held over I/O, as one client has one stream
	buf []byte
}

// bufferBytes is how much a client gathers before it writes. A client that may send more at once does so in one write,
// as any client library with a buffer does: else the generator's system calls would be what is measured.
const bufferBytes = 32 << 10

const version = packet.V311

// dial connects and waits for the CONNACK.
func dial(ctx context.Context, node, id string, clean bool) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", node)
	if err != nil {
		return nil, err
	}
	l := &link{nc: nc, reader: packet.NewReader(nc, 8<<20, packet.FromServer)}
	l.reader.SetVersion(version)
	deadline, _ := ctx.Deadline()
	_ = nc.SetReadDeadline(deadline)
	if err := l.send(&packet.Connect{Version: version, ClientID: id, CleanStart: clean}); err != nil {
		_ = nc.Close()
		return nil, err
	}
	ack, err := expect[*packet.Connack](l)
	if err == nil && ack.ReasonCode.Failed() {
		err = fmt.Errorf("connect %s to %s: %v", id, node, ack.ReasonCode)
	}
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	_ = nc.SetReadDeadline(time.Time{})
	return l, nil
}

// send writes one packet, and what was queued before.
func (l *link) send(p packet.Packet) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = p.Append(l.buf, version)
	return l.write()
}

// queue holds a packet back for the next flush, or writes when enough has gathered.
func (l *link) queue(p packet.Packet) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = p.Append(l.buf, version)
	if len(l.buf) < bufferBytes {
		return nil
	}
	return l.write()
}

// flush writes what is queued.
func (l *link) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.write()
}

// write is flush with the mutex held.
func (l *link) write() error {
	if len(l.buf) == 0 {
		return nil
	}
	_, err := l.nc.Write(l.buf)
	l.buf = l.buf[:0]
	return err
}

// expect reads packets until one is a P.
func expect[P packet.Packet](l *link) (P, error) {
	for {
		p, err := l.reader.Next()
		if err != nil {
			var none P
			return none, err
		}
		if want, ok := p.(P); ok {
			return want, nil
		}
	}
}

func (l *link) subscribe(filter string, qos byte) error {
	if err := l.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: filter, QoS: qos}}}); err != nil {
		return err
	}
	ack, err := expect[*packet.Suback](l)
	if err == nil && ack.ReasonCodes[0].Failed() {
		err = fmt.Errorf("subscribe %s: %v", filter, ack.ReasonCodes[0])
	}
	return err
}

// leave ends the connection in order.
func (l *link) leave() {
	_ = l.send(&packet.Disconnect{})
	_ = l.nc.Close()
}

func putStamp(payload []byte, at int64) { binary.BigEndian.PutUint64(payload, uint64(at)) }

func stampOf(payload []byte) int64 {
	if len(payload) < stampBytes {
		return now()
	}
	return int64(binary.BigEndian.Uint64(payload))
}
