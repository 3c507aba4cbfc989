package client

import (
	"net"
	"sync"
	"time"

	"quorate/protocol/packet"
)

// shareBytesMin is the payload size from which a message is not copied into the buffer of every client.
const shareBytesMin = 4 << 10

// chunkBytesMax bounds one write, so that WriteTimeout asks little of a slow client.
const chunkBytesMax = 256 << 10

// outbound is what waits to be written.
type outbound struct {
	mu       sync.Mutex
	idle     *sync.Cond  // signalled when writing becomes false; nil: nobody waits
	sealed   net.Buffers // before buf; payloads in it are shared and immutable
	buf      *[]byte
	pending  int // bytes queued and not yet written, also those in the hands of the writer
	counts   [16]uint32
	writing  bool // a writer runs, or a Batch will start one
	kicked   bool // Fill is wanted
	closing  bool // nothing more is queued
	failed   bool // the network failed: what is queued is dropped
	accepted bool
	bug      error             // ErrPanic of the writer, nil without one
	reason   packet.ReasonCode // why the broker closes
	deadline time.Time         // write deadline in force; writer only
}

// buffers holds write buffers: an idle connection has none. BenchmarkFanOut: without the pool 1 allocation of 512 B a
// write.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

const pooledBytesMax = 64 << 10

// Batch gathers the connections that a run of messages was queued for, so that each gets one write for all of them. The
// zero Batch is ready. Flush or FlushHere has to follow, or they stay unwritten.
type Batch struct{ conns []*Conn }

// batchHereMax is how many connections FlushHere writes itself; more would keep a publisher from being read for long.
const batchHereMax = 32

// Flush has them written soon, by others.
func (b *Batch) Flush() {
	if len(b.conns) == 0 {
		return
	}
	if w := b.conns[0].cfg.Writers; w != nil {
		w.add(b.conns...)
	} else {
		for _, c := range b.conns {
			go c.write()
		}
	}
	b.reset()
}

// FlushHere writes what clients take at once, and leaves the rest to others. It is for who has no more to queue: a write
// here costs no goroutine and no wake-up (raw.go has the figures). Sessions are not filled here.
func (b *Batch) FlushHere() {
	if len(b.conns) > batchHereMax {
		b.Flush()
		return
	}
	for _, c := range b.conns {
		if c.out.kickedNow() {
			c.start(true, nil)
			continue
		}
		c.writeWithout()
	}
	b.reset()
}

func (b *Batch) reset() {
	clear(b.conns)
	b.conns = b.conns[:0]
}

func (o *outbound) kickedNow() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kicked
}

// Message is an encoded PUBLISH: Head is everything before the payload. Both may be shared by many connections. Head is
// copied; a payload of 4 KiB and more is not and has to stay unchanged for ever.
type Message struct {
	Head     []byte
	Payload  []byte
	IDOffset int    // where the Packet Identifier stands in Head; 0 or less: QoS 0
	ID       uint16 // Packet Identifier to put there
	Dup      bool   // set the DUP flag
}

// Shares returns whether a payload of n bytes is kept instead of copied.
func Shares(n int) bool { return n >= shareBytesMin }

// Bytes returns the size of the whole packet.
func (m *Message) Bytes() int { return len(m.Head) + len(m.Payload) }

// PublishQoS0 queues a QoS 0 message, or returns false when too much waits already: it is dropped and counted here.
// Before CONNACK and after the end it is dropped as well, uncounted: the client is not connected.
func (c *Conn) PublishQoS0(m *Message, b *Batch) bool {
	if !c.open.Load() {
		return false
	}
	if c.TooLarge(m.Bytes()) {
		c.metrics.DroppedTooLarge.Add(1)
		return false
	}
	o := &c.out
	o.mu.Lock()
	if o.pending+m.Bytes() > c.cfg.QoS0BytesMax && o.pending > 0 {
		o.mu.Unlock()
		c.metrics.DroppedQoS0.Add(1)
		return false
	}
	start := c.queueMessage(m)
	o.mu.Unlock()
	c.start(start, b)
	return true
}

