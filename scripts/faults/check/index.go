package check

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"quorate/protocol/topic"
)

// never is the end of an operation that may still take effect after the run.
const never = time.Duration(math.MaxInt64)

// operation is an Invoke joined with its end.
type operation struct {
	Event               // the Invoke
	end   time.Duration // never, if it did not end OK or Fail
	phase Phase         // OK, Fail or Unknown
	done  Event         // the end, if there is one

	// Of a PUBLISH:
	order    int           // its place among all of its publisher
	attempts int           // how often it was written
	sends    []Event       // the Invoke and every resend
	lastSend time.Duration // the last time it was written
}

// connection is a Network Connection: a CONNECT and what ended it.
type connection struct {
	*operation
	closed       time.Duration // when the client saw it gone or dropped it; never, if it lives
	dropped      bool          // the client dropped it without DISCONNECT
	disconnected bool          // the client wrote DISCONNECT
	disconnect   byte          // with this Reason
	next         time.Duration // when the client's next CONNECT was sent; never, if there is none
}

// subscription is a SUBSCRIBE that was acknowledged, and how long it is known
// to be held.
type subscription struct {
	*operation
	persistent bool
	unsub      *operation    // the UNSUBSCRIBE that ended it, if any
	until      time.Duration // it is certainly held until here: nothing that may end it was begun
	gone       time.Duration // it is certainly not held after this: what ended it was acknowledged
}

// shared reports whether the subscription is one of a shared group.
func (s *subscription) shared() bool { return strings.HasPrefix(s.Topic, sharePrefix) }

// filter is the Topic Filter without the name of the shared group.
func (s *subscription) filter() string {
	if !s.shared() {
		return s.Topic
	}
	_, inner, _ := strings.Cut(s.Topic[len(sharePrefix):], "/")
	return inner
}

const sharePrefix = "$share/"

// interval is a time in which a node had a fault.
type interval struct {
	node, kind string
	from, to   time.Duration // to is never, if it did not end
}

// index is a history taken apart.
type index struct {
	end        time.Duration // of the last event
	publishes  []*operation
	byValue    map[string]*operation
	subs       []*subscription            // in the order they were sent
	subsOf     map[string][]*subscription // the same by Client Identifier
	reads      []*operation
	conns      map[uint64]*connection
	wills      map[string]*connection // by the will's payload
	connOrder  []*connection
	deliveries map[string][]Event // by Client Identifier
	faults     []interval
	digests    []Event
	drained    []Event
	problems   []string // events that do not fit: a bug of the harness

	matches map[[2]string]bool
}

// newIndex joins the events, which must be ordered by time.
func newIndex(events []Event) *index {
	x := &index{
		byValue:    map[string]*operation{},
		conns:      map[uint64]*connection{},
		wills:      map[string]*connection{},
		deliveries: map[string][]Event{},
		matches:    map[[2]string]bool{},
	}
	ops := map[uint64]*operation{}
	order := map[string]int{}
	for i := range events {
		e := &events[i]
		if e.At < x.end {
			x.bad(e, "goes back in time")
		}
		x.end = e.At
		switch e.Phase {
		case Invoke:
			x.invoke(ops, order, *e)
		case OK, Fail, Unknown:
			x.complete(ops, *e)
		default:
			x.note(ops, *e)
		}
	}
	x.boundSubscriptions()
	x.linkConnections()
	return x
}

// linkConnections sets next of every connection.
func (x *index) linkConnections() {
	next := map[string]time.Duration{}
	for _, c := range slices.Backward(x.connOrder) {
		if at, ok := next[c.Client]; ok {
			c.next = at
		}
		if c.maybeOwner() {
			next[c.Client] = c.At
		}
	}
}

func (x *index) bad(e *Event, why string) {
	if len(x.problems) < problemsMax {
		x.problems = append(x.problems, fmt.Sprintf("%s %s %d at %v %s", e.Op, e.Phase, e.ID, e.At, why))
	}
}

func (x *index) invoke(ops map[uint64]*operation, order map[string]int, e Event) {
	if ops[e.ID] != nil {
		x.bad(&e, "has the number of another operation")
		return
	}
	o := &operation{Event: e, end: never, phase: Unknown}
	ops[e.ID] = o
	switch e.Op {
	case Publish:
		if x.byValue[e.Value] != nil {
			x.bad(&e, "publishes a value that is not unique")
		}
		x.byValue[e.Value] = o
		o.order = order[e.Client]
		order[e.Client]++
		o.attempts, o.sends, o.lastSend = 1, []Event{e}, e.At
		x.publishes = append(x.publishes, o)
	case Connect:
		c := &connection{operation: o, closed: never, next: never}
		x.conns[e.Conn] = c
		if e.Value != "" {
			x.wills[e.Value] = c
		}
		x.connOrder = append(x.connOrder, c)
	case Subscribe:
		x.subs = append(x.subs, &subscription{operation: o, until: never, gone: never})
	case Unsubscribe:
		x.unsubscribe(o)
	case Read:
		x.reads = append(x.reads, o)
	default:
		x.bad(&e, "is not an operation")
	}
}

