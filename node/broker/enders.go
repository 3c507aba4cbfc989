package broker

import (
	"context"
	"sync"

	"quorate/fsm"
	"quorate/fsm/command"
)

// enders propose what ends a connection in the log: its last acknowledgements and its Disconnect. They have to reach the
// log, or the connection lives on there: what the log does not take now is proposed again, in order.
type enders struct {
	broker *Broker
	mu     sync.Mutex
	queue  []command.Command
	out    int // on their way
	idle   chan struct{}
}

// end proposes c after everything given before.
func (e *enders) end(c command.Command) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queue = append(e.queue, c)
	e.drain()
}

// retry proposes what waits. The watch calls it.
func (e *enders) retry() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drain()
}

// drain proposes until the log refuses; e.mu is held.
func (e *enders) drain() {
	n := 0
	for _, c := range e.queue {
		if e.broker.log.Propose(c, func(fsm.Result, error) { e.back() }) != nil {
			break
		}
		e.out++
		n++
	}
	e.queue = e.queue[n:]
	if len(e.queue) == 0 {
		e.queue = nil
	}
}

func (e *enders) back() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.out--
	if e.idle != nil && e.out == 0 && len(e.queue) == 0 {
		close(e.idle)
		e.idle = nil
	}
}

// wait returns when everything has come back, or ctx ends.
func (e *enders) wait(ctx context.Context) {
	e.mu.Lock()
	if e.out == 0 && len(e.queue) == 0 {
		e.mu.Unlock()
		return
	}
	if e.idle == nil {
		e.idle = make(chan struct{})
	}
	idle := e.idle
	e.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
