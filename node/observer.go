package node

import (
	"sync/atomic"

	"quorate/cluster/consensus"
	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/node/broker"
	"quorate/protocol/packet"
)

// observer passes on what the machine says: about proposals to consensus, about clients to the broker.
type observer struct {
	consensus *consensus.Observer
	// broker is set once there is one. Before that the machine replays the log, and there are no clients to tell.
	broker atomic.Pointer[broker.Broker]
}

var _ fsm.Observer = (*observer)(nil)

// BatchApplied implements fsm.Observer.
func (o *observer) BatchApplied(incarnation, number uint64, results []fsm.Result) {
	o.consensus.BatchApplied(incarnation, number, results)
}

// BatchGap implements fsm.Observer.
func (o *observer) BatchGap(incarnation, expected, got uint64) {
	o.consensus.BatchGap(incarnation, expected, got)
}

// ConnectionEnded implements fsm.Observer.
func (o *observer) ConnectionEnded(ref command.Ref, node command.NodeID, reason packet.ReasonCode) {
	if b := o.broker.Load(); b != nil {
		b.ConnectionEnded(ref, node, reason)
	}
}

// Published implements fsm.Observer.
func (o *observer) Published(m *fsm.Message) {
	if b := o.broker.Load(); b != nil {
		b.Published(m)
	}
}

// Wake implements fsm.Observer.
func (o *observer) Wake(ref command.Ref) {
	if b := o.broker.Load(); b != nil {
		b.Wake(ref)
	}
}

// reincarnated is consensus.Config.Reincarnated.
func (o *observer) reincarnated(incarnation uint64) {
	if b := o.broker.Load(); b != nil {
		b.Reincarnated(incarnation)
	}
}

// EntryApplied implements fsm.EntryObserver.
func (o *observer) EntryApplied() {
	if b := o.broker.Load(); b != nil {
		b.EntryApplied()
	}
}

// Restored implements fsm.Observer.
func (o *observer) Restored() {
	o.consensus.Restored()
	if b := o.broker.Load(); b != nil {
		b.Restored()
	}
}
