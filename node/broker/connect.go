package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/node/client"
	"quorate/node/session"
	"quorate/protocol/packet"
)

// errClosing ends a reader whose connection is being closed already.
var errClosing = errors.New("connection is closing")

// never is a Session Expiry Interval without end.
const never = 0xFFFFFFFF

// authenticateTimeout bounds an Authenticator.
const authenticateTimeout = 10 * time.Second

// handshake is the state of a CONNECT on its way through the log; guarded by link.mu.
type handshake struct {
	decided   chan struct{} // closed when the log has decided
	result    fsm.Result
	err       error
	owned     bool // the log gave the ownership
	abandoned bool // nobody waits for the decision any more: an ownership is given back
	accepted  bool // CONNACK of success
	routed    bool // the filters of subs are counted in routes
}

// Connect implements client.Exchange.
func (l *link) Connect(p *packet.Connect) (*packet.Connack, client.Deal) {
	l.version, l.bridge = p.Version, p.Bridge
	deal := client.Deal{Receiver: packet.Receiver{
		Version: p.Version, MaxPacketBytes: p.Properties.MaximumPacketSize, NoProblemInformation: p.Properties.NoProblemInformation,
	}}
	ack := &packet.Connack{}
	if ack.ReasonCode = l.examine(p, ack); ack.ReasonCode.Failed() {
		return ack, deal
	}
	if ack.ReasonCode = l.authenticate(p); ack.ReasonCode.Failed() {
		l.b.logger.Info("client refused", "client_id", l.who.ClientID, "remote", l.info.RemoteAddr, "reason", ack.ReasonCode)
		return ack, deal
	}
	if ack.ReasonCode = l.own(p); ack.ReasonCode.Failed() {
		return ack, deal
	}
	deal.KeepAlive = l.keepAlive(p, ack)
	ack.SessionPresent = l.result.Present
	l.describe(p, ack)
	l.mu.Lock()
	l.accepted = true
	l.mu.Unlock()
	return ack, deal
}

// examine checks what can be checked before anybody is asked, and gives the client an identifier if it has none.
func (l *link) examine(p *packet.Connect, ack *packet.Connack) packet.ReasonCode {
	switch {
	case l.b.closing.Load():
		return packet.ServerUnavailable
	case p.Properties.AuthenticationMethod != "":
		return packet.BadAuthenticationMethod // [MQTT-4.12.0-1]
	case p.ClientID == "" && (p.Version == packet.V31 || p.Version == packet.V311 && !p.CleanStart):
		return packet.ClientIdentifierNotValid // [MQTT-3.1.3-8] of 3.1.1
	case p.ClientID == "":
		p.ClientID = "auto-" + rand.Text()
		ack.Properties.AssignedClientID = p.ClientID // [MQTT-3.2.2-16]
	}
	if w := p.Will; w != nil && (strings.HasPrefix(w.Topic, sharePrefix) || strings.HasPrefix(w.Topic, delayedPrefix) || tooDeep(w.Topic)) {
		return packet.TopicNameInvalid
	}
	return packet.Success
}

func (l *link) authenticate(p *packet.Connect) packet.ReasonCode {
	ctx, cancel := context.WithTimeout(context.Background(), authenticateTimeout)
	defer cancel()
	identity, err := l.b.cfg.Auth.Authenticate(ctx, &Credentials{
		ClientID: p.ClientID, Username: p.Username, Password: p.Password,
		HasUsername: p.HasUsername, HasPassword: p.HasPassword, Connection: l.info,
	})
	l.who = Principal{Identity: identity, ClientID: p.ClientID, Username: p.Username, Connection: &l.info}
	var perr *packet.Error
	switch {
	case errors.As(err, &perr):
		return perr.Reason
	case err != nil:
		return packet.NotAuthorized
	}
	if p.Will != nil && !l.mayPublish(p.Will.Topic) {
		l.b.metrics.RefusedAccess.Add(1)
		return packet.NotAuthorized
	}
	return packet.Success
}

// mayPublish asks the Authorizer; topics of the broker itself are nobody's.
func (l *link) mayPublish(topic string) bool {
	return topic != "$SYS" && !strings.HasPrefix(topic, sysPrefix) && l.b.cfg.Access.MayPublish(&l.who, topic)
}

// own takes the CONNECT through the log.
func (l *link) own(p *packet.Connect) packet.ReasonCode {
	l.expiry = p.Properties.SessionExpirySeconds
	if p.Version != packet.V5 {
		l.expiry = never
		if p.CleanStart {
			l.expiry = 0
		}
	}
	closed := l.expectClosed()
	l.mu.Lock()
	l.decided = make(chan struct{})
	l.mu.Unlock()
	window := l.windowOf(p)
	c := &command.Connect{
		ClientID: p.ClientID, Identity: l.who.Identity, Version: byte(p.Version), CleanStart: p.CleanStart,
		ExpirySeconds: l.expiry, ReceiveMaximum: uint16(window),
	}
	if w := p.Will; w != nil {
		c.Will = &command.Will{DelaySeconds: w.DelaySeconds, Message: command.Message{
			Topic: w.Topic, QoS: w.QoS, Retain: w.Retain, HasExpiry: w.HasExpiry, ExpirySeconds: w.ExpirySeconds,
			Forwarded: w.Forwarded, Payload: w.Payload,
		}}
	}
	if l.proposeConnect(c, window) != nil {
		return packet.ServerBusy
	}
	if code := l.await(); code.Failed() {
		return code
	}
	if closed.refused(l.b.cfg.TakeOverTimeout) {
		return packet.ServerUnavailable
	}
	return l.route()
}

