package fsm

import (
	"quorate/fsm/command"
	"quorate/protocol/packet"
)

type eventKind uint8

const (
	eventPublished eventKind = iota
	eventBatch
	eventGap
	eventEnded
	eventWake
)

// event is one call of the observer, in the order of the log; at is the index of its data.
type event struct {
	kind eventKind
	at   int
}

// events are the observer calls of one entry, collected while it is applied and made after it. Its slices are used
// again for the next entry.
type events struct {
	order    []event
	messages []Message
	batches  []batchEvent
	ends     []endEvent
	wakes    []command.Ref
	results  []Result
	// first is the index in results where the batch being applied begins.
	first int
}

type batchEvent struct {
	incarnation, number, expected uint64
	first, end                    int
}

type endEvent struct {
	ref    command.Ref
	node   command.NodeID
	reason packet.ReasonCode
}

func (e *events) reset() {
	clear(e.messages) // they alias the entry before
	clear(e.results)
	e.order, e.messages, e.batches = e.order[:0], e.messages[:0], e.batches[:0]
	e.ends, e.wakes, e.results = e.ends[:0], e.wakes[:0], e.results[:0]
}

func (e *events) published(p *publication) {
	e.order = append(e.order, event{eventPublished, len(e.messages)})
	e.messages = append(e.messages, Message{
		Seq: p.seq, Body: p.body, Topic: p.topic, Forwarded: p.forwarded, Payload: p.payload, QoS: p.qos, Retain: p.retain,
		Publisher: p.publisher, Deadline: p.deadline, Origin: p.origin, Local: p.local,
	})
}

func (e *events) beginBatch() { e.first = len(e.results) }

// result makes the result of the next command. The pointer holds until the next call.
func (e *events) result() *Result {
	e.results = append(e.results, Result{})
	return &e.results[len(e.results)-1]
}

func (e *events) endBatch(incarnation, number uint64) {
	e.order = append(e.order, event{eventBatch, len(e.batches)})
	e.batches = append(e.batches, batchEvent{incarnation: incarnation, number: number, first: e.first, end: len(e.results)})
}

func (e *events) gap(own bool, incarnation, expected, got uint64) {
	if !own {
		return
	}
	e.order = append(e.order, event{eventGap, len(e.batches)})
	e.batches = append(e.batches, batchEvent{incarnation: incarnation, number: got, expected: expected})
}

func (e *events) ended(ref command.Ref, node command.NodeID, reason packet.ReasonCode) {
	e.order = append(e.order, event{eventEnded, len(e.ends)})
	e.ends = append(e.ends, endEvent{ref: ref, node: node, reason: reason})
}

// wake tells the session's node that there is something in its private list, once an entry.
func (st *state) wake(s *session) {
	if s.woken == st.entries || !s.connected || s.life.node.id != st.self {
		return
	}
	s.woken = st.entries
	st.events.order = append(st.events.order, event{eventWake, len(st.events.wakes)})
	st.events.wakes = append(st.events.wakes, s.ref())
}

// tell makes the calls.
func (e *events) tell(obs Observer) {
	if obs == nil {
		return
	}
	for _, ev := range e.order {
		switch ev.kind {
		case eventPublished:
			obs.Published(&e.messages[ev.at])
		case eventBatch:
			b := &e.batches[ev.at]
			obs.BatchApplied(b.incarnation, b.number, e.results[b.first:b.end:b.end])
		case eventGap:
			b := &e.batches[ev.at]
			obs.BatchGap(b.incarnation, b.expected, b.number)
		case eventEnded:
			end := &e.ends[ev.at]
			obs.ConnectionEnded(end.ref, end.node, end.reason)
		case eventWake:
			obs.Wake(e.wakes[ev.at])
		}
	}
	if o, ok := obs.(EntryObserver); ok && len(e.order) > 0 {
		o.EntryApplied()
	}
}
