package fsm

import (
	"quorate/fsm/command"
	"quorate/protocol/packet"
)

const clientIDBytesMax = 65535

// connect gives the session of a client to a connection of the life's node.
func (st *state) connect(c *command.Connect, l *life, r *Result) {
	if c.ClientID == "" || len(c.ClientID) > clientIDBytesMax {
		r.Code = packet.ClientIdentifierNotValid
		return
	}
	var s *session
	if slot, ok := st.byClient[c.ClientID]; ok {
		s = st.sessions.at(slot)
	}
	if s != nil && s.over(st.now) {
		// Its time has passed, only no Tick has come since: the answer must not depend on that.
		st.endSession(s)
		s = nil
	}
	if s != nil && s.identity != c.Identity {
		r.Code = packet.NotAuthorized
		return
	}
	if s != nil && s.alive() && c.Before != 0 && s.epoch >= c.Before {
		r.Code, r.Newer = packet.ServerBusy, true
		return
	}
	if c.Will != nil && !st.room(len(c.Will.Body())) || s == nil && uint64(st.sessions.used) >= st.limits.MaxSessions {
		st.refused++
		r.Code = packet.QuotaExceeded
		return
	}
	if s != nil {
		s = st.takeOver(s, c.CleanStart)
	}
	r.Present = s != nil
	if s == nil {
		s = st.newSession(c)
	}
	st.adopt(s, c, l)
	r.Ref, r.Serial, r.Persistent, r.ExpirySeconds = s.ref(), s.serial, s.persistent, s.expiry
}

// takeOver ends what the session had before: the connection of an earlier owner [MQTT-3.1.4-3], and with Clean Start
// the session. It returns the session if it goes on.
//
// The will of the old connection is sent, unless the session goes on and its delay has not run out: that covers a
// waiting will as well as one whose connection ends here [MQTT-3.1.3-9].
func (st *state) takeOver(s *session, cleanStart bool) *session {
	st.touchSession(s)
	if s.connected {
		st.connectionEnded(s, packet.SessionTakenOver)
		base := st.now
		if !s.life.up {
			base = s.life.downAt
		}
		serial := s.serial
		st.endConnection(s, connectionEnd{base: base, sendWill: true, sent: st.seq})
		if st.sessions.at(s.slot) != s || s.serial != serial {
			return nil
		}
	}
	if s.over(st.now) {
		st.endSession(s)
		return nil
	}
	d := s.d
	if d.willDue != 0 && d.willDue <= st.now {
		d.willDue = 0
		st.publishWill(s)
	}
	if cleanStart {
		st.endSession(s)
		return nil
	}
	if s.will != noSlot {
		st.holdWill(s)
	}
	d.expireAt, d.willDue = 0, 0
	st.setSessionTimer(s)
	return s
}

// over tells whether a session without a connection has expired.
func (s *session) over(now uint64) bool {
	return !s.connected && s.d.expireAt != 0 && s.d.expireAt <= now
}

// adopt makes the connection the owner of the session.
func (st *state) adopt(s *session, c *command.Connect, l *life) {
	st.epoch++
	s.epoch = st.epoch
	s.connected, s.life, s.lastNode = true, l, l.node.index
	l.sessions++
	st.connected++
	s.version = c.Version
	s.expiry = min(c.ExpirySeconds, st.limits.MaxSessionExpirySeconds)
	s.receiveMax = c.ReceiveMaximum
	if s.receiveMax == 0 {
		s.receiveMax = 65535
	}
	if c.Will != nil {
		st.setWill(s, c.Will)
	}
	st.effect(effectConnect, uint64(s.slot)<<32|uint64(l.index), s.epoch)
	st.effect(effectConnect, uint64(s.expiry)<<32|uint64(s.receiveMax), uint64(s.version))
	if s.d != nil {
		st.refreshMember(s)
		st.drainShares(s)
	}
}

// disconnect ends a connection.
func (st *state) disconnect(c *command.Disconnect, r *Result) {
	s := st.owned(c.Ref)
	if s == nil {
		r.Stale = true
		return
	}
	end := connectionEnd{base: st.now, sendWill: c.SendWill && !c.Abandoned, sent: st.seq, abandoned: c.Abandoned}
	if c.Sent != 0 {
		end.sent = c.Sent
	}
	if c.HasExpiry {
		st.touchSession(s)
		if s.expiry == 0 && c.ExpirySeconds != 0 {
			// Not a valid DISCONNECT: the will is sent and the session ends [MQTT-3.14.2-2].
			r.Code = packet.ProtocolError
			end.sendWill = true
		} else {
			s.expiry = min(c.ExpirySeconds, st.limits.MaxSessionExpirySeconds)
		}
	}
	st.endConnection(s, end)
}

// kick ends a client's connection, or its session, by an administrator's wish.
func (st *state) kick(c *command.Kick, r *Result) {
	slot, ok := st.byClient[c.ClientID]
	r.Existed = append(r.Existed, ok)
	if !ok {
		return
	}
	s := st.sessions.at(slot)
	serial := s.serial
	if s.connected {
		st.connectionEnded(s, packet.ReasonCode(c.Reason))
		st.endConnection(s, connectionEnd{base: st.now, sendWill: true, sent: st.seq})
	}
	if c.EndSession && st.sessions.at(slot) == s && s.serial == serial {
		st.endSession(s)
	}
}
