package broker

import (
	"sync"
	"time"

	"quorate/fsm/command"
)

// notices are waits for connections of other nodes to be closed after a take-over.
type notices struct {
	mu      sync.Mutex
	waiting map[command.Ref]chan struct{}
}

// expect returns a channel that is closed when the notice for ref comes. forget has to follow.
func (n *notices) expect(ref command.Ref) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.waiting == nil {
		n.waiting = make(map[command.Ref]chan struct{})
	}
	ch, ok := n.waiting[ref]
	if !ok {
		ch = make(chan struct{})
		n.waiting[ref] = ch
	}
	return ch
}

func (n *notices) forget(ref command.Ref) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.waiting, ref)
}

func (n *notices) arrived(ref command.Ref) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ch, ok := n.waiting[ref]; ok {
		close(ch)
		delete(n.waiting, ref)
	}
}

// closeWait is the wait for the connection that a CONNECT replaces. The zero value waits for nothing.
type closeWait struct {
	l      *link
	ref    command.Ref
	remote bool
	gone   <-chan struct{}
}

// expectClosed looks who owns the Session before the CONNECT is proposed. It may be wrong; then the wait is in vain or
// left out. It is a courtesy to the client, not what keeps ownership single.
func (l *link) expectClosed() closeWait {
	ref, owner, connected := l.b.machine.Owner(l.who.ClientID)
	if !connected {
		return closeWait{}
	}
	w := closeWait{l: l, ref: ref, remote: owner != l.b.cfg.Node}
	if w.remote {
		w.gone = l.b.notices.expect(ref)
	} else if old := l.b.links.get(ref); old != nil {
		w.gone = old.waitGone()
	}
	return w
}

// refused waits until the old connection is closed, or timeout; it returns true when the new one is closing itself.
func (w closeWait) refused(timeout time.Duration) bool {
	if w.gone == nil {
		return false
	}
	if w.remote {
		defer w.l.b.notices.forget(w.ref)
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-w.gone:
	case <-t.C:
	case <-w.l.conn.Done():
		return true
	}
	return false
}
