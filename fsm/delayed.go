package fsm

import "quorate/fsm/command"

// delayed is a message that is published later.
type delayed struct {
	index, gen uint32
	slot       uint32
	due        uint64
	// order is the place of its PUBLISH among the delayed ones: what is due together is published in that order.
	order uint64
	timer timer
}

// delay stores a message to be published later; false without room.
func (st *state) delay(p *publication, c *command.Publish) bool {
	if uint64(st.delayed.used) >= st.limits.MaxDelayed || !st.room(len(p.body)) {
		return false
	}
	p.deadline = waitingExpiry(&c.Message)
	slot := st.storeMessage(p, true)
	st.hold(slot)
	st.delayOrder++
	e := &delayed{gen: st.gen, slot: slot, due: after(st.now, c.DelaySeconds), order: st.delayOrder}
	e.index = st.delayed.add(e)
	st.startDelayed(e)
	st.effect(effectDelay, uint64(e.index), e.due)
	return true
}

func (st *state) startDelayed(e *delayed) {
	e.timer = timer{kind: timerDelayed, id: e.index, tie: e.order, pos: -1}
	st.setTimer(&e.timer, e.due)
}

// publishDelayed publishes a delayed message whose time has come.
func (st *state) publishDelayed(index uint32) {
	e := st.delayed.at(index)
	st.touchDelayed(e)
	st.delayed.remove(index)
	st.effect(effectDelayDone, uint64(index), e.order)
	st.publishWaiting(e.slot)
}
