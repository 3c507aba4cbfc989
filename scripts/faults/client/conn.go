package client

import (
	"net"
	"sync"
	"time"

	"quorate/protocol/packet"
	"quorate/scripts/faults/check"
)

// packetBytesMax is the largest packet the client takes.
const packetBytesMax = 8 << 20

// conn is one Network Connection of a Client: a goroutine that reads, one
// that writes, and one that pings.
type conn struct {
	c    *Client
	node string
	net  net.Conn
	id   uint64 // in the history
	op   uint64 // of its CONNECT

	ready   chan struct{} // closed at the CONNACK; present and refused are set then
	present bool
	refused error
	gone    chan struct{} // closed when it has ended

	mu     sync.Mutex // guards what follows; taken after Client.mu, if both
	dead   bool       // nothing more is recorded for it
	reason packet.ReasonCode
	buf    []byte // to be written
	last   bool   // DISCONNECT is at the end of buf: nothing follows
	wake   chan struct{}
	pinged time.Time // when the PINGREQ that is not answered was sent; zero without one

	// Guarded by Client.mu:
	readTopic string // a retained message of this topic is awaited
	retained  chan string
}

func newConn(c *Client, node string, nc net.Conn) *conn {
	return &conn{
		c: c, node: node, net: nc,
		id: c.opt.History.NextID(), op: c.opt.History.NextID(),
		ready: make(chan struct{}), gone: make(chan struct{}), wake: make(chan struct{}, 1),
	}
}

// start sends the CONNECT and starts the goroutines, which end with the
// connection.
func (k *conn) start(p *packet.Connect) {
	k.write(p)
	go k.readLoop()
	go k.writeLoop()
	if k.c.opt.KeepAlive > 0 {
		go k.pingLoop()
	}
}

// record adds e to the history as something of this connection, unless the
// client has given the connection up.
func (k *conn) record(e check.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.recordLocked(e)
}

func (k *conn) recordLocked(e check.Event) bool {
	if k.dead {
		return false
	}
	e.Client, e.Node, e.Conn = k.c.opt.ID, k.node, k.id
	k.c.opt.History.Add(e)
	return true
}

// write queues p. It never waits.
func (k *conn) write(p packet.Packet) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return
	}
	k.buf = p.Append(k.buf, k.c.opt.Version)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *conn) writeLoop() {
	var out []byte
	for {
		select {
		case <-k.wake:
		case <-k.gone:
			return
		}
		k.mu.Lock()
		last := k.last
		out, k.buf = k.buf, out[:0]
		k.mu.Unlock()
		if _, err := k.net.Write(out); err != nil {
			_ = k.net.Close() // the reader sees it and ends the connection
			return
		}
		if last {
			return
		}
	}
}

func (k *conn) readLoop() {
	defer k.end()
	r := packet.NewReader(k.net, packetBytesMax, packet.FromServer)
	r.SetVersion(k.c.opt.Version)
	for first := true; ; first = false {
		p, err := r.Next()
		if err != nil {
			return
		}
		if first {
			ack, ok := p.(*packet.Connack)
			if !ok || !k.c.connack(k, ack) {
				return
			}
			continue
		}
		if k.given() || !k.c.handle(k, p) {
			return
		}
	}
}

func (k *conn) pingLoop() {
	every := time.Duration(k.c.opt.KeepAlive) * time.Second / 2
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	select {
	case <-k.ready:
	case <-k.gone:
		return
	}
	for {
		select {
		case <-ticker.C:
		case <-k.gone:
			return
		}
		k.mu.Lock()
		waiting := k.pinged
		if waiting.IsZero() {
			k.pinged = time.Now()
		}
		k.mu.Unlock()
		switch {
		case waiting.IsZero():
			k.write(&packet.Pingreq{})
		case time.Since(waiting) >= min(2*every, defaultAnswerTime):
			k.drop()
			return
		}
	}
}

// end closes the connection from the reader's side: it was lost, or the
// broker closed it.
func (k *conn) end() {
	k.mu.Lock()
	k.recordLocked(check.Event{Op: check.Closed, Phase: check.Note, Reason: byte(k.reason)})
	k.dead = true
	k.mu.Unlock()
	_ = k.net.Close()
	k.c.lost(k)
	close(k.gone)
}

// drop gives the connection up without DISCONNECT: nothing that arrives on it
// from now on counts.
func (k *conn) drop() {
	k.mu.Lock()
	k.recordLocked(check.Event{Op: check.Drop, Phase: check.Note})
	k.dead = true
	k.mu.Unlock()
	_ = k.net.Close()
	<-k.gone
}

// closeTime is how long the broker may take to close after a DISCONNECT.
const closeTime = time.Second

// disconnect writes DISCONNECT after all that is queued, and gives the
// connection up. It leaves the closing to the broker for a while: a close from
// this side could overtake the DISCONNECT.
func (k *conn) disconnect(reason packet.ReasonCode) {
	k.mu.Lock()
	if !k.recordLocked(check.Event{Op: check.Disconnect, Phase: check.Note, Reason: byte(reason)}) {
		k.mu.Unlock()
		return
	}
	k.buf = (&packet.Disconnect{ReasonCode: reason}).Append(k.buf, k.c.opt.Version)
	k.dead, k.last = true, true
	select {
	case k.wake <- struct{}{}:
	default:
	}
	k.mu.Unlock()
	timer := time.NewTimer(closeTime)
	defer timer.Stop()
	select {
	case <-k.gone:
	case <-timer.C:
		_ = k.net.Close()
		<-k.gone
	}
}

// given reports whether the client has given the connection up.
func (k *conn) given() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.dead
}
