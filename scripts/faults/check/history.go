// Package check decides whether what clients saw of a cluster keeps the
// promises P1 to P9. It is not a test client and starts nothing: it reads a
// History, the list of everything clients did and got, and returns a Report.
//
// A history is written as JSON lines, one Event a line, in the order of time
// on one monotonic base. Saved histories can be checked again with
// scripts/faults/recheck.
//
// Every checker has three verdicts. Valid means that the promise was put to
// the test and held. Invalid means that a schedule was found that breaks it.
// Unknown means that the run proves nothing, for example because nobody
// published: a vacuous run is never a pass.
package check

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// Phase says which end of an operation an Event is.
type Phase string

// An operation starts with Invoke and ends with at most one of OK, Fail and
// Unknown. One without an end counts as Unknown. Note events stand alone.
const (
	Invoke  Phase = "invoke"  // the first byte was handed to the connection
	OK      Phase = "ok"      // the broker acknowledged it
	Fail    Phase = "fail"    // provably not done
	Unknown Phase = "unknown" // sent, and it may or may not have been done
	Note    Phase = "note"    // not an operation: something was seen
)

// Op says what an Event is about.
type Op string

// The operations (with Invoke and an end) and the notes.
const (
	Connect     Op = "connect"     // CONNECT to CONNACK
	Publish     Op = "publish"     // PUBLISH to PUBACK or PUBREC; QoS 0 has no end
	Subscribe   Op = "subscribe"   // SUBSCRIBE of one filter to SUBACK
	Unsubscribe Op = "unsubscribe" // UNSUBSCRIBE of one filter to UNSUBACK
	Read        Op = "read"        // SUBSCRIBE to the retained PUBLISH it brings; Value "" is no retained message

	Resend     Op = "resend"     // note: the PUBLISH of operation ID was written again
	Deliver    Op = "deliver"    // note: a PUBLISH arrived that is a new delivery for its receiver
	Disconnect Op = "disconnect" // note: the client wrote DISCONNECT with Reason
	Drop       Op = "drop"       // note: the client closes the connection without DISCONNECT
	Closed     Op = "closed"     // note: the connection is gone; Reason if the broker said one
	Fault      Op = "fault"      // note: Value names a fault of Node that begins ("crash", "no quorum") or ends ("up", "quorum")
	Digest     Op = "digest"     // note: the state of Node after log index Seq has the digest Value
	Drained    Op = "drained"    // note: the run ended with nothing left to wait for; Value is what is missing otherwise
)

// Event is one line of a history. Fields that an Op does not use are zero.
type Event struct {
	At    time.Duration `json:"at"` // since the start of the run, monotonic, in nanoseconds
	Phase Phase         `json:"ph"`
	Op    Op            `json:"op"`
	ID    uint64        `json:"id,omitempty"` // joins the end of an operation, and its resends, with its Invoke

	Client string `json:"client,omitempty"` // Client Identifier
	Node   string `json:"node,omitempty"`
	Conn   uint64 `json:"conn,omitempty"` // Network Connection, unique in the history

	Topic    string `json:"topic,omitempty"` // Topic Name, or Topic Filter of a subscription
	Value    string `json:"value,omitempty"` // payload; unique in the history for every PUBLISH and every Will
	Seq      uint64 `json:"seq,omitempty"`
	QoS      byte   `json:"qos,omitempty"`
	Dup      bool   `json:"dup,omitempty"`
	Retain   bool   `json:"retain,omitempty"`
	PacketID uint16 `json:"pid,omitempty"`

	Clean   bool   `json:"clean,omitempty"`   // Connect: Clean Start
	Keep    bool   `json:"keep,omitempty"`    // Connect: the session outlives its connection (expiry "never")
	Present bool   `json:"present,omitempty"` // Connect, OK: session present
	Reason  byte   `json:"reason,omitempty"`
	Delay   uint32 `json:"delay,omitempty"` // Connect with a Will (its payload in Value): Will Delay Interval in seconds
}

// History collects the events of one run. All methods may be called by
// several goroutines at once.
type History struct {
	base time.Time

	mu     sync.Mutex
	last   time.Duration
	events []Event
	nextID uint64
}

// NewHistory starts a history whose time begins now.
func NewHistory() *History { return &History{base: time.Now()} }

// Add appends e with the present time, made larger than that of the event
// before: in a bubble of virtual time much happens in one instant, and the
// order of the calls is as good an order of time as any. Call it before the
// first byte of an Invoke is written, and after the last byte of an end was
// read. A nil History takes nothing.
func (h *History) Add(e Event) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	e.At = max(time.Since(h.base), h.last+1)
	h.last = e.At
	h.events = append(h.events, e)
}

// NextID returns a number that no other operation or connection of this
// history has. It is 0 for a nil History.
func (h *History) NextID() uint64 {
	if h == nil {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nextID++
	return h.nextID
}

// Events returns a copy of what was collected so far, ordered by time.
func (h *History) Events() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

// Write writes events as JSON lines.
func Write(w io.Writer, events []Event) error {
	buf := bufio.NewWriter(w)
	enc := json.NewEncoder(buf)
	for i := range events {
		if err := enc.Encode(&events[i]); err != nil {
			return fmt.Errorf("write event %d: %w", i, err)
		}
	}
	return buf.Flush()
}

// Parse reads events written by Write. A line that is not an event is an
// error that names the line.
func Parse(r io.Reader) ([]Event, error) {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	var events []Event
	for {
		var e Event
		err := dec.Decode(&e)
		if err == io.EOF {
			return events, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read event %d: %w", len(events)+1, err)
		}
		events = append(events, e)
	}
}
