package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"quorate/protocol/packet"
	"quorate/scripts/faults/check"
	"quorate/scripts/faults/client"
)

// load is the clients of a run. work ends when no new publish is to begin;
// over ends when everybody goes home.
type load struct {
	c          *cluster
	seed       uint64
	work, over context.Context
	stopWork   context.CancelFunc
	stopOver   context.CancelFunc
	clients    uint64 // number of random sources handed out
	values     atomic.Uint64

	publishers sync.WaitGroup
	others     sync.WaitGroup
	ready      sync.WaitGroup // subscribers that must hold before the first publish
}

func newLoad(c *cluster, seed uint64) *load {
	l := &load{c: c, seed: seed}
	l.over, l.stopOver = context.WithCancel(context.Background())
	l.work, l.stopWork = context.WithCancel(l.over)
	return l
}

// rand returns a source of its own for one client. It is called by the one
// goroutine that starts the clients.
func (l *load) rand() *rand.Rand {
	l.clients++
	return rand.New(rand.NewPCG(l.seed, l.clients))
}

func (l *load) options(id string, v packet.Version) client.Options {
	return client.Options{ID: id, Version: v, Dial: l.c.dial, History: l.c.history, KeepAlive: 10}
}

func (l *load) roam(opt client.Options) client.Roam {
	return client.Roam{
		Client: client.New(opt), Nodes: l.c.names(), Rand: l.rand(),
		Patience: 5 * time.Second, Backoff: time.Second,
	}
}

// value returns a payload that nobody else publishes.
func (l *load) value(id string) string { return fmt.Sprintf("%s %d", id, l.values.Add(1)) }

// subscriber starts a persistent session that moves between nodes.
func (l *load) subscriber(id string, v packet.Version, stay time.Duration, subs ...packet.Subscription) {
	s := &client.Subscriber{Roam: l.roam(l.options(id, v)), Subscriptions: subs, Stay: stay}
	l.ready.Add(1)
	once := sync.OnceFunc(l.ready.Done)
	l.others.Go(func() {
		s.Run(l.over, once)
		s.Client.Disconnect(packet.NormalDisconnection)
	})
}

// absent starts a persistent session that subscribes, is away during the
// faults, and comes back at the end.
func (l *load) absent(id string, v packet.Version, sub packet.Subscription) {
	s := &client.Subscriber{Roam: l.roam(l.options(id, v)), Subscriptions: []packet.Subscription{sub}}
	l.ready.Add(1)
	l.others.Go(func() {
		first, leave := context.WithCancel(l.over)
		s.Run(first, sync.OnceFunc(func() { l.ready.Done(); leave() }))
		leave()
		s.Client.Disconnect(packet.NormalDisconnection)
		<-l.work.Done()
		s.Run(l.over, nil)
		s.Client.Disconnect(packet.NormalDisconnection)
	})
}

// transient starts a session that ends with each of its connections.
func (l *load) transient(id string, v packet.Version, sub packet.Subscription) {
	opt := l.options(id, v)
	opt.CleanStart, opt.Transient = true, true
	s := &client.Subscriber{Roam: l.roam(opt), Subscriptions: []packet.Subscription{sub}}
	l.others.Go(func() {
		s.Run(l.over, nil)
		s.Client.Disconnect(packet.NormalDisconnection)
	})
}

// publisher starts a persistent session that publishes to topics with window
// w, and remembers what is not acknowledged over its connections.
func (l *load) publisher(id string, v packet.Version, w int, retain bool, qos []byte, topics ...string) {
	opt := l.options(id, v)
	opt.LowIDs = true
	p := &client.Publisher{Roam: l.roam(opt), Window: w}
	rng := l.rand()
	l.publishers.Go(func() {
		l.ready.Wait()
		err := p.Run(l.over, func() (client.Post, bool) {
			return client.Post{
				Topic: topics[rng.IntN(len(topics))], Value: l.value(id), QoS: qos[rng.IntN(len(qos))], Retain: retain,
				Pause: time.Duration(rng.Int64N(int64(200 * time.Millisecond))),
			}, l.work.Err() == nil
		})
		missing := ""
		if err != nil {
			missing = fmt.Sprintf("%d acknowledgements", p.Client.Unacked())
		}
		l.c.history.Add(check.Event{Phase: check.Note, Op: check.Drained, Client: id, Value: missing})
		p.Client.Disconnect(packet.NormalDisconnection)
	})
}

