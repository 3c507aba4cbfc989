package broker

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"quorate/fsm/command"
	"quorate/node/client"
	"quorate/node/listener"
	"quorate/node/session"
	"quorate/protocol/packet"
)

// link ties a Network Connection to its Session. It is the connection's client.Handler.
type link struct {
	b    *Broker
	conn *client.Conn
	info listener.Info

	// Fixed once the log has decided on the CONNECT, before anybody else sees the link.
	who     Principal
	version packet.Version
	ref     command.Ref
	serial  uint64
	bridge  bool   // of another broker, by the level of its CONNECT
	durable bool   // the log keeps the Session's subscriptions and exchanges
	expiry  uint32 // Session Expiry Interval of the CONNECT

	// The reader's own.
	aliases    []string
	aliasBytes int
	fan        *fanOut      // while packets are being handled
	decisions  *decisions   // where recent topics go
	direct     []directWait // direct QoS>0 publishes since the last Idle
	farewell   farewell

	logged   [3]atomic.Int32 // own publishes on the log road and not finished, by QoS
	straight [3]atomic.Int32 // own publishes on the direct road and not finished, by QoS
	after    atomic.Uint64   // log index that peers have applied before they take a direct message (P8)

	target      atomic.Uint64 // sequence up to which there is something to pull; 0: nothing
	subscribing atomic.Int32  // SUBSCRIBEs on their way through the log
	shared      atomic.Bool   // a transient Session has shared subscriptions: it pulls as well

	mu sync.Mutex
	handshake
	in       *session.Inbound
	out      *session.Outbound[outgoing] // see sends
	window   uint16                      // its Receive Maximum
	subs     map[string]*sub
	retained []retainedJob
	pullSize int  // how many messages the next pull asks for
	ended    bool // the log ended the ownership: nothing more is proposed for it
	closed   bool // the network connection ended: nothing more is sent
	noted    bool // it is in the list of those with progress
	waiting  bool // the reader waits for room
	room     chan struct{}
	gone     chan struct{} // closed when the connection is; nil: nobody waits
	finished bool
}

// farewell is what the client's DISCONNECT said.
type farewell struct {
	noWill    bool // Reason Code 0: the will is not sent [MQTT-3.14.4-3]
	hasExpiry bool
	expiry    uint32
}

// Packet implements client.Exchange.
func (l *link) Packet(p packet.Packet) error {
	switch p := p.(type) {
	case *packet.Publish:
		return l.publish(p)
	case *packet.Puback:
		l.puback(p)
	case *packet.Pubrec:
		l.pubrec(p)
	case *packet.Pubrel:
		return l.pubrel(p.PacketID)
	case *packet.Pubcomp:
		l.pubcomp(p.PacketID)
	case *packet.Subscribe:
		return l.subscribe(p)
	case *packet.Unsubscribe:
		return l.unsubscribe(p)
	case *packet.Pingreq:
		l.conn.SendIn(&packet.Pingresp{}, l.batch())
	case *packet.Disconnect:
		return l.disconnect(p)
	default:
		// AUTH without an Authentication Method in CONNECT [MQTT-4.12.0-7], or a packet that only a broker sends.
		return &packet.Error{Reason: packet.ProtocolError, Text: fmt.Sprintf("unexpected %v", p.Type())}
	}
	return nil
}

func (l *link) disconnect(p *packet.Disconnect) error {
	if p.Properties.HasSessionExpiry {
		if l.expiry == 0 && p.Properties.SessionExpirySeconds > 0 {
			return &packet.Error{Reason: packet.ProtocolError, Text: "session expiry set that CONNECT had as 0"}
		}
		l.farewell.hasExpiry, l.farewell.expiry = true, p.Properties.SessionExpirySeconds
	}
	l.farewell.noWill = p.ReasonCode == packet.NormalDisconnection
	return client.ErrDisconnected
}

// fanOuts holds fan-outs for readers that are handling packets. BenchmarkPublishQoS0: without the pool an idle publisher
// keeps 2 KiB.
var fanOuts = sync.Pool{New: func() any { return new(fanOut) }}

// fanOut returns the reader's fan-out, which Idle gives back.
func (l *link) fanOut() *fanOut {
	if l.fan == nil {
		l.fan = fanOuts.Get().(*fanOut)
		l.fan.b = l.b
	}
	return l.fan
}

