package broker

import (
	"time"

	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/protocol/packet"
)

// ClientInfo is a connected client as an administrator sees it.
type ClientInfo struct {
	ClientID   string
	Identity   string
	Username   string
	RemoteAddr string
	Listener   string
	Version    packet.Version
	KeepAlive  time.Duration
	Ref        command.Ref
	Serial     uint64
	Persistent bool
	// Subscriptions are the plain ones; shared ones are known to the log.
	Subscriptions int
	// Inflight counts unfinished QoS>0 messages to the client, Queued those that wait in a transient Session's queue,
	// Publishing the client's own unfinished ones.
	Inflight, Queued, Publishing int
}

// Clients calls visit for every client that is connected to this node now, in no order, until it returns false.
func (b *Broker) Clients(visit func(c *ClientInfo) bool) {
	stopped := false
	b.links.each(func(l *link) {
		if stopped || !l.conn.Open() {
			return
		}
		l.mu.Lock()
		c := ClientInfo{
			ClientID: l.who.ClientID, Identity: l.who.Identity, Username: l.who.Username,
			RemoteAddr: l.info.RemoteAddr, Listener: l.info.Listener, Version: l.version, KeepAlive: l.conn.Deal().KeepAlive,
			Ref: l.ref, Serial: l.serial, Persistent: l.durable, Subscriptions: len(l.subs),
			Publishing: l.in.Publishing(),
		}
		if l.out != nil {
			c.Inflight, c.Queued = l.out.Unfinished(), l.out.LocalWaiting()
		}
		l.mu.Unlock()
		stopped = !visit(&c)
	})
}

// Publish puts a message of the node itself, or of its HTTP API, on the log. done gets the Reason Code a client would get,
// on the apply goroutine; its error says that the outcome is not known. Another error says that nothing was proposed.
func (b *Broker) Publish(m *command.Message, done func(code packet.ReasonCode, err error)) error {
	return b.log.Propose(&command.Publish{Message: *m}, func(r fsm.Result, err error) {
		code := r.Code
		if code == packet.Success && !r.Matched {
			code = packet.NoMatchingSubscribers
		}
		done(code, err)
	})
}
