package fsm

const (
	chunkSlots = 1024
	noSlot     = ^uint32(0)
	// bodyBytesMax is what the size field of a slot can hold; Maximum Packet Size is far below.
	bodyBytesMax = 1<<24 - 1
)

// Flags of a slot. The low two bits are the QoS.
const (
	slotQoS    = 0x03
	slotRetain = 0x04 // published with RETAIN
	slotDead   = 0x08 // expired: streams skip it
	slotGone   = 0x10 // its body has been freed
	slotLong   = 0x20 // its body is kept among the retained ones
	slotWaits  = 0x40 // a will or a delayed message: not published yet, deadline holds its expiry interval plus one
	slotListed = 0x80 // in an expiry list
)

// slot is a stored message. It has no pointers, so that the garbage collector does not look at a million of them.
//
// Invariant: refs is the number of holders: streams, group backlogs, private and out2 entries, a retained entry, a
// delayed entry, a will. A slot with refs 0 is free and all zero.
type slot struct {
	seq       uint64
	body      BodyRef
	deadline  uint64
	publisher uint64
	// size is the length of the body in the low 24 bits and the flags above them.
	size       uint32
	refs       uint32
	next, prev uint32 // neighbours in the expiry list
}

func (s *slot) bytes() uint64         { return uint64(s.size & bodyBytesMax) }
func (s *slot) flags() byte           { return byte(s.size >> 24) }
func (s *slot) is(f byte) bool        { return s.flags()&f != 0 }
func (s *slot) set(f byte)            { s.size |= uint32(f) << 24 }
func (s *slot) clear(f byte)          { s.size &^= uint32(f) << 24 }
func (s *slot) qos() byte             { return s.flags() & slotQoS }
func (s *slot) expired(n uint64) bool { return s.is(slotDead) || s.deadline != 0 && s.deadline <= n }

// chunk is the unit in which slots are allocated and captured for a snapshot.
//
// The slots are an allocation of their own: 48 KiB is a whole number of the allocator's pages, with the rest it would
// be rounded up to 56 (8 bytes a message).
type chunk struct {
	slots *[chunkSlots]slot
	gen   uint32
	used  uint32
}

// slab holds the stored messages.
type slab struct {
	chunks []*chunk
	index  indexSet
	// used slots, and the bytes of the bodies not freed.
	used  int
	bytes uint64
}

// at is the slot of index i, which must be in use.
func (b *slab) at(i uint32) *slot { return &b.chunks[i/chunkSlots].slots[i%chunkSlots] }

// place makes sure that the chunk of index i exists and returns it.
func (b *slab) place(i uint32, gen uint32) *chunk {
	n := int(i / chunkSlots)
	for n >= len(b.chunks) {
		b.chunks = append(b.chunks, nil)
	}
	if b.chunks[n] == nil {
		b.chunks[n] = &chunk{slots: new([chunkSlots]slot), gen: gen}
	}
	return b.chunks[n]
}

// storeMessage puts a message in a slot of its own, without holders yet.
func (st *state) storeMessage(m *publication, waits bool) uint32 {
	i := st.slab.index.take()
	c := st.slab.place(i, st.gen)
	st.touchChunk(i / chunkSlots)
	c.used++
	long := waits || m.retain && len(m.payload) > 0
	c.slots[i%chunkSlots] = slot{
		seq: m.seq, body: st.bodies.Put(m.body, long), deadline: m.deadline, publisher: m.publisher,
		size: uint32(len(m.body)) | uint32(m.qos&slotQoS)<<24, next: noSlot, prev: noSlot,
	}
	s := &c.slots[i%chunkSlots]
	if m.retain {
		s.set(slotRetain)
	}
	if long {
		s.set(slotLong)
	}
	if waits {
		s.set(slotWaits)
	}
	st.slab.used++
	st.slab.bytes += uint64(len(m.body))
	st.effect(effectStore, uint64(i), s.seq)
	st.effect(effectStore, s.deadline^uint64(s.size)<<32, hashBytes(m.body))
	if !waits && s.deadline != 0 {
		st.expiry.add(&st.slab, i)
	}
	return i
}

// hold adds a holder to slot i.
func (st *state) hold(i uint32) { st.slab.at(i).refs++ }

// release takes a holder from slot i, and frees it with the last one.
func (st *state) release(i uint32) {
	s := st.slab.at(i)
	if s.refs == 0 {
		panic("fsm: release of a message that nobody holds")
	}
	if s.refs > 1 {
		s.refs--
		return
	}
	st.touchChunk(i / chunkSlots) // before the slot looks free
	s.refs = 0
	st.freeSlot(i)
}

func (st *state) freeSlot(i uint32) {
	n := i / chunkSlots
	c := st.slab.chunks[n]
	s := &c.slots[i%chunkSlots]
	st.effect(effectFree, uint64(i), s.seq)
	st.freeBody(s)
	if s.is(slotListed) {
		st.expiry.remove(&st.slab, i)
	}
	*s = slot{}
	st.slab.index.free(i)
	st.slab.used--
	c.used--
	if c.used == 0 {
		st.slab.chunks[n] = nil
	}
}

func (st *state) freeBody(s *slot) {
	if s.is(slotGone) {
		return
	}
	s.set(slotGone)
	st.slab.bytes -= s.bytes()
	st.bodies.Free(s.body)
}

// expireSlot takes the body of a message whose time has come. Its slot stays as a mark in the streams that hold it,
// until they are trimmed. A message that a session has marked for sending keeps its body [MQTT-4.3.3-7].
func (st *state) expireSlot(i uint32) {
	st.touchChunk(i / chunkSlots)
	s := st.slab.at(i)
	st.effect(effectExpire, uint64(i), s.seq)
	s.set(slotDead)
	st.expired++
	if st.marked[i] == 0 {
		st.freeBody(s)
	}
}

// mark and unmark count the sessions that hold slot i for sending.
func (st *state) mark(i uint32) { st.marked[i]++ }

func (st *state) unmark(i uint32) {
	st.marked[i]--
	if st.marked[i] > 0 {
		return
	}
	delete(st.marked, i)
	s := st.slab.at(i)
	if s.is(slotDead) && !s.is(slotGone) {
		st.touchChunk(i / chunkSlots)
		st.freeBody(s)
	}
}

// room tells whether a body of that many bytes may be stored besides what is.
func (st *state) room(bodyBytes int) bool {
	return bodyBytes <= bodyBytesMax && st.slab.bytes+uint64(bodyBytes) <= st.limits.MaxStoredBytes &&
		uint64(st.slab.used) < st.limits.MaxStoredMessages
}
