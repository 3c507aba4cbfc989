// Package client is a raw MQTT client for tests. It is not a helpful library:
// it does exactly what the standard demands of a client, remembers what a
// client must remember over connections to different nodes, and writes every
// packet that matters into a check.History: each DUP flag, each resend, each
// acknowledgement with the connection that carried it.
//
// A Client is one Client Identifier with its session state: the publishes that
// are not acknowledged, in order, and the QoS 2 identifiers that wait for
// their PUBREL (method B: an identifier that waits is not a new message). Its
// connections come and go. It works over real TCP and over the in-memory
// network of a testing/synctest bubble; it blocks on channels and connections
// only.
package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"quorate/protocol/packet"
	"quorate/scripts/faults/check"
)

// Dial opens a Network Connection to the MQTT listener of the named node.
type Dial func(ctx context.Context, node string) (net.Conn, error)

// Options say who a Client is. ID, Version and Dial must be set.
type Options struct {
	ID             string
	Version        packet.Version
	Dial           Dial
	History        *check.History // nil records nothing
	CleanStart     bool           // of every connection
	Transient      bool           // the session ends with its connection; in version 3 this needs CleanStart
	ReceiveMaximum uint16         // 0 says nothing; version 5 only
	KeepAlive      uint16         // seconds; the client pings at half of it, and drops a connection that does not answer
	Will           func() *packet.Will
	OnMessage      func(Message) // called by the reading goroutine, in order; it may call methods that do not wait
	ManualAck      bool          // nothing is acknowledged but by Ack
	LowIDs         bool          // the lowest free packet identifier is taken, so that identifiers come again soon
	Quiet          bool          // deliveries are not recorded: for clients that only read retained messages
}

// Message is a PUBLISH that arrived and is a new delivery for this client.
type Message struct {
	Topic    string
	Payload  string
	QoS      byte
	Dup      bool
	Retain   bool
	PacketID uint16
	conn     *conn
}

// Errors of a Client.
var (
	ErrNotConnected = errors.New("client: not connected")
	ErrLost         = errors.New("client: connection lost")
	errSessionLost  = errors.New("client: session lost")
)

// Refused is a CONNACK, SUBACK or UNSUBACK with a Reason Code of 0x80 or more;
// codes of version 3 are given as those of version 5.
type Refused struct{ Reason packet.ReasonCode }

func (r *Refused) Error() string { return fmt.Sprintf("client: refused: %v", r.Reason) }

// Client is one Client Identifier and its state. All methods may be called by
// several goroutines at once.
type Client struct {
	opt Options

	mu          sync.Mutex
	cur         *conn // the connection whose CONNACK was good; nil without one
	nextID      uint16
	out         []*Publication // not ended, in the order they were first sent
	byID        map[uint16]*Publication
	in2         map[uint16]bool // QoS 2 identifiers that wait for PUBREL
	requests    map[uint16]*request
	subscribed  map[string]bool
	known       bool // a CONNACK was good, and the session is to stay
	sessionLost int  // CONNACKs without session present while something depended on one
	progress    chan struct{}
}

// request waits for a SUBACK or UNSUBACK.
type request struct {
	event  check.Event // of its operation; without an Op it is not recorded
	answer chan error  // gets nil, *Refused or ErrLost, once
}

func newRequest(e check.Event) *request {
	return &request{event: e, answer: make(chan error, 1)}
}

func (r *request) begin() check.Event {
	e := r.event
	e.Phase = check.Invoke
	return e
}

// New returns a client that is not connected.
func New(opt Options) *Client {
	return &Client{
		opt:        opt,
		byID:       map[uint16]*Publication{},
		in2:        map[uint16]bool{},
		requests:   map[uint16]*request{},
		subscribed: map[string]bool{},
		progress:   make(chan struct{}, 1),
	}
}

// ID returns the Client Identifier.
func (c *Client) ID() string { return c.opt.ID }

// Connected reports whether there is a connection, and its node.
func (c *Client) Connected() (node string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cur == nil {
		return "", false
	}
	return c.cur.node, true
}

// SessionLost returns how often a CONNACK without session present met a
// client that had something in its session.
func (c *Client) SessionLost() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sessionLost
}

// Progress returns a channel that gets a value after an acknowledgement, and
// after a connection was gained or lost. It is for one reader.
func (c *Client) Progress() <-chan struct{} { return c.progress }

func (c *Client) signal() {
	select {
	case c.progress <- struct{}{}:
	default:
	}
}

// Connect opens a connection to node and waits for its CONNACK until ctx
// ends. What was not acknowledged is sent again, in order, before anything
// else. A connection that is there is dropped first. A *Refused error is the
// broker's answer; after any other error it is not known whether the CONNECT
// took effect.
func (c *Client) Connect(ctx context.Context, node string) (present bool, err error) {
	c.Drop()
	nc, err := c.opt.Dial(ctx, node)
	if err != nil {
		return false, fmt.Errorf("dial %s: %w", node, err)
	}
	k := newConn(c, node, nc)
	k.start(c.connectPacket(k))
	select {
	case <-k.ready:
		return k.present, k.refused
	case <-k.gone:
		select {
		case <-k.ready: // a refusal, and then the end
			return k.present, k.refused
		default:
			return false, ErrLost
		}
	case <-ctx.Done():
		k.drop()
		return false, ctx.Err()
	}
}