// TooLarge returns whether a packet of n bytes is larger than the client takes [MQTT-3.1.2-24].
func (c *Conn) TooLarge(n int) bool {
	limit := c.deal.Receiver.MaxPacketBytes
	return limit > 0 && n > int(limit)
}

// Publish queues a message of any QoS whatever waits; Fill uses it and stops when there is no Room.
func (c *Conn) Publish(m *Message) { c.PublishIn(m, nil) }

// PublishIn is Publish, with the writer started by b.
func (c *Conn) PublishIn(m *Message, b *Batch) {
	c.out.mu.Lock()
	start := c.queueMessage(m)
	c.out.mu.Unlock()
	c.start(start, b)
}

// Room returns how many more bytes Fill should queue; 0 or less: none.
func (c *Conn) Room() int {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.cfg.FillBytes - c.out.pending
}

// Send queues a control packet. One that is too large for the client even without its Reason String and User Properties
// is not sent [MQTT-3.1.2-24].
func (c *Conn) Send(p packet.Packet) { c.send(p, nil) }

// SendIn is Send, with the writer started by b.
func (c *Conn) SendIn(p packet.Packet, b *Batch) { c.send(p, b) }

func (c *Conn) send(p packet.Packet, b *Batch) {
	var small [64]byte
	enc, fits := c.deal.Receiver.Append(small[:0], p)
	if !fits || len(enc) == 0 {
		return
	}
	o := &c.out
	o.mu.Lock()
	start := c.queue(enc, p.Type())
	o.mu.Unlock()
	c.start(start, b)
}

// queueMessage appends a PUBLISH; out.mu is held. It returns whether a writer has to be started.
func (c *Conn) queueMessage(m *Message) bool {
	o := &c.out
	if o.closing || o.failed {
		return false
	}
	buf := c.buffer()
	at := len(*buf)
	*buf = append(*buf, m.Head...)
	if m.IDOffset > 0 {
		packet.SetPacketID((*buf)[at:], m.IDOffset, m.ID)
	}
	if m.Dup {
		packet.SetDup((*buf)[at:])
	}
	if len(m.Payload) < shareBytesMin {
		*buf = append(*buf, m.Payload...)
	} else {
		o.sealed = append(o.sealed, *buf, m.Payload)
		o.buf = nil
	}
	o.pending += m.Bytes()
	o.counts[packet.TypePublish]++
	return c.claim()
}

// queue appends an encoded control packet; out.mu is held.
func (c *Conn) queue(enc []byte, t packet.Type) bool {
	o := &c.out
	if o.closing || o.failed {
		return false
	}
	if o.pending > c.cfg.OutboundBytesMax {
		c.metrics.ClosedSlow.Add(1)
		c.fail()
		return false
	}
	buf := c.buffer()
	*buf = append(*buf, enc...)
	o.pending += len(enc)
	o.counts[t&15]++
	return c.claim()
}

func (c *Conn) buffer() *[]byte {
	if c.out.buf == nil {
		c.out.buf = buffers.Get().(*[]byte)
	}
	return c.out.buf
}

// claim makes the caller the one who starts the writer, if none runs.
func (c *Conn) claim() bool {
	if c.out.writing {
		return false
	}
	c.out.writing = true
	return true
}

func (c *Conn) start(claimed bool, b *Batch) {
	switch {
	case !claimed:
	case b != nil:
		b.conns = append(b.conns, c)
	case c.cfg.Writers != nil:
		c.cfg.Writers.add(c)
	default:
		go c.write()
	}
}

// Kick asks for a Fill soon.
func (c *Conn) Kick() { c.KickIn(nil) }

// KickIn is Kick, with the writer started by b.
func (c *Conn) KickIn(b *Batch) {
	o := &c.out
	o.mu.Lock()
	o.kicked = true
	start := !o.closing && o.accepted && c.claim()
	o.mu.Unlock()
	c.start(start, b)
}

// write is the writer: it writes until nothing is queued and no Fill is wanted.
func (c *Conn) write() {
	if err := c.protect(c.writeAll); err != nil {
		c.writerFailed(err)
	}
}

