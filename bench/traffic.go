package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"quorate/protocol/packet"
)

// counters are what all clients of a scenario add to.
type counters struct {
	published, acked, delivered atomic.Int64

	// credits are, by topic, what a closed loop of QoS 0 may still send: given back when all subscribers have a message.
	credits []credit
}

// credit is the window of one topic.
type credit struct {
	got     atomic.Int64 // deliveries, of all subscribers
	changed chan struct{}
}

func newCounters(s shape) *counters {
	c := &counters{credits: make([]credit, s.publishers)}
	for i := range c.credits {
		c.credits[i].changed = make(chan struct{}, 1)
	}
	return c
}

// took notes deliveries.
func (c *credit) took(n int64) {
	if n == 0 {
		return
	}
	c.got.Add(n)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// traffic returns a scenario of publishers and subscribers, each topic with
// its own. Publishers and subscribers are on different nodes, if there are
// several.
func traffic(name string) func(context.Context, target, shape, time.Duration) (result, error) {
	return func(ctx context.Context, t target, s shape, length time.Duration) (result, error) {
		r := result{scenario: name, target: t.name}
		c := newCounters(s)
		subs, err := startSubscribers(ctx, t, s, name, c)
		defer subs.leave()
		if err != nil {
			return r, err
		}
		before, err := cpu(t.pids)
		if err != nil {
			return r, err
		}
		start := time.Now()
		acks, err := publishAll(ctx, t, s, name, length, c)
		if err != nil {
			return r, err
		}
		elapsed := time.Since(start)
		want := c.published.Load() * int64(s.subscribers)
		await(ctx, 5*time.Second, func() bool { return c.delivered.Load() >= want })
		after, err := cpu(t.pids)
		if err != nil {
			return r, err
		}
		r.published, r.delivered = c.published.Load(), c.delivered.Load()
		r.perSecond = float64(r.delivered) / elapsed.Seconds()
		r.lost = max(want-r.delivered, 0)
		r.acks = summarize(acks)
		r.deliveries = summarize(subs.leave())
		if r.delivered > 0 {
			r.cpuPerMessage = float64((after - before).Microseconds()) / float64(r.delivered)
		}
		return r, nil
	}
}

// await polls done every 10 ms for at most limit.
func await(ctx context.Context, limit time.Duration, done func() bool) bool {
	deadline := time.Now().Add(limit)
	for !done() {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
	return true
}

// crowd is the subscribers.
type crowd struct {
	links   []*link
	readers sync.WaitGroup
	hists   []*hdrhistogram.Histogram
}

// leave ends all subscribers and returns what they measured. It may be called
// again.
func (c *crowd) leave() []*hdrhistogram.Histogram {
	for _, l := range c.links {
		l.leave()
	}
	c.readers.Wait()
	return c.hists
}

func startSubscribers(ctx context.Context, t target, s shape, name string, c *counters) (*crowd, error) {
	subs := &crowd{}
	for p := range s.publishers {
		for i := range s.subscribers {
			l, err := dial(ctx, t.node(p+i+1), fmt.Sprintf("%s-sub-%d-%d", name, p, i), !s.persistent)
			if err != nil {
				return subs, err
			}
			subs.links = append(subs.links, l)
			if err := l.subscribe(topicOf(name, p), byte(s.qos)); err != nil {
				return subs, err
			}
			h := newHistogram()
			subs.hists = append(subs.hists, h)
			subs.readers.Go(func() { receive(l, h, c, &c.credits[p]) })
		}
	}
	return subs, nil
}

func topicOf(name string, publisher int) string { return fmt.Sprintf("bench/%s/%d", name, publisher) }

// receive reads and acknowledges until the connection ends. What was read at once is acknowledged at once.
func receive(l *link, h *hdrhistogram.Histogram, c *counters, window *credit) {
	unsaid := int64(0)
	for {
		if !l.reader.Ready() {
			c.delivered.Add(unsaid)
			window.took(unsaid)
			unsaid = 0
			if l.flush() != nil {
				return
			}
		}
		p, err := l.reader.Next()
		if err != nil {
			return
		}
		switch p := p.(type) {
		case *packet.Publish:
			unsaid++
			record(h, stampOf(p.Payload))
			switch p.QoS {
			case 1:
				err = l.queue(&packet.Puback{PacketID: p.PacketID})
			case 2:
				err = l.queue(&packet.Pubrec{PacketID: p.PacketID})
			}
		case *packet.Pubrel:
			err = l.queue(&packet.Pubcomp{PacketID: p.PacketID})
		}
		if err != nil {
			return
		}
	}
}

// publishAll runs the publishers for a time.
func publishAll(ctx context.Context, t target, s shape, name string, length time.Duration, c *counters) ([]*hdrhistogram.Histogram, error) {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var wg sync.WaitGroup
	hists := make([]*hdrhistogram.Histogram, s.publishers)
	errs := make([]error, s.publishers)
	for i := range s.publishers {
		l, err := dial(ctx, t.node(i), fmt.Sprintf("%s-pub-%d", name, i), true)
		if err != nil {
			return nil, err
		}
		p := &publisher{l: l, s: s, topic: topicOf(name, i), c: c, window: &c.credits[i], acks: newHistogram(), tokens: make(chan struct{}, max(s.window, 1))}
		hists[i] = p.acks
		wg.Go(func() { errs[i] = p.run(ctx) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return hists, nil
}

// publisher is one publishing client.
type publisher struct {
	l      *link
	s      shape
	topic  string
	c      *counters
	acks   *hdrhistogram.Histogram // of the reading goroutine
	tokens chan struct{}           // one for each unacknowledged message
	window *credit                 // of a closed loop of QoS 0
	sent   int64

	mu  sync.Mutex
	due [1 << 16]int64 // by packet identifier
}

// ackTime is how long the last acknowledgements may take.
const ackTime = 10 * time.Second

// run publishes until ctx ends, and waits for the last acknowledgements.
func (p *publisher) run(ctx context.Context) error {
	var reader sync.WaitGroup
	reader.Go(p.read)
	err := p.publish(ctx)
	if p.s.qos > 0 && err == nil {
		if !await(context.WithoutCancel(ctx), ackTime, func() bool { return len(p.tokens) == 0 }) {
			err = fmt.Errorf("%d messages are not acknowledged after %v", len(p.tokens), ackTime)
		}
	}
	p.l.leave()
	reader.Wait()
	return err
}

func (p *publisher) publish(ctx context.Context) error {
	payload := make([]byte, p.s.bytes)
	var id uint16
	interval := time.Duration(0)
	if p.s.rate > 0 {
		interval = time.Second * time.Duration(p.s.publishers) / time.Duration(p.s.rate)
	}
	due := now()
	for ctx.Err() == nil {
		if interval > 0 {
			if wait := time.Duration(due - now()); wait > 0 {
				if err := p.l.flush(); err != nil {
					return err
				}
				time.Sleep(wait)
			}
		} else {
			due = now()
		}
		if sends, err := p.admit(ctx); err != nil {
			return err
		} else if !sends {
			break
		}
		if p.s.qos > 0 {
			if id++; id == 0 {
				id = 1
			}
			p.mu.Lock()
			p.due[id] = due
			p.mu.Unlock()
		}
		putStamp(payload, due)
		if err := p.l.queue(&packet.Publish{Topic: p.topic, QoS: byte(p.s.qos), PacketID: id, Payload: payload}); err != nil {
			return err
		}
		p.sent++
		p.c.published.Add(1)
		due += int64(interval)
	}
	return p.l.flush()
}

// admit waits until the window has room; false when ctx ends first. What is queued is written before it waits.
func (p *publisher) admit(ctx context.Context) (sends bool, err error) {
	if p.s.qos > 0 {
		select {
		case p.tokens <- struct{}{}:
			return true, nil
		default:
		}
		if err := p.l.flush(); err != nil {
			return false, err
		}
		select {
		case p.tokens <- struct{}{}:
			return true, nil
		case <-ctx.Done():
			return false, nil
		}
	}
	for p.s.rate == 0 && p.s.window > 0 && p.sent-p.window.got.Load()/int64(max(p.s.subscribers, 1)) >= int64(p.s.window) {
		if err := p.l.flush(); err != nil {
			return false, err
		}
		select {
		case <-p.window.changed:
		case <-ctx.Done():
			return false, nil
		}
	}
	return true, nil
}

// read takes acknowledgements until the connection ends.
func (p *publisher) read() {
	for {
		if !p.l.reader.Ready() && p.s.qos == 2 && p.l.flush() != nil {
			return
		}
		pk, err := p.l.reader.Next()
		if err != nil {
			return
		}
		switch pk := pk.(type) {
		case *packet.Puback:
			p.acked(pk.PacketID)
		case *packet.Pubrec:
			if p.l.queue(&packet.Pubrel{PacketID: pk.PacketID}) != nil {
				return
			}
		case *packet.Pubcomp:
			p.acked(pk.PacketID)
		}
	}
}

func (p *publisher) acked(id uint16) {
	p.mu.Lock()
	due := p.due[id]
	p.mu.Unlock()
	record(p.acks, due)
	p.c.acked.Add(1)
	<-p.tokens
}