// connectPacket makes the CONNECT and records it.
func (c *Client) connectPacket(k *conn) *packet.Connect {
	p := &packet.Connect{
		Version:    c.opt.Version,
		CleanStart: c.opt.CleanStart,
		KeepAlive:  c.opt.KeepAlive,
		ClientID:   c.opt.ID,
	}
	e := check.Event{Op: check.Connect, Phase: check.Invoke, Clean: p.CleanStart, Keep: !c.opt.Transient}
	if c.opt.Will != nil {
		p.Will = c.opt.Will()
		e.Topic, e.Value, e.QoS, e.Delay = p.Will.Topic, string(p.Will.Payload), p.Will.QoS, p.Will.DelaySeconds
	}
	if c.opt.Version == packet.V5 && !c.opt.Transient {
		p.Properties.HasSessionExpiry, p.Properties.SessionExpirySeconds = true, neverExpires
	}
	p.Properties.ReceiveMaximum = c.opt.ReceiveMaximum
	e.ID = k.op
	k.record(e)
	return p
}

// Disconnect writes DISCONNECT with reason and closes the connection. Version
// 3 has no reason: its DISCONNECT is always a normal one.
func (c *Client) Disconnect(reason packet.ReasonCode) {
	c.mu.Lock()
	k := c.cur
	c.mu.Unlock()
	if k == nil {
		return
	}
	if c.opt.Version != packet.V5 {
		reason = packet.NormalDisconnection
	}
	k.disconnect(reason)
}

// Drop closes the connection, if there is one, without DISCONNECT.
func (c *Client) Drop() {
	c.mu.Lock()
	k := c.cur
	c.mu.Unlock()
	if k != nil {
		k.drop()
	}
}

// Wait waits until the connection that is there now has ended, or ctx has.
func (c *Client) Wait(ctx context.Context) {
	c.mu.Lock()
	k := c.cur
	c.mu.Unlock()
	if k == nil {
		return
	}
	select {
	case <-k.gone:
	case <-ctx.Done():
	}
}

// Subscribe sends one SUBSCRIBE with one Topic Filter and waits for its
// SUBACK until ctx or the connection ends.
func (c *Client) Subscribe(ctx context.Context, s packet.Subscription) error {
	return c.ask(ctx, check.Subscribe, s.Filter, s.QoS, func(id uint16) packet.Packet {
		return &packet.Subscribe{PacketID: id, Subscriptions: []packet.Subscription{s}}
	})
}

// Unsubscribe sends one UNSUBSCRIBE with one Topic Filter and waits for its
// UNSUBACK until ctx or the connection ends.
func (c *Client) Unsubscribe(ctx context.Context, filter string) error {
	return c.ask(ctx, check.Unsubscribe, filter, 0, func(id uint16) packet.Packet {
		return &packet.Unsubscribe{PacketID: id, Filters: []string{filter}}
	})
}

// ask sends a request that is answered by Reason Codes.
func (c *Client) ask(ctx context.Context, op check.Op, filter string, qos byte, packetOf func(id uint16) packet.Packet) error {
	c.mu.Lock()
	k := c.cur
	if k == nil {
		c.mu.Unlock()
		return ErrNotConnected
	}
	req := newRequest(check.Event{Op: op, ID: c.opt.History.NextID(), Topic: filter, QoS: qos})
	id := c.freeID()
	c.requests[id] = req
	k.record(req.begin())
	k.write(packetOf(id))
	c.mu.Unlock()
	select {
	case err := <-req.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ReadRetained subscribes to name, which nobody subscribed to on this
// connection before, and waits for its retained message until ctx ends. If the
// SUBACK came, nothing followed it, and the connection still lives, there is
// no retained message: that is an answer too, "".
func (c *Client) ReadRetained(ctx context.Context, name string) (string, error) {
	c.mu.Lock()
	k := c.cur
	if k == nil {
		c.mu.Unlock()
		return "", ErrNotConnected
	}
	req := newRequest(check.Event{})
	id := c.freeID()
	c.requests[id] = req
	e := check.Event{Op: check.Read, ID: c.opt.History.NextID(), Topic: name, Phase: check.Invoke}
	got := make(chan string, 1)
	k.readTopic, k.retained = name, got
	k.record(e)
	k.write(&packet.Subscribe{PacketID: id, Subscriptions: []packet.Subscription{{Filter: name, QoS: 1}}})
	c.mu.Unlock()
	e.Phase = check.OK
	select {
	case e.Value = <-got:
		k.record(e)
		return e.Value, nil
	case <-k.gone:
		return "", ErrLost
	case <-ctx.Done():
	}
	select {
	case err := <-req.answer:
		if err == nil {
			e.Topic = ""
			k.record(e)
		}
		return "", err
	default:
		return "", ctx.Err()
	}
}

// freeID returns a packet identifier that is not in use. Called with mu held.
func (c *Client) freeID() uint16 {
	if c.opt.LowIDs {
		c.nextID = 0
	}
	for {
		c.nextID++
		if c.nextID != 0 && c.byID[c.nextID] == nil && c.requests[c.nextID] == nil {
			return c.nextID
		}
	}
}

// neverExpires is the Session Expiry Interval of a session that stays.
const neverExpires = 0xFFFFFFFF

// defaultAnswerTime bounds a ping without an answer when there is no other bound.
const defaultAnswerTime = 10 * time.Second