// batch returns the batch of connections to be written when the reader has handled what it read.
func (l *link) batch() *client.Batch { return &l.fanOut().batch }

// flush starts the writers of everything queued so far, and the read index of direct publishes.
func (l *link) flush() {
	if l.fan != nil {
		l.fan.flushHere()
	}
	l.readIndex()
}

// Idle implements client.Pump.
func (l *link) Idle() {
	l.flush()
	if l.fan != nil {
		fanOuts.Put(l.fan)
		l.fan = nil
	}
}

// Holding implements client.Pump.
func (l *link) Holding() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.in == nil {
		return false
	}
	return l.in.Unanswered()
}

// wait blocks the reader until ready, which is called with the mutex held, is true.
func (l *link) wait(ready func() bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !ready() {
		if l.room == nil {
			l.room = make(chan struct{}, 1)
		}
		l.waiting = true
		l.mu.Unlock()
		l.flush()
		closed := false
		select {
		case <-l.room:
		case <-l.conn.Done():
			closed = true
		}
		l.mu.Lock()
		if closed {
			return errClosing
		}
	}
	l.waiting = false
	return nil
}

// signal lets a waiting reader look again; the mutex is held.
func (l *link) signal() {
	if l.waiting {
		select {
		case l.room <- struct{}{}:
		default:
		}
	}
}

// end says that the log has ended the ownership. Nothing of this connection may be acknowledged any more (P4).
func (l *link) end(reason packet.ReasonCode) {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.conn.Close(reason, "")
}

// isEnded returns whether the log has ended the ownership, as far as this node has applied it.
func (l *link) isEnded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// Closed implements client.Exchange: the connection's part in the trees, in the log and in the Session ends.
func (l *link) Closed(end client.End) {
	if errors.Is(end.Err, client.ErrPanic) {
		l.b.logger.Error("a bug ended a connection", "client_id", l.who.ClientID, "remote", l.info.RemoteAddr, "err", end.Err)
	}
	l.Idle()
	l.mu.Lock()
	l.closed = true
	subs, owned, routed := l.subs, l.owned && !l.ended, l.routed
	l.subs, l.retained = nil, nil
	l.abandoned = !l.owned
	var last session.Progress
	reported := false
	if owned && l.out != nil {
		last, reported = l.out.Final()
	}
	l.mu.Unlock()
	if l.ref.IsZero() {
		return
	}
	l.b.logger.Debug("connection closed", "client_id", l.who.ClientID, "remote", l.info.RemoteAddr, "reason", end.Reason, "err", end.Err)
	l.b.links.disown(l.ref)
	filters := make([]string, 0, len(subs))
	for filter, s := range subs {
		l.b.live.remove(filter, s)
		filters = append(filters, filter)
	}
	if routed {
		l.b.routes.release(filters)
	}
	if !owned {
		return
	}
	d := command.Disconnect{
		Ref: l.ref, SendWill: l.accepted && !(l.farewell.noWill && end.Reason == packet.NormalDisconnection),
		HasExpiry: l.farewell.hasExpiry, ExpirySeconds: l.farewell.expiry, Abandoned: !l.accepted,
	}
	if reported {
		l.b.enders.end(&command.Progress{Items: []command.ProgressItem{{
			Ref: l.ref, Cursor: last.Cursor, Done: last.Done, Received: last.Received,
		}}})
	}
	l.b.enders.end(&d)
}

// waitGone returns a channel that is closed when nothing of the connection runs any more.
func (l *link) waitGone() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone == nil {
		l.gone = make(chan struct{})
		if l.finished {
			close(l.gone)
		}
	}
	return l.gone
}

// notifyClosed tells the new owner of the Session, here or on another node, that this connection is gone.
func (l *link) notifyClosed() {
	l.mu.Lock()
	l.finished = true
	if l.gone != nil {
		close(l.gone)
	}
	ended := l.ended
	l.mu.Unlock()
	if !ended {
		return
	}
	if _, owner, connected := l.b.machine.Owner(l.who.ClientID); connected && owner != l.b.cfg.Node {
		l.b.peers.Send(owner, FrameClosed, appendRef(nil, l.ref))
	}
}
