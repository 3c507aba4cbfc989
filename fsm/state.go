package fsm

import (
	"quorate/fsm/command"
	"quorate/protocol/topic"
)

// state is everything the machine has decided, and what is derived from it. Restore makes a new one.
type state struct {
	self   command.NodeID
	bodies Bodies
	// err stops the machine: the state can no longer follow the log.
	err error

	applied, now, digest uint64
	limits               Limits
	// The counters: none gives the same number twice. seq is the order of messages and private items.
	seq, serial, epoch, groupSerial, delayOrder, workOrder uint64

	nodes    table[node]
	nodeByID map[command.NodeID]uint32
	lives    table[life]

	sessions table[session]
	byClient map[string]uint32

	filters table[filter]
	tree    topic.Tree[*filter]

	groups table[group]
	// groupByID holds the groups that have members.
	groupByID map[uint64]*group

	retained      table[retained]
	retainedNames topic.Names[*retained]

	delayed table[delayed]

	slab   slab
	expiry expiryLists
	// marked counts, by slot, the sessions that hold a message for sending.
	marked map[uint32]uint32

	deadlines deadlines
	work      []workItem
	// workCount is the number of objects in the work queue.
	workCount int

	// Counters of what is there (derived) and of what was lost (part of the state).
	connected, persisted, routes, streams int
	dropped, expired, refused             uint64

	events events
	// entries counts the entries applied, for woken.
	entries uint64
	// matched and collect are the scratch of match; scratch that of batches of other nodes.
	matched    []*filter
	collect    func(*filter)
	scratch    Result
	publishing command.Publish

	// gen is the generation of the last snapshot begun; snap is the one being written, or nil.
	gen  uint32
	snap *Snapshot
}

func newState(self command.NodeID, bodies Bodies) *state {
	st := &state{
		self: self, bodies: bodies, limits: DefaultLimits(),
		nodeByID: map[command.NodeID]uint32{}, byClient: map[string]uint32{}, groupByID: map[uint64]*group{},
		marked: map[uint32]uint32{}, expiry: expiryLists{lists: map[uint64]expiryList{}},
	}
	st.collect = func(f *filter) { st.matched = append(st.matched, f) }
	return st
}

// fail stops the machine with the first error.
func (st *state) fail(err error) {
	if st.err == nil {
		st.err = err
	}
}
