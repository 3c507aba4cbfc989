package fsm

import (
	"slices"

	"quorate/fsm/command"
	"quorate/protocol/topic"
)

// pullSteps bounds the sequences that one Pull looks at, found or passed over.
const pullSteps = 8192

// Pull appends to dst up to max messages for the session that ref owns, by sequence: those of its streams, its private
// list and its marked ones, above after, not done and not expired. Everything up to scanned was looked at, so that the
// next call passes it. There may be more above scanned also when less than max came: a call whose scanned equals after
// has come to the end of what there is. ok is false when the epoch of ref has ended.
//
// What one message matches falls together: the highest QoS, all Subscription Identifiers. Bodies are read with the
// machine unlocked; a message that goes meanwhile is left out.
func (m *Machine) Pull(ref command.Ref, after uint64, max int, dst []Delivery) (out []Delivery, scanned uint64, ok bool) {
	p := puller{after: after, max: max}
	m.mu.RLock()
	s := m.st.owned(ref)
	if s == nil {
		m.mu.RUnlock()
		return dst, after, false
	}
	p.st, p.s = m.st, s
	p.collect()
	m.mu.RUnlock()
	for i := range p.found {
		f := &p.found[i]
		if !f.Received && !m.fill(f, p.zero) {
			continue
		}
		dst = append(dst, f.Delivery)
	}
	return dst, p.scanned, true
}

// fill reads the body of a message that was pulled, and adds what its QoS 0 subscriptions contribute: they are in no
// stream, so that only the topic tells.
func (m *Machine) fill(f *pulled, zero []zeroSub) bool {
	var msg Message
	if !m.message(f.place, &msg) {
		return false
	}
	f.Topic, f.Forwarded, f.Payload = msg.Topic, msg.Forwarded, msg.Payload
	for i := range zero {
		z := &zero[i]
		if f.alone || f.Seq <= z.from || z.noLocal && f.own || !topic.Match(z.filter, f.Topic) {
			continue
		}
		if z.id != 0 {
			f.SubIDs = append(f.SubIDs, z.id)
		}
		f.Retain = f.Retain || z.rap && f.published
	}
	return true
}

// puller merges what a session has by sequence.
type puller struct {
	st      *state
	s       *session
	after   uint64
	max     int
	scanned uint64

	heads   []head
	private int
	out2    int
	found   []pulled
	zero    []zeroSub
}

// head is the next message of a stream.
type head struct {
	sub *subscription
	at  int
	seq uint64
}

// pulled is a delivery whose body is still to be read.
type pulled struct {
	Delivery
	place
	// published: the message was published with RETAIN. own: the session published it. alone: it came through the
	// private list.
	published, own, alone bool
}

// zeroSub is a current subscription with QoS 0 that has something to contribute.
type zeroSub struct {
	filter       string
	from         uint64
	id           uint32
	noLocal, rap bool
}

func (p *puller) collect() {
	d := p.s.d
	if d == nil {
		p.scanned = max(p.after, p.st.seq)
		return
	}
	p.begin()
	for step := 0; len(p.found) < p.max && step < pullSteps; step++ {
		seq := p.lowest()
		if seq == 0 {
			p.scanned = max(p.after, p.st.seq)
			return
		}
		p.take(seq)
		p.scanned = seq
	}
	p.scanned = max(p.scanned, p.after)
}

// begin finds where each list goes on.
func (p *puller) begin() {
	d := p.s.d
	for i := range d.subs {
		b := &d.subs[i]
		if c := b.current(); c != nil && c.opts.qos() == 0 && (c.id != 0 || c.opts.rap()) {
			p.zero = append(p.zero, zeroSub{b.filter.name, c.from, c.id, c.opts.noLocal(), c.opts.rap()})
		}
		if !b.queued() {
			continue
		}
		m := b.filter.stream
		low := max(p.after, b.position(d.cursor))
		if m.slots.count == 0 || m.last <= low {
			continue
		}
		h := head{sub: b, at: p.st.search(m, low)}
		if h.at < m.slots.count {
			h.seq = p.st.seqAt(m, h.at)
			p.heads = append(p.heads, h)
		}
	}
	var found bool
	if p.private, found = d.findPrivate(p.after); found {
		p.private++
	}
	if p.out2, found = d.findOut(p.after); found {
		p.out2++
	}
}

// lowest is the lowest sequence that is next in a list, 0 when all are at their ends.
func (p *puller) lowest() uint64 {
	d := p.s.d
	low := ^uint64(0)
	for i := range p.heads {
		low = min(low, p.heads[i].seq)
	}
	if p.private < len(d.private) {
		low = min(low, d.private[p.private].seq)
	}
	if p.out2 < len(d.out2) {
		low = min(low, d.out2[p.out2].seq)
	}
	if low == ^uint64(0) {
		return 0
	}
	return low
}

// take passes one sequence in all lists, and adds its message if it is to be delivered.
func (p *puller) take(seq uint64) {
	d := p.s.d
	var f pulled
	wanted := p.takeStreams(seq, &f)
	if p.private < len(d.private) && d.private[p.private].seq == seq {
		it := &d.private[p.private]
		p.private++
		p.message(&f, seq, it.slot)
		f.QoS, f.Retain, f.alone, wanted = it.qos, it.retain, true, true
		if it.subID != 0 {
			f.SubIDs = []uint32{it.subID}
		}
	}
	if p.out2 < len(d.out2) && d.out2[p.out2].seq == seq {
		it := &d.out2[p.out2]
		p.out2++
		f = pulled{}
		p.message(&f, seq, it.slot)
		f.QoS, f.Retain, f.Marked, f.Received = 2, it.retain, true, it.received
		f.SubIDs, f.alone = slices.Clone(it.subIDs), it.alone
		p.found = append(p.found, f)
		return
	}
	if !wanted || p.st.slab.at(f.slot).expired(p.st.now) {
		return
	}
	if _, done := slices.BinarySearch(d.done, seq); !done {
		p.found = append(p.found, f)
	}
}

// takeStreams passes a sequence in the streams; it tells whether a subscription wants it.
func (p *puller) takeStreams(seq uint64, f *pulled) (wanted bool) {
	for i := 0; i < len(p.heads); i++ {
		h := &p.heads[i]
		if h.seq != seq {
			continue
		}
		m := h.sub.filter.stream
		slot := m.slots.at(h.at)
		p.message(f, seq, slot)
		msg := p.st.slab.at(slot)
		if sp := h.sub.spanOf(seq); sp != nil && !(sp.opts.noLocal() && f.own) {
			wanted = true
			f.QoS = max(f.QoS, min(msg.qos(), sp.opts.qos()))
			f.Retain = f.Retain || f.published && sp.opts.rap()
			if sp.id != 0 {
				f.SubIDs = append(f.SubIDs, sp.id)
			}
		}
		h.at++
		if h.at == m.slots.count {
			p.heads = slices.Delete(p.heads, i, i+1)
			i--
			continue
		}
		h.seq = p.st.seqAt(m, h.at)
	}
	return wanted
}

// message fills in what a stored message says of itself.
func (p *puller) message(f *pulled, seq uint64, slot uint32) {
	msg := p.st.slab.at(slot)
	f.Seq, f.place, f.Deadline = seq, p.st.placeOf(slot), msg.deadline
	f.published, f.own = msg.is(slotRetain), msg.publisher != 0 && msg.publisher == p.s.serial
}
