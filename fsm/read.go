package fsm

import (
	"cmp"
	"slices"

	"quorate/fsm/command"
)

// Route tells where a message of a topic has to go, for the choice of its road. It fills r, whose lists it uses again.
func (m *Machine) Route(topic string, r *Route) {
	r.Stored, r.Peers = false, r.Peers[:0]
	groups := r.Groups[:cap(r.Groups)]
	used := 0
	m.mu.RLock()
	m.st.tree.Match(topic, func(f *filter) {
		r.Stored = r.Stored || f.stream != nil && f.stream.open > 0
		r.addPeers(m.st, f)
		for _, g := range f.groups {
			if used == len(groups) {
				groups = append(groups, GroupTarget{})
			}
			groups[used].fill(m.st, g, m.turn.Add(1))
			used++
		}
	})
	m.mu.RUnlock()
	r.Groups = groups[:used]
	slices.Sort(r.Peers)
	slices.SortFunc(r.Groups, func(a, b GroupTarget) int {
		return cmp.Or(cmp.Compare(a.Share, b.Share), cmp.Compare(a.Filter, b.Filter))
	})
}

// addPeers adds the live nodes of a filter's routes, each once.
func (r *Route) addPeers(st *state, f *filter) {
	for _, n := range f.routes {
		if l := st.lives.at(n); l.up && !slices.Contains(r.Peers, l.node.id) {
			r.Peers = append(r.Peers, l.node.id)
		}
	}
}

// fill gives the members of a group; of a large one some that are connected, beginning at another place each turn.
func (t *GroupTarget) fill(st *state, g *group, turn uint32) {
	t.Share, t.Filter, t.Members = g.share, g.filter.name, t.Members[:0]
	n := len(g.members)
	start := int(turn) % n
	for i := 0; i < n && len(t.Members) < RouteMembersMax; i++ {
		m := g.members[(start+i)%n]
		if alive := m.session.alive(); alive || n <= RouteMembersMax {
			t.Members = append(t.Members, Member{
				Ref: m.session.ref(), Node: st.nodeOf(m.session), Serial: m.session.serial, QoS: m.opts.qos(), SubID: m.id,
				RAP: m.opts.rap(), Connected: alive,
			})
		}
	}
	slices.SortFunc(t.Members, func(a, b Member) int { return cmp.Compare(a.Serial, b.Serial) })
}

// nodeOf is the node that has or had a session's connection.
func (st *state) nodeOf(s *session) command.NodeID {
	if n := st.nodes.at(s.lastNode); n != nil {
		return n.id
	}
	return ""
}

// Session gives the state of the session that ref owns; false when its epoch has ended.
func (m *Machine) Session(ref command.Ref) (SessionState, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := m.st.owned(ref)
	if s == nil {
		return SessionState{}, false
	}
	out := SessionState{
		Serial: s.serial, ClientID: s.clientID, Identity: s.identity, Version: s.version, Persistent: s.persistent,
		ExpirySeconds: s.expiry, ReceiveMaximum: s.receiveMax,
	}
	if d := s.d; d != nil {
		out.Subscriptions = d.subscriptions()
		out.Cursor, out.ResendBound, out.Dropped = d.cursor, d.sent, d.lost()
		out.Done, out.In2 = slices.Clone(d.done), slices.Clone(d.in2)
		for i := range d.out2 {
			out.Out2 = append(out.Out2, OutState{Seq: d.out2[i].seq, Received: d.out2[i].received})
		}
	}
	return out, true
}

// subscriptions are the current ones, the shared ones under their whole filters.
func (d *durable) subscriptions() []Subscription {
	list := make([]Subscription, 0, len(d.subs)+len(d.shares))
	for i := range d.subs {
		if c := d.subs[i].current(); c != nil {
			list = append(list, c.opts.subscription(d.subs[i].filter.name, c.id, c.from))
		}
	}
	for _, m := range d.shares {
		list = append(list, m.opts.subscription("$share/"+m.group.share+"/"+m.group.filter.name, m.id, 0))
	}
	slices.SortFunc(list, func(a, b Subscription) int { return cmp.Compare(a.Filter, b.Filter) })
	return list
}

func (o options) subscription(filter string, id uint32, since uint64) Subscription {
	return Subscription{
		Subscription: command.Subscription{
			Filter: filter, QoS: o.qos(), NoLocal: o.noLocal(), RetainAsPublished: o.rap(), RetainHandling: o.retainHandling(),
		},
		ID: id, Since: since,
	}
}