// windowOf is how many unfinished QoS>0 messages the client gets at once.
func (l *link) windowOf(p *packet.Connect) int {
	if rm := int(p.Properties.ReceiveMaximum); rm > 0 {
		return min(rm, l.b.cfg.InflightMax)
	}
	return l.b.cfg.InflightMax
}

// proposeConnect proposes the Connect, and again while another connection is faster: each time with what this node knows
// by then. One that the client does not wait for any more takes nothing from a connection it made since.
func (l *link) proposeConnect(c *command.Connect, window int) error {
	c.Before = l.b.machine.NextEpoch()
	return l.b.log.Propose(c, func(r fsm.Result, err error) {
		if err == nil && r.Newer && l.waits() && l.proposeConnect(c, window) == nil {
			return
		}
		l.decide(r, err, window)
	})
}

// waits returns whether the client still waits for the decision on its CONNECT.
func (l *link) waits() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.abandoned
}

// await waits for the decision of the log.
func (l *link) await() packet.ReasonCode {
	timeout := time.NewTimer(l.b.cfg.ConnectTimeout)
	defer timeout.Stop()
	select {
	case <-l.decided:
	case <-timeout.C:
	case <-l.conn.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.decided:
	default:
		// The command may still be applied: whatever it gives is given back then.
		l.abandoned = true
		l.b.metrics.ConnectTimeouts.Add(1)
		return packet.ServerUnavailable
	}
	if l.err != nil {
		return packet.ServerUnavailable
	}
	return l.result.Code
}

// decide is the callback of the Connect command, on the apply goroutine.
func (l *link) decide(r fsm.Result, err error, window int) {
	var state fsm.SessionState
	holds := false
	if err == nil && !r.Code.Failed() {
		// Without holds another CONNECT of the same entry was faster; ConnectionEnded found nobody yet.
		state, holds = l.b.machine.Session(r.Ref)
	}
	l.mu.Lock()
	defer close(l.decided)
	r.Codes, r.Existed = nil, nil
	l.result, l.err = r, err
	if err != nil || r.Code.Failed() {
		l.mu.Unlock()
		return
	}
	if l.abandoned {
		l.mu.Unlock()
		l.b.enders.end(&command.Disconnect{Ref: r.Ref, Abandoned: true})
		return
	}
	l.owned, l.ended = true, !holds
	l.ref, l.serial, l.durable = r.Ref, r.Serial, r.Persistent
	l.in = session.NewInbound(l.b.cfg.ReceiveMaximum, l.durable)
	l.window = uint16(window)
	if l.durable || state.Cursor > 0 {
		l.out = l.newOutbound(&state)
	}
	l.mu.Unlock()
	if !holds {
		l.conn.Close(packet.SessionTakenOver, "")
		return
	}
	l.b.links.own(r.Ref, l)
	l.resume(&state)
}

// newOutbound makes the sending side of the Session, which goes on where the log says it stands.
func (l *link) newOutbound(state *fsm.SessionState) *session.Outbound[outgoing] {
	return session.NewOutbound[outgoing](session.Limits{
		ReceiveMaximum: int(l.window), Cursor: state.Cursor, ResendBound: state.ResendBound,
		LocalMessageMax: l.b.cfg.QueueMessagesMax, LocalBytesMax: l.b.cfg.QueueBytesMax,
	})
}

// sends returns the sending side of the Session, once there is an in; the mutex is held. That of a transient Session
// begins with the first message for it: 480 B of an idle connection.
func (l *link) sends() *session.Outbound[outgoing] {
	if l.out == nil {
		l.out = l.newOutbound(&fsm.SessionState{})
	}
	return l.out
}

// resume puts the subscriptions of a Session that was there before into the live tree.
func (l *link) resume(state *fsm.SessionState) {
	l.want(everything)
	for i := range state.Subscriptions {
		s := &state.Subscriptions[i]
		if strings.HasPrefix(s.Filter, sharePrefix) {
			l.shared.Store(true)
			continue
		}
		l.setSubscription(s.Filter, &options{id: s.ID, qos: s.QoS, noLocal: s.NoLocal, rap: s.RetainAsPublished})
	}
}

// route counts the filters of a resumed Session, for QoS 0 messages of other nodes.
func (l *link) route() packet.ReasonCode {
	l.mu.Lock()
	filters := make([]string, 0, len(l.subs))
	for f := range l.subs {
		filters = append(filters, f)
	}
	l.mu.Unlock()
	if err := l.b.routes.acquire(filters); err != nil {
		return packet.ServerBusy
	}
	l.mu.Lock()
	l.routed = true
	l.mu.Unlock()
	return packet.Success
}

// keepAlive returns the Keep Alive in force, and tells the client if it is not its own [MQTT-3.2.2-21].
func (l *link) keepAlive(p *packet.Connect, ack *packet.Connack) time.Duration {
	k := time.Duration(p.KeepAlive) * time.Second
	limit := l.b.cfg.KeepAliveMax.Truncate(time.Second)
	if limit == 0 || k > 0 && k <= limit {
		return k
	}
	ack.Properties.HasServerKeepAlive = true
	ack.Properties.ServerKeepAlive = uint16(min(limit/time.Second, 65535))
	return limit
}

// describe tells a version 5 client the limits of the broker.
func (l *link) describe(p *packet.Connect, ack *packet.Connack) {
	props := &ack.Properties
	if l.b.cfg.ReceiveMaximum != 65535 {
		props.ReceiveMaximum = uint16(l.b.cfg.ReceiveMaximum)
	}
	props.MaximumPacketSize = uint32(l.b.client.Reader.MaxPacketBytes)
	props.TopicAliasMaximum = uint16(l.b.cfg.TopicAliasMaximum)
	if l.result.ExpirySeconds != l.expiry && l.result.ExpirySeconds != 0 {
		props.HasSessionExpiry, props.SessionExpirySeconds = true, l.result.ExpirySeconds
	}
}
