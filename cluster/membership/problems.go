package membership

import (
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	problemLogEvery = 30 * time.Second
	problemFadesIn  = 15 * time.Second
	problemsMax     = 64
)

// problems are what an operator has to put right: logged at once and every 30 s while they last, and shown in status.
type problems struct {
	logger *slog.Logger
	mu     sync.Mutex
	open   map[string]*problem // by subject. Invariant: at most problemsMax.
}

type problem struct {
	text           string
	since          time.Time
	seen, loggedAt time.Time
}

func newProblems(logger *slog.Logger) *problems {
	return &problems{logger: logger, open: make(map[string]*problem)}
}

// report notes that a problem exists now and returns for how long it has.
func (p *problems) report(subject, text string) time.Duration {
	now := time.Now()
	p.mu.Lock()
	x := p.open[subject]
	if x != nil && now.Sub(x.seen) > problemFadesIn {
		x = nil // another occurrence
	}
	if x == nil {
		if len(p.open) >= problemsMax {
			p.fadeLocked(now)
		}
		if len(p.open) >= problemsMax {
			p.mu.Unlock()
			return 0
		}
		x = &problem{since: now}
		p.open[subject] = x
	}
	x.text, x.seen = text, now
	log := now.Sub(x.loggedAt) >= problemLogEvery
	if log {
		x.loggedAt = now
	}
	lasted := now.Sub(x.since)
	p.mu.Unlock()
	if log {
		p.logger.Error("cluster membership needs attention", "problem", text)
	}
	return lasted
}

func (p *problems) fadeLocked(now time.Time) {
	for subject, x := range p.open {
		if now.Sub(x.seen) > problemFadesIn {
			delete(p.open, subject)
		}
	}
}

func (p *problems) list() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fadeLocked(time.Now())
	var out []string
	for _, x := range p.open {
		out = append(out, x.text)
	}
	slices.Sort(out)
	return out
}

// Problems returns what an operator has to put right, in plain sentences; empty when all is well.
func (m *Membership) Problems() []string { return m.problems.list() }
