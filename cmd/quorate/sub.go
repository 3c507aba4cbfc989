package main

import (
	"bufio"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"quorate/cmd/quorate/internal/client"
	"quorate/cmd/quorate/internal/format"
	"quorate/protocol/packet"
	"quorate/protocol/topic"
)

// errTimedOut ends sub when -W is over.
var errTimedOut = errors.New("timed out")

// sub subscribes and prints what it gets, until it is told to stop.
func sub(ctx context.Context, con console, args []string) int {
	opt, err := parseClient("sub", args)
	if err != nil {
		return clientUsage(con, "sub", err)
	}
	s := &subscriber{held: map[uint16]bool{}}
	if s.mqttClient, err = newMQTTClient(con, opt); err != nil {
		return clientUsage(con, "sub", err)
	}
	if opt.sub.format != "" {
		if s.format, err = format.Parse(opt.sub.format, opt.sub.pretty); err != nil {
			return clientUsage(con, "sub", err)
		}
	}
	s.out = bufio.NewWriterSize(lockedWriter{s.mqttClient}, 64<<10)
	s.idle = s.out.Flush
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if opt.sub.wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, opt.sub.wait, errTimedOut)
		defer cancel()
	}
	err = s.run(ctx)
	switch {
	case errors.Is(context.Cause(ctx), errTimedOut) && !errors.Is(err, errEnough):
		s.complain("Timed out")
		return exitTimeout
	case ctx.Err() != nil, errors.Is(err, errEnough):
		return exitOK
	}
	return s.fail(err)
}

// lockedWriter writes to the console without mixing with --debug.
type lockedWriter struct{ m *mqttClient }

func (w lockedWriter) Write(b []byte) (int, error) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	return w.m.con.out.Write(b)
}

// errEnough ends sub when it has done what it was asked for.
var errEnough = errors.New("done")

// subscriber prints messages over as many connections as it takes. One goroutine owns it.
type subscriber struct {
	*mqttClient
	out    *bufio.Writer
	format *format.Format

	conn    *client.Conn
	lastID  uint16
	asked   int             // SUBSCRIBE and UNSUBSCRIBE not yet answered
	printed int             // messages that count for -C
	held    map[uint16]bool // QoS 2: printed, and their PUBREL not yet here
	full    bool            // -C is reached: nothing more is taken from the broker
}

// run subscribes and prints until it has enough, ctx ends, or the broker refuses for good.
func (s *subscriber) run(ctx context.Context) error {
	conn, err := s.connect(ctx)
	for err == nil {
		s.conn = conn
		err = s.serve()
		if errors.Is(err, errEnough) || ctx.Err() != nil {
			flushed := s.out.Flush() // what is printed is acknowledged, and not the other way round
			conn.Disconnect(s.opt.disconnect())
			return errors.Join(err, flushed)
		}
		conn.Close()
		var gone *client.DisconnectedError
		var final *finalError
		if errors.As(err, &final) || errors.As(err, &gone) && forGood(gone.Reason) {
			return errors.Join(err, s.out.Flush())
		}
		conn, err = s.reconnect(ctx, err)
	}
	return err
}

// serve works on one connection until it ends.
func (s *subscriber) serve() error {
	if !s.conn.Connack.SessionPresent {
		clear(s.held) // the broker has forgotten the exchanges
	}
	s.subscribe()
	for {
		p, err := s.conn.Next()
		if err != nil {
			return err
		}
		if err := s.take(p); err != nil {
			return err
		}
	}
}

func (s *subscriber) subscribe() {
	s.asked = 0
	if len(s.opt.topics) > 0 {
		sub := &packet.Subscribe{PacketID: s.newID(), UserProperties: s.opt.userProperties("subscribe")}
		s.opt.forCommand("subscribe", func(p property) {
			if p.name == "subscription-identifier" {
				sub.SubscriptionID = uint32(p.number())
			}
		})
		for _, f := range s.opt.topics {
			one := packet.Subscription{Filter: f, QoS: s.opt.qos}
			if s.opt.sub.noRetained && s.opt.version == packet.V5 {
				one.RetainHandling = 2
			}
			sub.Subscriptions = append(sub.Subscriptions, one)
		}
		s.asked++
		s.conn.Queue(sub)
	}
	if len(s.opt.sub.unsubscribe) > 0 {
		s.asked++
		s.conn.Queue(&packet.Unsubscribe{PacketID: s.newID(), Filters: s.opt.sub.unsubscribe,
			UserProperties: s.opt.userProperties("unsubscribe")})
	}
}

func (s *subscriber) newID() uint16 {
	if s.lastID++; s.lastID == 0 {
		s.lastID = 1
	}
	return s.lastID
}