// unsubscribe ends the client's latest subscription to the filter.
func (x *index) unsubscribe(o *operation) {
	for _, s := range slices.Backward(x.subs) {
		if s.Client == o.Client && s.Topic == o.Topic && s.unsub == nil {
			s.unsub = o
			return
		}
	}
}

func (x *index) complete(ops map[uint64]*operation, e Event) {
	o := ops[e.ID]
	if o == nil || o.done.Phase != "" {
		x.bad(&e, "ends no operation that is open")
		return
	}
	o.phase, o.done = e.Phase, e
	if e.Phase != Unknown {
		o.end = e.At
	}
}

func (x *index) note(ops map[uint64]*operation, e Event) {
	switch e.Op {
	case Resend:
		if o := ops[e.ID]; o != nil {
			o.attempts++
			o.sends = append(o.sends, e)
			o.lastSend = e.At
		}
	case Deliver:
		x.deliveries[e.Client] = append(x.deliveries[e.Client], e)
	case Disconnect, Drop, Closed:
		x.ended(e)
	case Fault:
		x.fault(e)
	case Digest:
		x.digests = append(x.digests, e)
	case Drained:
		x.drained = append(x.drained, e)
	default:
		x.bad(&e, "is not a note")
	}
}

func (x *index) ended(e Event) {
	c := x.conns[e.Conn]
	if c == nil {
		x.bad(&e, "ends no connection that is known")
		return
	}
	switch e.Op {
	case Disconnect:
		c.disconnected, c.disconnect = true, e.Reason
	case Drop:
		c.dropped = true
	}
	c.closed = min(c.closed, e.At)
}

// The faults a history may name, and what ends them.
const (
	FaultCrash    = "crash"     // the node is not running
	FaultUp       = "up"        // it runs again
	FaultNoQuorum = "no quorum" // the node reaches no majority
	FaultQuorum   = "quorum"    // it does again
	FaultSlow     = "slow"      // any other fault of the node
	FaultHealed   = "healed"    // its end
)

var faultEnds = map[string]string{FaultUp: FaultCrash, FaultQuorum: FaultNoQuorum, FaultHealed: FaultSlow}

func (x *index) fault(e Event) {
	begun, isEnd := faultEnds[e.Value]
	if !isEnd {
		x.faults = append(x.faults, interval{node: e.Node, kind: e.Value, from: e.At, to: never})
		return
	}
	for i := range x.faults {
		f := &x.faults[i]
		if f.node == e.Node && f.kind == begun && f.to == never {
			f.to = e.At
		}
	}
}

// boundSubscriptions sets how long each subscription is certainly held, and
// after when it certainly is not.
func (x *index) boundSubscriptions() {
	starts := map[string][]*connection{} // by client, in order
	for _, c := range x.connOrder {
		starts[c.Client] = append(starts[c.Client], c)
	}
	x.subsOf = map[string][]*subscription{}
	for _, s := range x.subs {
		x.subsOf[s.Client] = append(x.subsOf[s.Client], s)
		c := x.conns[s.Conn]
		if c == nil {
			x.bad(&s.Event, "is sent on no connection that is known")
			continue
		}
		s.persistent = c.Keep
		if s.unsub != nil {
			s.until, s.gone = s.unsub.At, s.unsub.end
		}
		if !s.persistent {
			s.until = min(s.until, c.closed)
		}
		for _, later := range starts[s.Client] {
			if later.At <= c.At || later.Keep && !later.Clean {
				continue
			}
			s.until = min(s.until, later.At)
			if later.phase == OK && later.Clean {
				s.gone = min(s.gone, later.end)
			}
		}
	}
}

// held reports whether s was acknowledged, and held from then until the end
// of the run.
func (s *subscription) held() bool { return s.phase == OK && s.until == never }

// match is topic.Match with a memory.
func (x *index) match(filter, name string) bool {
	key := [2]string{filter, name}
	m, ok := x.matches[key]
	if !ok {
		m = topic.Match(filter, name)
		x.matches[key] = m
	}
	return m
}

// faulty reports whether node had a fault of the kind ("" for any) in [from, to].
func (x *index) faulty(node, kind string, from, to time.Duration) bool {
	return slices.ContainsFunc(x.faults, func(f interval) bool {
		return f.node == node && (kind == "" || f.kind == kind) && f.from <= to && from <= f.to
	})
}
