package fsm

import (
	"slices"

	"quorate/fsm/command"
	"quorate/fsm/mutant"
)

// session is the state of a client, by its Client Identifier. Everything that a transient session without shared
// subscriptions does not need is in durable, so that it costs little.
type session struct {
	slot, gen uint32
	// serial names the session for ever, epoch its present or last owner.
	serial, epoch      uint64
	clientID, identity string
	// life is the node incarnation that holds the connection, or held the last one; nil when that is gone.
	//
	// Invariant: while connected, life is not nil and counts the session.
	life *life
	// lastNode is the table index of the node that has or had the connection.
	lastNode  uint32
	expiry    uint32 // seconds; command.ExpiryNever
	willDelay uint32 // seconds
	// will is the slot of the will, or noSlot.
	will       uint32
	receiveMax uint16
	version    byte
	connected  bool
	// persistent sessions were made with an expiry above 0: the machine keeps their subscriptions.
	persistent bool
	// woken is the entry in which the session was last woken, so that it is told once. Not replicated.
	woken uint64
	d     *durable
}

// durable is what outlives a connection.
type durable struct {
	cursor uint64
	// done are finished sequences above cursor, in order. Invariant: every one is above cursor.
	done []uint64
	// subs are the subscriptions in the order of their filters' names.
	subs []subscription
	// shares are the memberships in shared groups, in the order of joining.
	shares []*member
	// private holds what is the session's alone, by sequence.
	private []privateItem
	// out2 holds the QoS 2 messages marked for sending, by sequence.
	out2 []outItem
	// in2 are the inbound QoS 2 packet identifiers not released, in order.
	in2 []uint16
	// owed are retained messages not yet copied to private.
	owed []owed
	work queued
	// sent: messages at or below may have been sent by an earlier connection.
	sent    uint64
	dropped uint64
	// willDue and expireAt are stamps, 0 for none. timer is set for the earlier one. Derived: timer.
	willDue, expireAt uint64
	// heldWill is the slot, plus one, of a will that waited for its delay when the present connection came, and heldDue
	// when it was due: should the client never have heard of that connection, the will waits on.
	// Invariant: 0 while there is no connection.
	heldWill uint32
	heldDue  uint64
	timer    timer
	// outstanding counts the shared messages among private and out2. Derived.
	outstanding int
}

// privateItem is a message for one session only: a retained copy, or a shared message assigned to it (group not 0).
type privateItem struct {
	seq    uint64
	group  uint64
	slot   uint32
	subID  uint32
	qos    byte
	retain bool
}

// outItem is a QoS 2 message that the session holds for sending: nothing expires, trims, unsubscribes or reassigns it.
type outItem struct {
	seq      uint64
	group    uint64
	slot     uint32
	retain   bool
	received bool
	// alone: it came through the private list, so that other subscriptions have no part in it.
	alone  bool
	subIDs []uint32
}

func (s *session) ref() command.Ref { return command.Ref{Slot: s.slot, Epoch: s.epoch} }

// alive tells whether the session has a connection on a node that is up.
func (s *session) alive() bool { return s.connected && s.life.up }

// owned finds the session that ref owns; nil when the epoch has ended (P4).
func (st *state) owned(ref command.Ref) *session {
	s := st.sessions.at(ref.Slot)
	if s == nil || !s.connected || s.epoch != ref.Epoch && !mutant.NoEpochCheck {
		return nil
	}
	return s
}

// durable gives the session its lasting part.
func (st *state) durable(s *session) *durable {
	if s.d == nil {
		s.d = &durable{timer: timer{kind: timerSession, id: s.slot, tie: s.serial, pos: -1}}
	}
	return s.d
}

func (st *state) newSession(c *command.Connect) *session {
	st.serial++
	s := &session{
		serial: st.serial, gen: st.gen, clientID: c.ClientID, identity: c.Identity,
		will: noSlot, persistent: c.ExpirySeconds > 0 && st.limits.MaxSessionExpirySeconds > 0,
	}
	s.slot = st.sessions.add(s)
	st.byClient[c.ClientID] = s.slot
	if s.persistent {
		// The past is not this session's: its cursor begins at the present.
		st.durable(s).cursor = st.seq
		st.persisted++
	}
	st.effectString(effectSessionNew, s.serial, c.ClientID)
	st.effectString(effectSessionNew, uint64(s.slot), c.Identity)
	return s
}

// endSession removes a session that has no connection: its will goes out, its shared messages go to others, and what
// it alone held is given up.
func (st *state) endSession(s *session) {
	st.touchSession(s)
	st.effect(effectSessionEnd, uint64(s.slot), s.serial)
	if d := s.d; d != nil {
		st.setTimer(&d.timer, 0)
		st.dropWork(&d.work)
		st.leaveGroups(s)
		st.returnShared(s, true)
		for i := range d.private {
			st.release(d.private[i].slot)
		}
		for i := range d.out2 {
			st.dropOut(&d.out2[i])
		}
		for i := range d.subs {
			st.leaveFilter(s, &d.subs[i])
		}
	}
	delete(st.byClient, s.clientID)
	st.sessions.remove(s.slot)
	if s.persistent {
		st.persisted--
	}
	if s.will != noSlot {
		st.publishWill(s)
	}
	s.d = nil
}

