package broker

import (
	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/protocol/packet"
)

// Published hands a message of the log to the live subscribers of this node. It is part of an fsm.Observer.
func (b *Broker) Published(m *fsm.Message) {
	how := live
	if m.Local && m.Origin == b.cfg.Node {
		how = wakes
	}
	f := &b.applying
	f.msg = ofMachine(m)
	f.begin(&f.msg)
	f.deliver(how)
	f.end()
}

// EntryApplied has everything written that an entry brought: one write for each connection, and one pull for each
// Session, whatever the number of messages. It is part of an fsm.EntryObserver.
func (b *Broker) EntryApplied() { b.applying.flush() }

// Wake is told that something entered the private stream of a Session connected here. It is part of an fsm.Observer.
func (b *Broker) Wake(ref command.Ref) {
	l := b.links.get(ref)
	if l == nil {
		return
	}
	l.want(everything)
	// Retained copies of a SUBSCRIBE follow its SUBACK, which comes in a moment and kicks as well.
	if l.subscribing.Load() == 0 {
		l.conn.KickIn(&b.applying.batch)
	}
}

// ConnectionEnded closes a connection that the log no longer knows as the owner of its Session. It is part of an
// fsm.Observer.
func (b *Broker) ConnectionEnded(ref command.Ref, _ command.NodeID, reason packet.ReasonCode) {
	l := b.links.get(ref)
	if l == nil {
		return
	}
	if reason == packet.SessionTakenOver {
		b.metrics.TakenOver.Add(1)
	}
	if reason == packet.ServerUnavailable {
		reason = packet.UseAnotherServer // the node was declared dead
	}
	l.end(reason)
}

// Reincarnated says that the log ended this node's incarnation while it lived, and that it goes on under a new one, which
// begins without routes. It does not block. (The connections of the old one end by ConnectionEnded.)
func (b *Broker) Reincarnated(uint64) { b.routes.again() }

// Restored looks at every connection again after a snapshot replaced the state. It is part of an fsm.Observer.
func (b *Broker) Restored() {
	b.links.each(func(l *link) {
		l.mu.Lock()
		owned := l.owned && !l.ended
		l.mu.Unlock()
		if !owned {
			return
		}
		if _, ok := b.machine.Session(l.ref); !ok {
			l.end(packet.SessionTakenOver)
			return
		}
		l.want(everything)
		l.conn.Kick()
	})
}
