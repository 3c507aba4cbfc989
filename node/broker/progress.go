package broker

import (
	"context"
	"sync"
	"time"

	"quorate/fsm"
	"quorate/fsm/command"
)

// progress gathers the acknowledgements of all Sessions of the node and reports them to the log in one command at a
// time: lazily, or at once when a Session cannot go on without (a PUBREC, an identifier that is waited for) or has many.
// While a command is on its way the next one fills.
type progress struct {
	broker *Broker
	mu     sync.Mutex
	noted  []*link
	timer  *time.Timer
	out    bool // a command is on its way
	urgent bool // the next one is to go as soon as that is back
	idle   chan struct{}
}

// progressRetryPause is the time until a command that the log did not take is tried again.
const progressRetryPause = 100 * time.Millisecond

// note puts l among the Sessions with something to report.
func (p *progress) note(l *link, urgent bool) {
	l.mu.Lock()
	known := l.noted
	l.noted = true
	l.mu.Unlock()
	p.mu.Lock()
	if !known {
		p.noted = append(p.noted, l)
	}
	p.urgent = p.urgent || urgent
	start := p.urgent && !p.out
	if start {
		p.out, p.urgent = true, false
	} else if p.timer == nil {
		p.timer = time.AfterFunc(p.broker.cfg.ProgressInterval, p.tick)
	}
	p.mu.Unlock()
	if start {
		p.send()
	}
}

// later is note for a Session that could not propose something else: it is filled again after a pause.
func (p *progress) later(l *link) { time.AfterFunc(progressRetryPause, l.conn.Kick) }

func (p *progress) tick() {
	p.mu.Lock()
	p.timer = nil
	start := !p.out && len(p.noted) > 0
	if start {
		p.out, p.urgent = true, false
	} else if len(p.noted) > 0 {
		p.urgent = true
	}
	p.mu.Unlock()
	if start {
		p.send()
	}
}

// send reports everything noted. p.out is set.
func (p *progress) send() {
	p.mu.Lock()
	list := p.noted
	p.noted = nil
	p.mu.Unlock()
	c := &command.Progress{}
	reported := list[:0]
	for _, l := range list {
		l.mu.Lock()
		l.noted = false
		if !l.closed && !l.ended {
			if r, ok := l.out.Progress(); ok {
				c.Items = append(c.Items, command.ProgressItem{Ref: l.ref, Cursor: r.Cursor, Done: r.Done, Received: r.Received})
				reported = append(reported, l)
			}
		}
		l.mu.Unlock()
	}
	if len(c.Items) == 0 {
		p.back(nil)
		return
	}
	p.broker.metrics.ProgressCommands.Add(1)
	p.broker.metrics.ProgressItems.Add(uint64(len(c.Items)))
	p.propose(c, reported)
}

func (p *progress) propose(c *command.Progress, reported []*link) {
	err := p.broker.log.Propose(c, func(_ fsm.Result, err error) {
		if err != nil {
			// Whether it was applied is not known: neither are the exchanges of these connections.
			for _, l := range reported {
				l.conn.Close(overloadedReason, "")
			}
			reported = nil
		}
		p.back(reported)
	})
	switch {
	case err == nil:
	case p.broker.closing.Load():
		p.back(nil)
	default:
		time.AfterFunc(progressRetryPause, func() { p.propose(c, reported) })
	}
}

// back goes on after a command was applied; on the apply goroutine as a rule.
func (p *progress) back(reported []*link) {
	for _, l := range reported {
		l.mu.Lock()
		l.out.Committed()
		due, urgent := l.out.Due()
		waiting := l.out.Waiting()
		l.mu.Unlock()
		if due {
			p.note(l, urgent)
		}
		if waiting || l.target.Load() != 0 {
			l.conn.Kick()
		}
	}
	p.mu.Lock()
	p.out = false
	start := p.urgent && len(p.noted) > 0
	if start {
		p.out, p.urgent = true, false
	}
	if p.idle != nil && !p.out {
		close(p.idle)
		p.idle = nil
	}
	p.mu.Unlock()
	if start {
		p.send()
	}
}

// wait returns when no command is on its way, or ctx ends.
func (p *progress) wait(ctx context.Context) {
	p.mu.Lock()
	if !p.out {
		p.mu.Unlock()
		return
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	idle := p.idle
	p.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
