package fsm

import (
	"cmp"
	"slices"
	"strings"

	"quorate/fsm/command"
	"quorate/protocol/packet"
)

// group is a shared subscription: a share name and a filter [MQTT-4.8.2-1]. Each message with a QoS above 0 is assigned
// to exactly one member, or waits in the group's backlog until one can take it.
type group struct {
	index, gen uint32
	// id names the group for ever: assigned messages refer to it also when it is gone.
	id     uint64
	share  string
	filter *filter
	// members is a heap: the first is the one to take the next message. Derived from the sessions.
	//
	// Invariant: a group with dead unset has members.
	members []*member
	// waiting are the messages nobody could take, oldest first.
	waiting list
	bytes   uint64
	work    queued
	// dead: the last member has left, and the backlog is being given up.
	dead bool
}

// member is a session's membership in a group. It is part of the session: a snapshot keeps it there.
type member struct {
	group *group
	// pos is the place in the group's heap. ready and load are the key it has there. Derived.
	pos, load int
	ready     bool
	session   *session
	// last is the sequence of its newest assignment, or of its joining: among equals the one that waited longest is next.
	last uint64
	id   uint32
	opts options
}

func (m *member) compare(o *member) int {
	if m.ready != o.ready {
		if m.ready {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(m.load, o.load), cmp.Compare(m.last, o.last), cmp.Compare(m.session.serial, o.session.serial))
}

// refresh takes over what the key depends on: whether the session can take a message, and how many it has.
func (m *member) refresh(limit uint16) {
	s := m.session
	m.load = s.d.outstanding
	m.ready = s.alive() && m.load < int(min(s.receiveMax, limit))
	m.group.fix(m.pos)
}

func (g *group) set(i int, m *member) {
	g.members[i] = m
	m.pos = i
}

// fix restores the heap after the key of the member at i changed.
func (g *group) fix(i int) {
	m := g.members[i]
	for i > 0 && m.compare(g.members[(i-1)/2]) < 0 {
		g.set(i, g.members[(i-1)/2])
		i = (i - 1) / 2
	}
	for {
		child := 2*i + 1
		if child >= len(g.members) {
			break
		}
		if child+1 < len(g.members) && g.members[child+1].compare(g.members[child]) < 0 {
			child++
		}
		if m.compare(g.members[child]) <= 0 {
			break
		}
		g.set(i, g.members[child])
		i = child
	}
	g.set(i, m)
}

func (g *group) add(m *member) {
	m.pos = len(g.members)
	g.members = append(g.members, m)
	g.fix(m.pos)
}

func (g *group) remove(m *member) {
	last := len(g.members) - 1
	moved := g.members[last]
	g.members[last] = nil
	g.members = g.members[:last]
	if moved != m {
		g.set(m.pos, moved)
		g.fix(m.pos)
	}
}

// next is the member to take a message, or nil. A member whose node has died since its key was set is put right here:
// NodeDown touches no group.
func (st *state) next(g *group) *member {
	for len(g.members) > 0 && g.members[0].ready {
		m := g.members[0]
		if m.session.alive() {
			return m
		}
		m.refresh(st.limits.MaxReceiveWindow)
	}
	return nil
}

func (d *durable) findShare(share, filter string) int {
	return slices.IndexFunc(d.shares, func(m *member) bool {
		return m.group.share == share && m.group.filter.name == filter
	})
}

func (f *filter) findGroup(share string) (int, bool) {
	return slices.BinarySearchFunc(f.groups, share, func(g *group, share string) int { return strings.Compare(g.share, share) })
}

// joinGroup makes a session a member of a shared group, or changes its options for later assignments.
func (st *state) joinGroup(s *session, c *command.Subscription, share, inner string, id uint32) (packet.ReasonCode, bool) {
	if c.NoLocal {
		return packet.ProtocolError, false // [MQTT-3.8.3-4]; its connection is closed before this
	}
	d := st.durable(s)
	if i := d.findShare(share, inner); i >= 0 {
		m := d.shares[i]
		m.id, m.opts = id, packOptions(c)
		st.effect(effectMemberJoin, m.group.id, s.serial)
		st.effect(effectMemberJoin, uint64(id), uint64(m.opts))
		return packet.ReasonCode(c.QoS), true
	}
	if len(d.subs)+len(d.shares) >= int(st.limits.MaxSubscriptionsPerSession) {
		return packet.QuotaExceeded, false
	}
	f := st.filterFor(inner)
	i, found := f.findGroup(share)
	if !found {
		st.groupSerial++
		g := &group{gen: st.gen, id: st.groupSerial, share: share, filter: f}
		g.index = st.groups.add(g)
		st.groupByID[g.id] = g
		f.groups = slices.Insert(f.groups, i, g)
		st.effectString(effectGroupNew, uint64(g.index)<<32|uint64(f.index), share)
	}
	g := f.groups[i]
	if len(g.members) >= int(st.limits.MaxGroupMembers) {
		return packet.QuotaExceeded, false
	}
	m := &member{group: g, session: s, last: st.seq, id: id, opts: packOptions(c)}
	d.shares = append(d.shares, m)
	g.add(m)
	m.refresh(st.limits.MaxReceiveWindow)
	st.effect(effectMemberJoin, g.id, s.serial)
	st.effect(effectMemberJoin, uint64(id), uint64(m.opts))
	st.drainGroup(g, trimUnits)
	return packet.ReasonCode(c.QoS), false
}

// leaveGroup ends a membership. What was assigned to the member stays with it while its session lasts.
func (st *state) leaveGroup(s *session, share, inner string) packet.ReasonCode {
	if s.d == nil {
		return packet.NoSubscriptionExisted
	}
	i := s.d.findShare(share, inner)
	if i < 0 {
		return packet.NoSubscriptionExisted
	}
	m := s.d.shares[i]
	s.d.shares = slices.Delete(s.d.shares, i, i+1)
	st.removeMember(m)
	return packet.Success
}

// leaveGroups ends all memberships of an ending session.
func (st *state) leaveGroups(s *session) {
	for _, m := range s.d.shares {
		st.removeMember(m)
	}
	s.d.shares = nil
}

// removeMember takes a member from its group; the last one leaves a dead group, whose backlog is given up by and by.
func (st *state) removeMember(m *member) {
	g := m.group
	st.touchGroup(g)
	st.effect(effectMemberLeave, g.id, m.session.serial)
	g.remove(m)
	if len(g.members) > 0 {
		return
	}
	g.dead = true
	f := g.filter
	i, _ := f.findGroup(g.share)
	f.groups = slices.Delete(f.groups, i, i+1)
	delete(st.groupByID, g.id)
	st.effect(effectGroupGone, uint64(g.index), g.id)
	st.dropFilter(f)
	st.drainGroup(g, trimUnits)
}

// refreshMember puts a session's keys in its groups right, after it was connected, disconnected, or took or finished a message.
func (st *state) refreshMember(s *session) {
	for _, m := range s.d.shares {
		m.refresh(st.limits.MaxReceiveWindow)
	}
}

// drainShares hands out the backlogs of a session's groups.
func (st *state) drainShares(s *session) {
	for _, m := range s.d.shares {
		st.drainGroup(m.group, trimUnits)
	}
}
