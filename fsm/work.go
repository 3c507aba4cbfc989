package fsm

// tickUnits bounds the work of one Tick.
const tickUnits = 1000

// Kinds of work that goes on over several commands.
const (
	workLife    = iota // end what a dead incarnation of a node left
	workFilter         // trim a stream
	workGroup          // hand out or give up a group's backlog
	workSession        // copy retained messages a session is owed
)

// queued is the mark of an object that has work to do: its place in the order of the work, 0 for none. It is part of
// the object, so that the queue can be rebuilt from the objects.
type queued struct{ order uint64 }

type workItem struct {
	order uint64
	kind  uint8
	id    uint32
}

// queueWork puts an object at the end of the work queue, unless it is in it.
func (st *state) queueWork(q *queued, kind uint8, id uint32) {
	if q.order != 0 {
		return
	}
	st.workOrder++
	q.order = st.workOrder
	st.work = append(st.work, workItem{order: q.order, kind: kind, id: id})
	st.workCount++
	st.effect(effectWork, uint64(kind), uint64(id))
}

// dropWork takes an object out of the work queue; its item stays and is passed over.
func (st *state) dropWork(q *queued) {
	if q.order != 0 {
		q.order = 0
		st.workCount--
	}
}

// runWork does pieces of work until the budget is used up or nothing is left. An object whose work is not finished
// goes to the end of the queue, so that none waits for another's end.
func (st *state) runWork(budget int) int {
	for budget > 0 && len(st.work) > 0 {
		it := st.work[0]
		st.work = st.work[1:]
		if len(st.work) == 0 {
			st.work = nil
		}
		switch it.kind {
		case workLife:
			if l := st.lives.at(it.id); l != nil && l.work.order == it.order {
				st.touchLife(l)
				st.dropWork(&l.work)
				budget -= st.sweepLife(l, budget)
			}
		case workFilter:
			if f := st.filters.at(it.id); f != nil && f.work.order == it.order {
				st.touchFilter(f)
				st.dropWork(&f.work)
				budget -= st.trimStream(f, budget)
			}
		case workGroup:
			if g := st.groups.at(it.id); g != nil && g.work.order == it.order {
				st.touchGroup(g)
				st.dropWork(&g.work)
				budget -= st.drainGroup(g, budget)
			}
		case workSession:
			if s := st.sessions.at(it.id); s != nil && s.d != nil && s.d.work.order == it.order {
				st.touchSession(s)
				st.dropWork(&s.d.work)
				budget -= st.copyOwed(s, budget)
			}
		}
	}
	return budget
}

// tick does due work up to the current stamp, in the order timers, expiry, work queue.
func (st *state) tick() {
	budget := st.runTimers(tickUnits)
	budget = st.runExpiry(budget)
	st.runWork(budget)
}
