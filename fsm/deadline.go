package fsm

import "cmp"

// Kinds of timer, in the order in which they run when they are due at the same stamp.
const (
	timerRetained = iota
	timerDelayed
	timerSession
)

// timer is a deadline of an object that is in the heap while pos >= 0.
type timer struct {
	at   uint64
	kind uint8
	id   uint32 // of the object in its table
	tie  uint64 // unique for the kind: a serial or a sequence
	pos  int
}

func (t *timer) compare(o *timer) int {
	return cmp.Or(cmp.Compare(t.at, o.at), cmp.Compare(t.kind, o.kind), cmp.Compare(t.tie, o.tie))
}

// deadlines is a binary heap of timers. The order in which timers leave it follows from their keys alone, which are
// unique; how they lie inside does not matter.
type deadlines struct{ heap []*timer }

func (d *deadlines) add(t *timer) {
	t.pos = len(d.heap)
	d.heap = append(d.heap, t)
	d.up(t.pos)
}

func (d *deadlines) remove(t *timer) {
	i, last := t.pos, len(d.heap)-1
	t.pos = -1
	moved := d.heap[last]
	d.heap[last] = nil
	d.heap = d.heap[:last]
	if i == last {
		return
	}
	d.set(i, moved)
	d.up(i)
	d.down(moved.pos)
}

func (d *deadlines) set(i int, t *timer) {
	d.heap[i] = t
	t.pos = i
}

func (d *deadlines) up(i int) {
	t := d.heap[i]
	for i > 0 {
		parent := (i - 1) / 2
		if d.heap[parent].compare(t) <= 0 {
			break
		}
		d.set(i, d.heap[parent])
		i = parent
	}
	d.set(i, t)
}

func (d *deadlines) down(i int) {
	t := d.heap[i]
	for {
		child := 2*i + 1
		if child >= len(d.heap) {
			break
		}
		if child+1 < len(d.heap) && d.heap[child+1].compare(d.heap[child]) < 0 {
			child++
		}
		if t.compare(d.heap[child]) <= 0 {
			break
		}
		d.set(i, d.heap[child])
		i = child
	}
	d.set(i, t)
}

// setTimer puts t in the heap for stamp at, or takes it out for 0.
func (st *state) setTimer(t *timer, at uint64) {
	if t.pos >= 0 {
		st.deadlines.remove(t)
	}
	t.at = at
	if at != 0 {
		st.deadlines.add(t)
	}
}

// runTimers does what is due, each a unit of work.
func (st *state) runTimers(budget int) int {
	for budget > 0 && len(st.deadlines.heap) > 0 {
		t := st.deadlines.heap[0]
		if t.at > st.now {
			break
		}
		st.deadlines.remove(t)
		budget--
		switch t.kind {
		case timerRetained:
			st.expireRetained(t.id)
		case timerDelayed:
			st.publishDelayed(t.id)
		case timerSession:
			st.sessionDue(t.id)
		}
	}
	return budget
}

const expiryBucketMillis = 1000

// expiryLists hold the messages that expire, in lists per second: when their second is over, their bodies go. Readers
// look at the exact deadline, so that this is only about the memory.
//
// Invariant: a list is in the order of its messages' sequences, because deadlines are set when sequences are given.
type expiryLists struct {
	lists map[uint64]expiryList
	// heap holds the seconds of lists, and some of lists that have become empty.
	heap []uint64
}

type expiryList struct{ head, tail uint32 }

func expiryBucket(deadline uint64) uint64 {
	b := deadline / expiryBucketMillis
	if deadline%expiryBucketMillis != 0 {
		b++
	}
	return b
}

func (x *expiryLists) add(b *slab, i uint32) {
	s := b.at(i)
	s.set(slotListed)
	s.next, s.prev = noSlot, noSlot
	key := expiryBucket(s.deadline)
	l, ok := x.lists[key]
	if !ok {
		x.push(key)
		l = expiryList{head: i}
	} else {
		b.at(l.tail).next = i
		s.prev = l.tail
	}
	l.tail = i
	x.lists[key] = l
}

func (x *expiryLists) remove(b *slab, i uint32) {
	s := b.at(i)
	key := expiryBucket(s.deadline)
	l := x.lists[key]
	if s.prev == noSlot {
		l.head = s.next
	} else {
		b.at(s.prev).next = s.next
	}
	if s.next == noSlot {
		l.tail = s.prev
	} else {
		b.at(s.next).prev = s.prev
	}
	s.clear(slotListed)
	if l.head == noSlot {
		delete(x.lists, key)
		x.compact()
		return
	}
	x.lists[key] = l
}

// compact drops the seconds without a list once they are the greater part.
func (x *expiryLists) compact() {
	if len(x.heap) < 2*len(x.lists)+64 {
		return
	}
	x.heap = x.heap[:0]
	for key := range x.lists { // the order of the heap's inside does not matter
		x.push(key)
	}
}

func (x *expiryLists) push(key uint64) {
	x.heap = append(x.heap, key)
	i := len(x.heap) - 1
	for i > 0 && x.heap[(i-1)/2] > x.heap[i] {
		x.heap[(i-1)/2], x.heap[i] = x.heap[i], x.heap[(i-1)/2]
		i = (i - 1) / 2
	}
}

func (x *expiryLists) popKey() {
	last := len(x.heap) - 1
	x.heap[0] = x.heap[last]
	x.heap = x.heap[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return
		}
		if child+1 < last && x.heap[child+1] < x.heap[child] {
			child++
		}
		if x.heap[i] <= x.heap[child] {
			return
		}
		x.heap[i], x.heap[child] = x.heap[child], x.heap[i]
		i = child
	}
}

// runExpiry takes the bodies of messages whose second is over, each a unit of work.
func (st *state) runExpiry(budget int) int {
	x := &st.expiry
	for budget > 0 && len(x.heap) > 0 && x.heap[0]*expiryBucketMillis <= st.now {
		l, ok := x.lists[x.heap[0]]
		if !ok {
			x.popKey()
			continue
		}
		i := l.head
		x.remove(&st.slab, i)
		st.expireSlot(i)
		budget--
	}
	return budget
}

// nextDeadline is the stamp at which something is due.
func (st *state) nextDeadline() (stamp uint64, ok bool) {
	if st.workCount > 0 {
		return st.now, true
	}
	if len(st.deadlines.heap) > 0 {
		stamp, ok = st.deadlines.heap[0].at, true
	}
	if len(st.expiry.heap) > 0 {
		if at := st.expiry.heap[0] * expiryBucketMillis; !ok || at < stamp {
			stamp, ok = at, true
		}
	}
	return stamp, ok
}