// connectionEnd is how a connection ends.
type connectionEnd struct {
	base     uint64 // the stamp from which will delay and session expiry count
	sendWill bool
	sent     uint64 // the highest sequence that may have been sent
	// abandoned: the client never heard of the connection.
	abandoned bool
}

// endConnection takes the connection from a session: the will is sent, dropped or delayed, and the session ends, or
// waits for its expiry.
func (st *state) endConnection(s *session, end connectionEnd) {
	st.touchSession(s)
	st.effect(effectDisconnect, uint64(s.slot), s.epoch)
	s.connected = false
	s.life.sessions--
	s.life = nil
	st.connected--
	if s.will != noSlot && !end.sendWill {
		st.dropWill(s)
	}
	st.settleHeldWill(s, end.abandoned)
	if s.expiry == 0 {
		st.endSession(s)
		return
	}
	d := st.durable(s)
	d.sent = max(d.sent, min(end.sent, st.seq))
	st.refreshMember(s)
	if st.limits.ReassignOnDisconnect {
		st.returnShared(s, false)
	}
	switch {
	case s.will == noSlot || d.willDue != 0: // none, or one that waits on
	case s.willDelay == 0:
		st.publishWill(s)
	default:
		d.willDue = after(end.base, s.willDelay)
	}
	if s.expiry != command.ExpiryNever {
		d.expireAt = after(end.base, s.expiry)
	}
	st.setSessionTimer(s)
}

// after is the stamp so many seconds after base; never 0, which means none.
func after(base uint64, seconds uint32) uint64 { return max(1, base+uint64(seconds)*1000) }

func (st *state) setSessionTimer(s *session) {
	d := s.d
	at := d.expireAt
	if d.willDue != 0 && (at == 0 || d.willDue < at) {
		at = d.willDue
	}
	st.effect(effectTimer, s.serial, at)
	st.setTimer(&d.timer, at)
}

// sessionDue is called when the session's timer has run out: the will goes out at the earlier of its delay and the
// session's end [MQTT-3.1.3-9].
func (st *state) sessionDue(slot uint32) {
	s := st.sessions.at(slot)
	st.touchSession(s)
	d := s.d
	if d.expireAt != 0 && d.expireAt <= st.now && (d.willDue == 0 || d.expireAt <= d.willDue) {
		st.endSession(s)
		return
	}
	d.willDue = 0
	st.publishWill(s)
	st.setSessionTimer(s)
}

// setWill stores the will of a new connection.
func (st *state) setWill(s *session, w *command.Will) {
	p := publication{
		body: w.Body(), topic: w.Topic, payload: w.Payload, qos: w.QoS, retain: w.Retain, publisher: s.serial,
		deadline: waitingExpiry(&w.Message),
	}
	s.will = st.storeMessage(&p, true)
	s.willDelay = w.DelaySeconds
	st.hold(s.will)
	st.effect(effectWill, s.serial, uint64(w.DelaySeconds))
}

// waitingExpiry is what the deadline field holds until the message is published: its lifetime starts then.
func waitingExpiry(m *command.Message) uint64 {
	if !m.HasExpiry {
		return 0
	}
	return uint64(m.ExpirySeconds) + 1
}

// dropWill gives up a will that is not to be sent.
func (st *state) dropWill(s *session) {
	st.effect(effectWillDrop, s.serial, 0)
	st.release(s.will)
	s.will, s.willDelay = noSlot, 0
	if s.d != nil {
		s.d.willDue = 0
	}
}

// holdWill keeps a will that waits for its delay until it is sure that the new connection ends the wait [MQTT-3.1.3-9].
func (st *state) holdWill(s *session) {
	d := s.d
	st.effect(effectWillHeld, s.serial, d.willDue)
	d.heldWill, d.heldDue = s.will+1, d.willDue
	s.will, s.willDelay = noSlot, 0
}

// settleHeldWill gives up the will that was held when a connection ends, or lets it wait on if there was none.
func (st *state) settleHeldWill(s *session, abandoned bool) {
	d := s.d
	if d == nil || d.heldWill == 0 {
		return
	}
	slot := d.heldWill - 1
	if abandoned {
		st.effect(effectWillHeld, s.serial, 0)
		s.will, d.willDue = slot, d.heldDue
	} else {
		st.effect(effectWillDrop, s.serial, 0)
		st.release(slot)
	}
	d.heldWill, d.heldDue = 0, 0
}

// publishWill publishes the will, once.
func (st *state) publishWill(s *session) {
	slot := s.will
	s.will, s.willDelay = noSlot, 0
	st.publishWaiting(slot)
}

// holdsIn2 tells whether the packet identifier of an inbound QoS 2 message is held.
func (s *session) holdsIn2(id uint16) bool {
	if s.d == nil {
		return false
	}
	_, found := slices.BinarySearch(s.d.in2, id)
	return found
}

func (st *state) addIn2(s *session, id uint16) {
	st.touchSession(s)
	d := st.durable(s)
	i, _ := slices.BinarySearch(d.in2, id)
	d.in2 = slices.Insert(d.in2, i, id)
	st.effect(effectIn2Add, s.serial, uint64(id))
}

func (st *state) removeIn2(s *session, id uint16) bool {
	if !s.holdsIn2(id) {
		return false
	}
	st.touchSession(s)
	i, _ := slices.BinarySearch(s.d.in2, id)
	s.d.in2 = slices.Delete(s.d.in2, i, i+1)
	st.effect(effectIn2Remove, s.serial, uint64(id))
	return true
}
