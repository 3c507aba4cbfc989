package fsm

import (
	"cmp"
	"slices"
	"sort"
)

const (
	// bucketSeqs is the number of sequences whose positions are counted together.
	bucketShift = 10
	// trimUnits is how many messages a stream loses at once outside a Tick; the rest is work for ticks.
	trimUnits = 256
)

// stream is the list of messages of one filter for its persistent subscribers with a QoS above 0. Each of them has a
// position: everything at or below is nothing to it any more. What is below all positions is trimmed.
type stream struct {
	slots list
	bytes uint64
	// last is the sequence of the newest message ever appended.
	last uint64
	// base is the number of messages ever removed from the front: the i-th message ever has place i, the front has base.
	base uint64
	// open counts the subscriptions that get new messages. Derived.
	open int
	// Derived.
	positions positions
}

// positions counts the positions of a stream's subscribers per bucket of 1,024 sequences, never one by one: trimming
// must not look at a million of them.
type positions struct {
	// subs is the number of positions.
	subs int
	// caught is how many of them are at or above the stream's last message.
	caught int
	// buckets are the buckets in use, in order. Invariant: every n is above 0, their sum is subs.
	buckets []bucket
}

type bucket struct {
	key uint64
	n   int
}

func (p *positions) find(key uint64) (int, bool) {
	if n := len(p.buckets); n > 0 && p.buckets[n-1].key == key {
		return n - 1, true
	}
	return slices.BinarySearchFunc(p.buckets, key, func(b bucket, key uint64) int { return cmp.Compare(b.key, key) })
}

func (p *positions) add(pos, last uint64) {
	p.subs++
	if pos >= last {
		p.caught++
	}
	i, found := p.find(pos >> bucketShift)
	if !found {
		p.buckets = slices.Insert(p.buckets, i, bucket{key: pos >> bucketShift})
	}
	p.buckets[i].n++
}

func (p *positions) remove(pos, last uint64) {
	p.subs--
	if pos >= last {
		p.caught--
	}
	i, found := p.find(pos >> bucketShift)
	if !found {
		panic("fsm: position of a subscriber that was never counted")
	}
	p.buckets[i].n--
	if p.buckets[i].n == 0 {
		p.buckets = slices.Delete(p.buckets, i, i+1)
	}
}

func (p *positions) move(from, to, last uint64) {
	if from>>bucketShift == to>>bucketShift {
		if from < last && to >= last {
			p.caught++
		}
		return
	}
	p.remove(from, last)
	p.add(to, last)
}

// done is the sequence up to which nobody needs anything.
func (p *positions) done(last uint64) uint64 {
	if p.caught == p.subs {
		return last
	}
	return p.buckets[0].key << bucketShift
}

// seqAt is the sequence of the i-th message from the front.
func (st *state) seqAt(m *stream, i int) uint64 { return st.slab.at(m.slots.at(i)).seq }

// search gives the number of the stream's messages at or below seq.
func (st *state) search(m *stream, seq uint64) int {
	if m.slots.count == 0 || seq >= m.last {
		return m.slots.count
	}
	return sort.Search(m.slots.count, func(i int) bool { return st.seqAt(m, i) > seq })
}

// appendStream adds a message to the stream of f, which loses its oldest ones beyond the limits.
func (st *state) appendStream(f *filter, slot uint32) {
	m := f.stream
	st.touchFilter(f)
	s := st.slab.at(slot)
	m.slots.push(slot)
	st.hold(slot)
	m.bytes += s.bytes()
	m.last = s.seq
	m.positions.caught = 0
	st.effect(effectAppend, uint64(f.index), s.seq)
	for n := 0; n < trimUnits && m.slots.count > 1; n++ {
		front := st.slab.at(m.slots.front())
		over := uint64(m.slots.count) > st.limits.MaxQueuedMessages || m.bytes > st.limits.MaxQueuedBytes
		if !over && !front.is(slotDead) {
			break
		}
		if over && !front.is(slotDead) {
			st.dropped++
		}
		st.popStream(f)
	}
}

// popStream removes the oldest message.
func (st *state) popStream(f *filter) {
	m := f.stream
	slot := m.slots.front()
	s := st.slab.at(slot)
	st.effect(effectPop, uint64(f.index), s.seq)
	m.bytes -= s.bytes()
	m.slots.pop()
	m.base++
	st.release(slot)
}

// trimStream removes what no subscriber needs, at most budget messages of it, and gives the units of work it took. A
// stream without messages and subscribers goes, and its filter with it when nothing else keeps it.
func (st *state) trimStream(f *filter, budget int) int {
	m := f.stream
	if m == nil {
		return 1
	}
	used := 1
	done := m.positions.done(m.last)
	for m.slots.count > 0 && st.seqAt(m, 0) <= done {
		if used > budget {
			st.touchFilter(f)
			st.queueWork(&f.work, workFilter, f.index)
			return used
		}
		st.touchFilter(f)
		st.popStream(f)
		used++
	}
	if m.slots.count == 0 && m.positions.subs == 0 {
		st.touchFilter(f)
		f.stream = nil
		st.streams--
		st.dropFilter(f)
	}
	return used
}
