package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// connects measures how many clean connections per second are accepted.
func connects(ctx context.Context, t target, s shape, _ time.Duration) (result, error) {
	r := result{scenario: "connects", target: t.name}
	var wg sync.WaitGroup
	var next atomic.Int64
	hists := make([]*hdrhistogram.Histogram, s.publishers)
	errs := make([]error, s.publishers)
	before, err := cpu(t.pids)
	if err != nil {
		return r, err
	}
	start := time.Now()
	for w := range s.publishers {
		h := newHistogram()
		hists[w] = h
		wg.Go(func() {
			for n := next.Add(1); n <= int64(s.clients); n = next.Add(1) {
				begin := now()
				l, err := dial(ctx, t.node(int(n)), fmt.Sprintf("connects-%d", n), true)
				if err != nil {
					errs[w] = err
					return
				}
				record(h, begin)
				l.leave()
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return r, err
		}
	}
	after, err := cpu(t.pids)
	if err != nil {
		return r, err
	}
	r.perSecond = float64(s.clients) / time.Since(start).Seconds()
	r.acks = summarize(hists)
	r.cpuPerMessage = float64((after - before).Microseconds()) / float64(s.clients)
	return r, nil
}

// idleDialers is how many connections of the idle scenario are made at a time.
const idleDialers = 50

// idle measures the memory of connections that do nothing: what the later nine tenths of them add, because the first ones
// bring a broker to the size that any work does.
func idle(ctx context.Context, t target, s shape, length time.Duration) (result, error) {
	r := result{scenario: "idle", target: t.name}
	var mu sync.Mutex
	var links []*link
	defer func() {
		for _, l := range links {
			l.leave()
		}
	}()
	hold := func(from, to int) error {
		var wg sync.WaitGroup
		errs := make([]error, idleDialers)
		var next atomic.Int64
		next.Store(int64(from))
		for w := range idleDialers {
			wg.Go(func() {
				for i := next.Add(1) - 1; i < int64(to); i = next.Add(1) - 1 {
					l, err := dial(ctx, t.node(int(i)), fmt.Sprintf("idle-%d", i), true)
					if err != nil {
						errs[w] = err
						return
					}
					mu.Lock()
					links = append(links, l)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	warm := s.clients / 10
	if err := hold(0, warm); err != nil {
		return r, err
	}
	time.Sleep(length)
	before, err := resident(t.pids)
	if err != nil {
		return r, err
	}
	start := time.Now()
	if err := hold(warm, s.clients); err != nil {
		return r, err
	}
	r.perSecond = float64(s.clients-warm) / time.Since(start).Seconds()
	time.Sleep(length)
	after, err := resident(t.pids)
	if err != nil {
		return r, err
	}
	r.perConn = float64(after-before) / float64(s.clients-warm)
	return r, nil
}

// offline returns a scenario that publishes to persistent sessions that are
// away, all on one filter, and then lets one of them come back.
func offline(name string) func(context.Context, target, shape, time.Duration) (result, error) {
	return func(ctx context.Context, t target, s shape, length time.Duration) (result, error) {
		r := result{scenario: name, target: t.name}
		filter := "bench/" + name + "/+"
		for i := range s.clients {
			l, err := dial(ctx, t.node(i), fmt.Sprintf("%s-away-%d", name, i), false)
			if err == nil {
				err = l.subscribe(filter, byte(s.qos))
			}
			if err != nil {
				return r, err
			}
			l.leave()
		}
		before, err := cpu(t.pids)
		if err != nil {
			return r, err
		}
		c := newCounters(s)
		start := time.Now()
		acks, err := publishAll(ctx, t, s, name, length, c)
		if err != nil {
			return r, err
		}
		elapsed := time.Since(start)
		after, err := cpu(t.pids)
		if err != nil {
			return r, err
		}
		r.published = c.published.Load()
		r.perSecond = float64(r.published) / elapsed.Seconds()
		r.acks = summarize(acks)
		r.cpuPerMessage = float64((after - before).Microseconds()) / float64(max(r.published, 1))

		back := newCounters(shape{publishers: 1})
		start = time.Now()
		l, err := dial(ctx, t.node(0), name+"-away-0", false)
		if err != nil {
			return r, err
		}
		var reader sync.WaitGroup
		reader.Go(func() { receive(l, newHistogram(), back, &back.credits[0]) })
		await(ctx, 30*time.Second, func() bool { return back.delivered.Load() >= r.published })
		drained := time.Since(start)
		l.leave()
		reader.Wait()
		r.delivered = back.delivered.Load()
		r.lost = max(r.published-r.delivered, 0)
		r.note = fmt.Sprintf("(published; then %d received at %.0f/s)", r.delivered, float64(r.delivered)/drained.Seconds())
		return r, nil
	}
}
