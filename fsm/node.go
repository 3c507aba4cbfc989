package fsm

import (
	"quorate/fsm/command"
	"quorate/fsm/mutant"
	"quorate/protocol/packet"
)

const (
	// nodesMax bounds the nodes that the machine remembers. A record is kept for ever: it is what refuses old batches.
	nodesMax = 100_000
	// sweepCells is how many cells of a table a sweep looks at for one unit of work.
	sweepCells = 64
)

// node is what the log knows of a server: its record outlives its incarnations.
type node struct {
	index uint32
	gen   uint32
	id    command.NodeID
	name  string
	addr  string
	// format is the newest log format the node understands.
	format      byte
	incarnation uint64
	// lastBatch is the number of the last batch taken of this incarnation.
	lastBatch uint64
	// life is the current incarnation while it is up, else nil.
	life *life
}

// life is one incarnation of a node. A dead one stays until its connections and routes have been swept away.
type life struct {
	index       uint32
	gen         uint32
	node        *node
	incarnation uint64
	up          bool
	// downAt is the stamp at which it was declared dead: from there its wills and session expiries count.
	downAt uint64
	// sessionCursor and filterCursor are how far the sweep has come.
	sessionCursor, filterCursor uint32
	work                        queued
	// sessions and routes count what still refers to it. Derived.
	sessions, routes int
}

// nodeUp opens an incarnation. It is called by the batch that brings it.
func (st *state) nodeUp(c *command.NodeUp, incarnation uint64) bool {
	i, known := st.nodeByID[c.ID]
	if !known {
		if st.nodes.used >= nodesMax {
			return false
		}
		n := &node{id: c.ID, gen: st.gen}
		n.index = st.nodes.add(n)
		st.nodeByID[c.ID] = n.index
		i = n.index
	}
	n := st.nodes.at(i)
	st.touchNode(n)
	if n.life != nil {
		st.endLife(n.life)
	}
	n.name, n.addr, n.format = c.Name, c.ClientAddr, c.Format
	n.incarnation, n.lastBatch = incarnation, 0
	l := &life{node: n, gen: st.gen, incarnation: incarnation, up: true}
	l.index = st.lives.add(l)
	n.life = l
	st.effectString(effectNodeUp, incarnation, string(c.ID))
	st.effectString(effectNodeUp, uint64(c.Format), c.Name)
	st.effectString(effectNodeUp, uint64(l.index), c.ClientAddr)
	return true
}

// nodeDown ends an incarnation if it is the current one.
func (st *state) nodeDown(c *command.NodeDown) bool {
	i, known := st.nodeByID[c.ID]
	if !known {
		return false
	}
	n := st.nodes.at(i)
	if n.incarnation != c.Incarnation || n.life == nil {
		return false
	}
	st.touchNode(n)
	st.endLife(n.life)
	return true
}

// endLife declares an incarnation dead and queues the sweep; the sweep itself is work of ticks. Whatever asks for
// connected members or live routes looks at up, so that the rest of the sweep is not visible.
func (st *state) endLife(l *life) {
	st.touchLife(l)
	l.up = false
	l.downAt = st.now
	l.node.life = nil
	st.effect(effectNodeDown, uint64(l.index), l.incarnation)
	st.queueWork(&l.work, workLife, l.index)
}

// sweepLife ends connections and removes routes of a dead incarnation, at most budget units of it.
func (st *state) sweepLife(l *life, budget int) int {
	used := 1
	for l.sessions > 0 && used < budget {
		end := min(l.sessionCursor+sweepCells, uint32(len(st.sessions.cells)))
		for ; l.sessionCursor < end && used < budget; l.sessionCursor++ {
			s := st.sessions.at(l.sessionCursor)
			if s != nil && s.connected && s.life == l {
				st.connectionEnded(s, packet.ServerUnavailable)
				st.endConnection(s, connectionEnd{base: l.downAt, sendWill: !mutant.WillByNode, sent: st.seq})
				used++
			}
		}
		used++
	}
	for l.sessions == 0 && l.routes > 0 && used < budget {
		end := min(l.filterCursor+sweepCells, uint32(len(st.filters.cells)))
		for ; l.filterCursor < end && used < budget; l.filterCursor++ {
			if f := st.filters.at(l.filterCursor); f != nil && st.removeRoute(f, l) {
				used++
			}
		}
		used++
	}
	if l.sessions > 0 || l.routes > 0 {
		st.queueWork(&l.work, workLife, l.index)
		return used
	}
	st.effect(effectLifeGone, uint64(l.index), l.incarnation)
	st.lives.remove(l.index)
	return used
}

// connectionEnded queues the call for a connection of this node.
func (st *state) connectionEnded(s *session, reason packet.ReasonCode) {
	if s.life.node.id == st.self {
		st.events.ended(s.ref(), st.self, reason)
	}
}