// lost counts what the streams have removed before the session got it, with what it has counted already.
func (d *durable) lost() uint64 {
	n := d.dropped
	for i := range d.subs {
		if b := &d.subs[i]; b.queued() && b.filter.stream.base > b.seen {
			n += b.filter.stream.base - b.seen
		}
	}
	return n
}

// Owner gives the present or last owner of a client's session; the zero Ref when there is no session. Connected is
// false also when the node that held the connection has been declared dead.
func (m *Machine) Owner(clientID string) (ref command.Ref, node command.NodeID, connected bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	slot, ok := m.st.byClient[clientID]
	if !ok {
		return command.Ref{}, "", false
	}
	s := m.st.sessions.at(slot)
	return s.ref(), m.st.nodeOf(s), s.alive()
}

// NextEpoch is the epoch that the next connection gets, for command.Connect.Before.
func (m *Machine) NextEpoch() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.st.epoch + 1
}

// Sessions visits up to max sessions from slot from on, until visit returns false. next is where to go on, 0 at the end.
// visit is called with the machine unlocked; the value is its own.
func (m *Machine) Sessions(from uint32, max int, visit func(s *SessionInfo) bool) (next uint32) {
	const block = 256
	infos := make([]SessionInfo, 0, min(max, block))
	for max > 0 {
		infos = infos[:0]
		m.mu.RLock()
		st := m.st
		stop := min(int(from)+16*block, len(st.sessions.cells))
		for ; int(from) < stop && len(infos) < min(max, block); from++ {
			if s := st.sessions.at(from); s != nil {
				infos = append(infos, st.info(s))
			}
		}
		end := int(from) >= len(st.sessions.cells)
		m.mu.RUnlock()
		for i := range infos {
			if !visit(&infos[i]) {
				return infos[i].Ref.Slot + 1
			}
		}
		if end {
			return 0
		}
		max -= len(infos)
	}
	return from
}

func (st *state) info(s *session) SessionInfo {
	out := SessionInfo{
		Ref: s.ref(), Serial: s.serial, ClientID: s.clientID, Identity: s.identity, Version: s.version, Persistent: s.persistent,
		ExpirySeconds: s.expiry, ReceiveMaximum: s.receiveMax, Connected: s.alive(), Node: st.nodeOf(s),
	}
	d := s.d
	if d == nil {
		return out
	}
	out.ExpiresAt, out.Inflight, out.Dropped = d.expireAt, len(d.out2), d.lost()
	out.Queued = uint64(len(d.private))
	for i := range d.subs {
		b := &d.subs[i]
		if b.current() != nil {
			out.Subscriptions++
		}
		if b.queued() {
			m := b.filter.stream
			out.Queued += uint64(m.slots.count - st.search(m, b.position(d.cursor)))
		}
	}
	out.Subscriptions += len(d.shares)
	return out
}

// Nodes are the nodes that the log knows, by ID.
func (m *Machine) Nodes() []NodeInfo {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var list []NodeInfo
	for _, n := range m.st.nodes.cells {
		if n != nil {
			list = append(list, n.info())
		}
	}
	slices.SortFunc(list, func(a, b NodeInfo) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Node is one of them.
func (m *Machine) Node(id command.NodeID) (NodeInfo, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	i, ok := m.st.nodeByID[id]
	if !ok {
		return NodeInfo{}, false
	}
	return m.st.nodes.at(i).info(), true
}

func (n *node) info() NodeInfo {
	out := NodeInfo{
		ID: n.id, Name: n.name, ClientAddr: n.addr, Format: n.format, Incarnation: n.incarnation, LastBatch: n.lastBatch,
		Up: n.life != nil,
	}
	if n.life != nil {
		out.Connections = n.life.sessions
	}
	return out
}

// Stats are counters of what is there and of what was lost.
func (m *Machine) Stats() Stats {
	m.mu.RLock()
	defer m.mu.RUnlock()
	st := m.st
	return Stats{
		Applied: st.applied, Now: st.now, Sessions: st.sessions.used, Connected: st.connected, Persisted: st.persisted,
		Filters: st.filters.used, Streams: st.streams, Routes: st.routes, Groups: st.groups.used, Retained: st.retained.used,
		Delayed: st.delayed.used, StoredMessages: st.slab.used, StoredBytes: st.slab.bytes, Dropped: st.dropped,
		Expired: st.expired, Refused: st.refused, Work: st.workCount,
	}
}