// reader reads retained messages, each time with a session of its own.
func (l *load) reader(id string, v packet.Version, topics ...string) {
	rng := l.rand()
	nodes := l.c.names()
	l.others.Go(func() {
		for n := 0; pause(l.work, between(rng, 10*time.Millisecond, 500*time.Millisecond)); n++ {
			opt := l.options(fmt.Sprintf("%s-%d", id, n), v)
			opt.CleanStart, opt.Transient, opt.Quiet = true, true, true
			c := client.New(opt)
			ctx, cancel := context.WithTimeout(l.work, 5*time.Second)
			if _, err := c.Connect(ctx, nodes[rng.IntN(len(nodes))]); err == nil {
				_, _ = c.ReadRetained(ctx, topics[rng.IntN(len(topics))])
				c.Disconnect(packet.NormalDisconnection)
			}
			cancel()
		}
	})
}

// contender is one of several clients that fight for one Client Identifier.
func (l *load) contender(id string, v packet.Version, topic string) {
	r := l.roam(l.options(id, v))
	l.others.Go(func() {
		for l.work.Err() == nil {
			if _, err := r.Connect(l.work); err != nil {
				break
			}
			for range r.Rand.IntN(8) {
				p, err := r.Client.Publish(topic, l.value(id), 1, false)
				if err != nil {
					break
				}
				select {
				case <-p.Done():
				case <-time.After(2 * time.Second):
				}
				pause(l.work, between(r.Rand, 0, 200*time.Millisecond))
			}
		}
		r.Client.Drop()
	})
}

// mortal is a client with a will, which ends its connections in every way.
func (l *load) mortal(id string, delaySeconds uint32) {
	opt := l.options(id, packet.V5)
	opt.CleanStart, opt.Transient = delaySeconds == 0, delaySeconds == 0
	opt.Will = func() *packet.Will {
		return &packet.Will{Topic: "will/" + id, Payload: []byte(l.value("will of " + id)), QoS: 1, DelaySeconds: delaySeconds}
	}
	r := l.roam(opt)
	l.others.Go(func() {
		l.ready.Wait()
		for l.work.Err() == nil {
			if _, err := r.Connect(l.work); err != nil {
				break
			}
			stay, cancel := context.WithTimeout(l.work, between(r.Rand, 100*time.Millisecond, 8*time.Second))
			r.Client.Wait(stay)
			cancel()
			switch r.Rand.IntN(3) {
			case 0:
				r.Client.Drop()
			case 1:
				r.Client.Disconnect(packet.NormalDisconnection)
			case 2:
				r.Client.Disconnect(packet.DisconnectWithWill)
			}
			pause(l.work, between(r.Rand, 100*time.Millisecond, 3*time.Second))
		}
		r.Client.Drop()
	})
}

// waverer subscribes and unsubscribes all the time, and stays subscribed in
// the end.
func (l *load) waverer(id string, v packet.Version, sub packet.Subscription) {
	r := l.roam(l.options(id, v))
	l.others.Go(func() {
		for l.work.Err() == nil {
			if _, ok := r.Client.Connected(); !ok {
				_, _ = r.Connect(l.work)
				continue
			}
			ctx, cancel := context.WithTimeout(l.work, r.Patience)
			var err error
			if r.Client.Subscribed(sub.Filter) {
				err = r.Client.Unsubscribe(ctx, sub.Filter)
			} else {
				err = r.Client.Subscribe(ctx, sub)
			}
			cancel()
			if err != nil {
				r.Client.Drop()
			}
			pause(l.work, between(r.Rand, 10*time.Millisecond, 2*time.Second))
		}
		s := &client.Subscriber{Roam: r, Subscriptions: []packet.Subscription{sub}}
		s.Run(l.over, nil)
		r.Client.Disconnect(packet.NormalDisconnection)
	})
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
