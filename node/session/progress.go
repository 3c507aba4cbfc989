package session

import "quorate/fsm/mutant"

// Progress is what the log is told about a Session: acknowledgements, packed.
type Progress struct {
	Cursor   uint64   // everything at or below is finished, or held by a send mark
	Done     []uint64 // finished ones beyond the cursor, and every finished QoS 2 message
	Received []uint64 // QoS 2 messages whose PUBREC came
}

type finished struct {
	seq    uint64
	marked bool
}

// report is the part of an Outbound that gathers Progress.
type report struct {
	done     []finished // finished since the last Progress
	received []uint64   // PUBREC since the last Progress
	endedIDs []uint16   // identifiers that are free once the next Progress is committed
	ended    int        // finished exchanges since the last Progress

	collision bool // a message waits for an identifier whose end is not committed

	inReport    bool // a Progress is on its way
	reporting   []uint16
	reportedRec []uint64
	reported    uint64 // cursor of the newest Progress
}

// Due returns whether anything is to be reported, and whether it is urgent: a PUBREC came, an identifier is waited for,
// or LazyAcks exchanges have ended.
func (o *Outbound[M]) Due() (due, urgent bool) {
	urgent = len(o.received) > 0 || o.collision || o.ended >= LazyAcks
	due = urgent || o.ended > 0
	return due, urgent && !o.inReport
}

// Cursor returns the sequence up to which everything is finished or held by a send mark.
func (o *Outbound[M]) Cursor() uint64 {
	if p, ok := o.order.front(); ok && !mutant.CursorBeforeAck {
		return p.seq - 1
	}
	return o.scanned
}

// Progress takes what is to be reported; ok is false when nothing is, or while an earlier one is not committed.
// The caller proposes it and then calls Committed. The slices are the caller's.
func (o *Outbound[M]) Progress() (p Progress, ok bool) {
	if o.inReport {
		return p, false
	}
	return o.take()
}

// Final is Progress for a connection that has ended: it does not wait for an earlier one, and no Committed follows.
func (o *Outbound[M]) Final() (p Progress, ok bool) { return o.take() }

func (o *Outbound[M]) take() (p Progress, ok bool) {
	cursor := o.Cursor()
	if len(o.done) == 0 && len(o.received) == 0 && cursor <= o.reported {
		o.ended, o.collision = 0, false
		return p, false
	}
	p.Cursor = max(cursor, o.reported)
	for _, f := range o.done {
		// An unmarked message at or below the cursor is covered by it; a marked one never is.
		if f.marked || f.seq > p.Cursor {
			p.Done = append(p.Done, f.seq)
		}
	}
	p.Received = o.received
	o.reporting = append(o.reporting[:0], o.endedIDs...)
	o.reportedRec = p.Received
	o.done, o.received, o.endedIDs = o.done[:0], nil, o.endedIDs[:0]
	o.ended, o.collision = 0, false
	o.reported = p.Cursor
	o.inReport = true
	return p, true
}

// Committed notes that the last Progress is committed: identifiers are free, and PUBREL may follow.
func (o *Outbound[M]) Committed() {
	if !o.inReport {
		panic("session: commit of a progress that was not taken")
	}
	o.inReport = false
	for _, id := range o.reporting {
		delete(o.inflight, id)
	}
	o.reporting = o.reporting[:0]
	for _, seq := range o.reportedRec {
		id := PacketID(seq)
		if e, ok := o.inflight[id]; ok && e.seq == seq && e.phase == phaseReceived {
			e.phase = phaseReleasing
			o.inflight[id] = e
			o.rels.push(id) // in the order of the PUBRECs [MQTT-4.6.0-4]
		}
	}
	o.reportedRec = nil
	if len(o.inflight) == 0 && o.unfinished == 0 {
		o.inflight = nil
	}
}
