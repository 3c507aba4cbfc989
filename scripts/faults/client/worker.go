package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"quorate/protocol/packet"
)

// Roam keeps a client connected to one node or another.
type Roam struct {
	Client *Client
	Nodes  []string
	Rand   *rand.Rand // its own: it is used by one goroutine
	// Patience is how long a CONNECT, a SUBSCRIBE, or progress of publishes is
	// waited for before another node is tried.
	Patience time.Duration
	// Backoff is the longest random wait before the next attempt.
	Backoff time.Duration
}

// Connect connects to a random node, and to another one until a CONNACK is
// good or ctx ends.
func (r *Roam) Connect(ctx context.Context) (present bool, err error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, r.Patience)
		present, err = r.Client.Connect(attempt, r.Nodes[r.Rand.IntN(len(r.Nodes))])
		cancel()
		if err == nil {
			return present, nil
		}
		if !pause(ctx, time.Duration(r.Rand.Int64N(int64(r.Backoff)))) {
			return false, errors.Join(err, ctx.Err())
		}
	}
}

// pause waits for d and reports false if ctx has ended before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Post is one message that a Publisher is to publish.
type Post struct {
	Topic, Value string
	QoS          byte
	Retain       bool
	Pause        time.Duration // before it
}

// Publisher publishes with at most Window publishes that are not
// acknowledged, over as many connections as that takes.
type Publisher struct {
	Roam
	Window int
}

// Run publishes what next returns until it returns false, and then waits
// until all is acknowledged. It returns the error of ctx if that ends first.
func (p *Publisher) Run(ctx context.Context, next func() (Post, bool)) error {
	post, more := next()
	for more || p.Client.Unacked() > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, ok := p.Client.Connected(); !ok {
			if _, err := p.Connect(ctx); err != nil {
				return err
			}
			continue
		}
		if !more || p.Client.Unacked() >= p.Window {
			p.await(ctx)
			continue
		}
		if post.Pause > 0 {
			wait := post.Pause
			post.Pause = 0
			if !pause(ctx, wait) {
				return ctx.Err()
			}
			continue // the connection may be gone
		}
		if _, err := p.Client.Publish(post.Topic, post.Value, post.QoS, post.Retain); err == nil {
			post, more = next()
		}
	}
	return nil
}

// await waits for progress, and drops the connection when there is none.
func (p *Publisher) await(ctx context.Context) {
	timer := time.NewTimer(p.Patience)
	defer timer.Stop()
	select {
	case <-p.Client.Progress():
	case <-timer.C:
		p.Client.Drop()
	case <-ctx.Done():
	}
}

// Subscriber holds subscriptions, over as many connections as that takes.
type Subscriber struct {
	Roam
	Subscriptions []packet.Subscription
	// Stay is the longest time on one node before the client moves by itself;
	// 0 stays for ever.
	Stay time.Duration
}

// Run connects, subscribes when its session is new, and comes back whenever
// the connection ends, until ctx does. ready is called each time all
// subscriptions are acknowledged; nil is allowed.
func (s *Subscriber) Run(ctx context.Context, ready func()) {
	for ctx.Err() == nil {
		if _, err := s.Connect(ctx); err != nil {
			return
		}
		if !s.subscribe(ctx) {
			s.Client.Drop()
			continue
		}
		if ready != nil {
			ready()
		}
		stay, cancel := ctx, context.CancelFunc(func() {})
		if s.Stay > 0 {
			stay, cancel = context.WithTimeout(ctx, 1+time.Duration(s.Rand.Int64N(int64(s.Stay))))
		}
		s.Client.Wait(stay)
		cancel()
		if ctx.Err() == nil {
			s.Client.Drop()
		}
	}
}

// subscribe sends the subscriptions that the session does not have.
func (s *Subscriber) subscribe(ctx context.Context) bool {
	for _, sub := range s.Subscriptions {
		if s.Client.Subscribed(sub.Filter) {
			continue
		}
		attempt, cancel := context.WithTimeout(ctx, s.Patience)
		err := s.Client.Subscribe(attempt, sub)
		cancel()
		if err != nil {
			return false
		}
	}
	return true
}

// Subscribed reports whether the client's session has the subscription, as
// far as its SUBACKs and CONNACKs say.
func (c *Client) Subscribed(filter string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subscribed[filter]
}