// writerFailed ends the connection after a panic of its writer.
func (c *Conn) writerFailed(err error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.bug = err
	c.fail()
	c.stopWriting()
}

func (c *Conn) writeAll() {
	var vec net.Buffers
	for {
		last, counts, done := c.take(&vec)
		if done {
			return
		}
		n, err := c.writeVec(vec)
		c.countWritten(&counts, n)
		release(last)
		c.out.mu.Lock()
		c.out.pending -= n
		if err != nil {
			c.fail()
		}
		c.out.mu.Unlock()
	}
}

// take fills the connection if that is wanted, and takes everything queued into vec; done says that there is nothing, and
// that the writer's term has ended. last is the buffer to give back when it is written.
func (c *Conn) take(vec *net.Buffers) (last *[]byte, counts [16]uint32, done bool) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.kicked && o.accepted && !o.closing && o.pending < c.cfg.FillBytes/2 {
		o.kicked = false
		c.fillUnlocked()
	}
	if o.failed || len(o.sealed) == 0 && o.buf == nil {
		c.stopWriting()
		return nil, counts, true
	}
	*vec = append((*vec)[:0], o.sealed...)
	if last = o.buf; last != nil {
		*vec = append(*vec, *last)
	}
	o.sealed, o.buf = nil, nil
	counts, o.counts = o.counts, counts
	return last, counts, false
}

// fillUnlocked asks for a Fill without out.mu, which is held before and after, also when Fill panics.
func (c *Conn) fillUnlocked() {
	c.out.mu.Unlock()
	defer c.out.mu.Lock()
	c.handler.Fill()
}

// release gives a buffer back to the pool.
func release(buf *[]byte) {
	if buf == nil || cap(*buf) > pooledBytesMax {
		return
	}
	*buf = (*buf)[:0]
	buffers.Put(buf)
}

// stopWriting ends the writer's term; out.mu is held.
func (c *Conn) stopWriting() {
	o := &c.out
	if c.raw != nil && !o.closing && !o.deadline.IsZero() {
		// One that has passed would fail the next write, which may come without waiting.
		o.deadline = time.Time{}
		_ = c.nc.SetWriteDeadline(o.deadline)
	}
	o.writing = false
	if o.idle != nil {
		o.idle.Broadcast()
	}
}

// writeVec writes all of vec in chunks that each have WriteTimeout.
func (c *Conn) writeVec(vec net.Buffers) (total int, err error) {
	if len(vec) == 1 && len(vec[0]) <= chunkBytesMax {
		if err := c.renewDeadline(); err != nil {
			return 0, err
		}
		c.metrics.Writes.Add(1)
		return c.nc.Write(vec[0])
	}
	for len(vec) > 0 {
		chunk, size := vec[:0:0], 0
		for len(vec) > 0 && size < chunkBytesMax {
			piece := vec[0]
			if len(piece) > chunkBytesMax-size {
				piece = piece[:chunkBytesMax-size]
			}
			chunk, size = append(chunk, piece), size+len(piece)
			if vec[0] = vec[0][len(piece):]; len(vec[0]) == 0 {
				vec = vec[1:]
			}
		}
		if err := c.renewDeadline(); err != nil {
			return total, err
		}
		c.metrics.Writes.Add(1)
		n, err := chunk.WriteTo(c.nc)
		total += int(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// renewDeadline moves the write deadline when half of it has passed: setting it with every write costs a tenth of one.
func (c *Conn) renewDeadline() error {
	now := time.Now()
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	timeout := c.cfg.WriteTimeout
	if c.out.closing {
		return nil // set by shut
	}
	if c.out.deadline.Sub(now) > timeout/2 {
		return nil
	}
	c.out.deadline = now.Add(timeout)
	return c.nc.SetWriteDeadline(c.out.deadline)
}

func (c *Conn) countWritten(counts *[16]uint32, n int) {
	for t, k := range counts {
		if k > 0 {
			c.metrics.PacketsOut[t].Add(uint64(k))
		}
	}
	c.metrics.BytesOut.Add(uint64(n))
}
