// Package client serves one Network Connection of an MQTT client: the CONNECT handshake, reading, writing on demand,
// Keep Alive, and closing with the right last packet. It knows packets but no topics, sessions or other clients: what a
// packet means is the Handler's business (node/broker).
//
// # Goroutines
//
// A connection has one goroutine while it is idle: its reader. Whoever has something for the client appends it to a
// bounded buffer; when nobody is writing, one goroutine is started that writes until the buffer is empty and then ends.
// All that was appended meanwhile goes out in one system call.
//
// # Why not a writer goroutine and a channel
//
// That costs a second stack and a channel for each idle connection (10.4 KiB against 4.0 KiB each in our measurement),
// and a wake-up for each message instead of one for each write.
//
// # Bounds
//
// QoS 0 messages are dropped, and counted, when Config.QoS0BytesMax bytes wait for a client that reads too slowly.
// QoS 1 and 2 messages are taken from the Session only while the buffer is short (Handler.Fill). When packets that may
// not be dropped exceed Config.OutboundBytesMax, or one write takes longer than Config.WriteTimeout, the connection is
// closed.
package client

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"quorate/protocol/packet"
)

// Handler decides what a connection does. Every connection has its own. Except where said otherwise the methods are
// called by the connection's reader, one after the other.
type Handler interface {
	Exchange
	Pump
}

// Exchange handles the packets of the client.
type Exchange interface {
	// Connect decides on the CONNECT. The connection sends the CONNACK, with a Reason Code of 0x80 or more it is closed.
	// It may block until the decision is made; the Deal is in force from then on.
	Connect(p *packet.Connect) (*packet.Connack, Deal)
	// Packet handles any later packet, which is valid only during the call. A *packet.Error ends the connection with its
	// Reason Code, ErrDisconnected without one.
	Packet(p packet.Packet) error
	// Closed says that no packet of the client will come any more. It is called once, whether or not Connect was.
	Closed(end End)
}

// Pump moves messages to the client in step with what it takes.
type Pump interface {
	// Idle says that all that was read is handled and the reader is about to wait.
	Idle()
	// Fill is asked for more packets after a Kick, by the writer, when there is Room. Never before CONNACK is sent.
	Fill()
	// Holding returns whether the client waits for the broker to acknowledge a PUBLISH: its Keep Alive does not run out
	// meanwhile. Any goroutine.
	Holding() bool
}

// Deal is what CONNECT and CONNACK settled.
type Deal struct {
	KeepAlive time.Duration   // 0: none
	Receiver  packet.Receiver // version, and what the client does not take
}

// Conn is one Network Connection. Its methods are safe for concurrent use.
type Conn struct {
	nc      net.Conn
	cfg     *Config
	metrics *Metrics
	handler Handler
	reader  *packet.Reader
	deal    Deal
	done    chan struct{} // made by Done; guarded by out.mu
	raw     syscall.RawConn
	reading rawRead

	counts   [16]uint32 // packets read since the last Idle, by type; reader only
	bytesIn  uint64     // bytes read since the last Idle; reader only
	lastRead int64      // nanoseconds since base of the last complete packet; reader only
	base     time.Time

	open atomic.Bool // CONNACK of success is sent
	out  outbound
}

// New returns a connection that is served by Serve.
func New(nc net.Conn, cfg *Config, m *Metrics, h Handler) *Conn {
	c := &Conn{nc: nc, raw: rawOf(nc), cfg: cfg, metrics: m, handler: h, base: time.Now()}
	opt := cfg.Reader
	opt.MaxPacketBytes = min(cfg.ConnectBytesMax, cfg.Reader.MaxPacketBytes)
	var source io.Reader = (*deadlineReader)(c)
	if c.raw != nil {
		c.reading.try = c.tryRead
		source = (*lazyReader)(c)
	}
	c.reader = packet.NewReaderOptions(source, packet.FromClient, opt)
	return c
}

// Version returns the protocol version of the CONNECT. Valid once the Deal is in force.
func (c *Conn) Version() packet.Version { return c.deal.Receiver.Version }

// RemoteAddr returns the client's network address.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Net returns the underlying connection, for what a listener attached to it. It is not for reading or writing.
func (c *Conn) Net() net.Conn { return c.nc }

// Open returns whether the connection is accepted and not closing.
func (c *Conn) Open() bool { return c.open.Load() }

// Done is closed when the connection begins to close. A channel got before Connect has returned is not to be used later.
func (c *Conn) Done() <-chan struct{} {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
	}
	return c.done
}

// forget gives up a Done that was asked for during CONNECT and that nobody holds any more: 96 B of an idle connection.
func (c *Conn) forget() {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if !c.out.closing {
		c.done = nil
	}
}

// ended is the Done of all connections that were closed before anybody asked: 96 B of an idle one.
var ended = func() chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}()

// Closing returns whether the connection has begun to close.
func (c *Conn) Closing() bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.closing
}

// Deal returns what CONNECT and CONNACK settled.
func (c *Conn) Deal() *Deal { return &c.deal }