// take handles one packet.
func (s *subscriber) take(p packet.Packet) error {
	switch p := p.(type) {
	case *packet.Publish:
		return s.message(p)
	case *packet.Pubrel:
		delete(s.held, p.PacketID)
		s.conn.Queue(&packet.Pubcomp{PacketID: p.PacketID})
		return s.enough()
	case *packet.Suback:
		return s.subscribed(p)
	case *packet.Unsuback:
		s.asked--
		return s.enough()
	}
	return nil
}

// subscribed looks at the answer to SUBSCRIBE: with nothing granted there is nothing to wait for.
func (s *subscriber) subscribed(p *packet.Suback) error {
	s.asked--
	granted := false
	for i, code := range p.ReasonCodes {
		if code.Failed() && i < len(s.opt.topics) {
			s.complain("Subscription to %s denied: %s", s.opt.topics[i], code)
		}
		granted = granted || !code.Failed()
	}
	if !granted {
		return &finalError{"all subscription requests were denied"}
	}
	return s.enough()
}

// enough says whether all is done that was asked for. Of a QoS 2 message the exchange is done first.
func (s *subscriber) enough() error {
	if s.full && len(s.held) == 0 || s.opt.sub.exitAfterSub && s.asked == 0 {
		return errEnough
	}
	return nil
}

// message answers and prints one message. After the last one that -C wants nothing is acknowledged any more, so that the
// session keeps the rest.
func (s *subscriber) message(p *packet.Publish) error {
	if s.held[p.PacketID] && p.QoS == 2 {
		s.conn.Queue(&packet.Pubrec{PacketID: p.PacketID}) // sent again: printed before
		return nil
	}
	if s.full {
		return nil
	}
	switch p.QoS {
	case 1:
		s.conn.Queue(&packet.Puback{PacketID: p.PacketID})
	case 2:
		s.held[p.PacketID] = true
		s.conn.Queue(&packet.Pubrec{PacketID: p.PacketID})
	}
	if s.opt.sub.retainedOnly && !p.Retain {
		s.full = true
		return s.enough()
	}
	if s.filtered(p) {
		return nil
	}
	if p.Retain && s.opt.sub.removeRetained {
		s.conn.Queue(&packet.Publish{Topic: p.Topic, Retain: true})
	}
	if err := s.print(p); err != nil {
		return err
	}
	s.printed++
	s.full = s.opt.sub.count > 0 && s.printed >= s.opt.sub.count
	return s.enough()
}

// filtered reports whether the flags want this message not to be printed.
func (s *subscriber) filtered(p *packet.Publish) bool {
	o := &s.opt.sub
	return p.Retain && o.noRetained ||
		slices.ContainsFunc(o.filterOut, func(f string) bool { return topic.Match(f, p.Topic) }) ||
		o.percent < 100 && rand.Float64()*100 >= o.percent
}

// print writes one message in the format asked for.
func (s *subscriber) print(p *packet.Publish) error {
	line := s.out.AvailableBuffer()
	switch {
	case s.format != nil:
		m, err := received(p)
		if err == nil {
			line, err = s.format.Append(line, m)
		}
		if err != nil {
			s.complain("Error: %s", err)
			return nil
		}
	case s.opt.sub.verbose && len(p.Payload) == 0:
		line = append(append(line, p.Topic...), " (null)"...)
	case s.opt.sub.verbose:
		line = append(append(append(line, p.Topic...), ' '), p.Payload...)
	case len(p.Payload) == 0:
		return nil // mosquitto_sub prints no empty lines
	default:
		line = append(line, p.Payload...)
	}
	if !s.opt.sub.noEOL {
		line = append(line, '\n')
	}
	if _, err := s.out.Write(line); err != nil {
		return &finalError{"write to standard output: " + err.Error()}
	}
	return nil
}

// received is the message as the formats see it.
func received(p *packet.Publish) (*format.Message, error) {
	f, err := packet.ParseForwarded(p.Forwarded)
	if err != nil {
		return nil, err
	}
	m := &format.Message{
		Time: time.Now(), Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, Retain: p.Retain, PacketID: p.PacketID,
		Correlation: f.CorrelationData, SubscriptionIDs: p.SubscriptionIDs,
	}
	if p.HasExpiry {
		m.ExpirySeconds = &p.ExpirySeconds
	}
	if f.ContentType != "" {
		m.ContentType = &f.ContentType
	}
	if f.ResponseTopic != "" {
		m.ResponseTopic = &f.ResponseTopic
	}
	if f.PayloadIsUTF8 {
		one := byte(1)
		m.PayloadFormat = &one
	}
	for _, u := range f.UserProperties {
		m.UserProperties = append(m.UserProperties, format.UserProperty{Name: u.Name, Value: u.Value})
	}
	return m, nil
}
