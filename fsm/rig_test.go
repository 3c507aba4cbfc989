package fsm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"

	"quorate/fsm/command"
	"quorate/protocol/packet"
)

const (
	nodeA command.NodeID = "00000000000000aa"
	nodeB command.NodeID = "00000000000000bb"
	nodeC command.NodeID = "00000000000000cc"
)

// memory is a Bodies that catches misuse: a body freed twice, or read after it was freed.
type memory struct {
	mu     sync.Mutex
	bodies map[BodyRef][]byte
	freed  map[BodyRef][]byte // kept by pins
	free   []BodyRef
	next   BodyRef
	pins   int
	resets int
	bytes  int
}

func newMemory() *memory {
	return &memory{bodies: map[BodyRef][]byte{}, freed: map[BodyRef][]byte{}}
}

func (m *memory) Put(body []byte, _ bool) BodyRef {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ref BodyRef
	if n := len(m.free); n > 0 {
		ref, m.free = m.free[n-1], m.free[:n-1]
	} else {
		ref = m.next
		m.next++
	}
	m.bodies[ref] = bytes.Clone(body)
	m.bytes += len(body)
	return ref
}

func (m *memory) Get(ref BodyRef, dst []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, ok := m.bodies[ref]; ok {
		return append(dst, b...), nil
	}
	if b, ok := m.freed[ref]; ok {
		return append(dst, b...), nil
	}
	return dst, ErrFreed
}

func (m *memory) Free(ref BodyRef) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.bodies[ref]
	if !ok {
		panic("body freed twice")
	}
	delete(m.bodies, ref)
	m.bytes -= len(b)
	if m.pins > 0 {
		m.freed[ref] = b
	} else {
		m.free = append(m.free, ref)
	}
}

func (m *memory) Pin() func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pins++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.pins--
		if m.pins == 0 {
			for ref := range m.freed {
				m.free = append(m.free, ref)
			}
			clear(m.freed)
		}
	}
}

func (m *memory) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.bodies)
	m.resets++
	m.bytes = 0
}

func (m *memory) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.bodies)
}

// rig drives a machine of nodeA and records what it says.
type rig struct {
	t      tester
	m      *Machine
	bodies *memory
	index  uint64
	stamp  uint64
	inc    map[command.NodeID]uint64
	number map[command.NodeID]uint64
	// results of the last batch of nodeA; calls are the other observer calls since the last reset.
	results []Result
	calls   []string
	// unchecked leaves out the invariants after each step.
	unchecked bool
}

func newRig(t tester) *rig {
	r := &rig{t: t, bodies: newMemory(), stamp: 1000, inc: map[command.NodeID]uint64{}, number: map[command.NodeID]uint64{}}
	r.m = New(nodeA, r.bodies, r)
	return r
}

// up starts a rig with nodes that are up.
func up(t tester, nodes ...command.NodeID) *rig {
	r := newRig(t)
	for _, n := range append([]command.NodeID{nodeA}, nodes...) {
		r.start(n)
	}
	return r
}

// start opens a new incarnation of a node.
func (r *rig) start(n command.NodeID) {
	r.t.Helper()
	r.inc[n]++
	r.number[n] = 0
	r.do(n, &command.NodeUp{ID: n, Name: "n" + string(n[15:]), ClientAddr: string(n) + ":1883", Format: 1})
}

func encode(cmds ...command.Command) []byte {
	var b []byte
	for _, c := range cmds {
		b = c.Append(b)
	}
	return b
}

func (r *rig) batch(n command.NodeID, cmds ...command.Command) *command.Batch {
	r.number[n]++
	return &command.Batch{Node: n, Incarnation: r.inc[n], Number: r.number[n], Count: len(cmds), Commands: encode(cmds...)}
}

func (r *rig) apply(batches ...*command.Batch) {
	r.t.Helper()
	b := command.AppendEntryHeader(nil, r.stamp)
	for _, x := range batches {
		b = command.AppendBatch(b, x)
	}
	r.index++
	if err := r.m.Apply(r.index, b); err != nil {
		r.t.Fatal(err)
	}
	clear(b) // the machine keeps nothing of an entry
	if !r.unchecked {
		r.check()
	}
}

// do applies commands of a node in one entry.
func (r *rig) do(n command.NodeID, cmds ...command.Command) []Result {
	r.t.Helper()
	r.results = nil
	r.apply(r.batch(n, cmds...))
	return r.results
}

// one applies one command of nodeA and gives its result.
func (r *rig) one(c command.Command) Result {
	r.t.Helper()
	return r.do(nodeA, c)[0]
}

// tick lets time pass and does what is due.
func (r *rig) tick(seconds uint64) {
	r.t.Helper()
	r.stamp += seconds * 1000
	for range 1000 {
		r.do(nodeA, &command.Tick{})
		if at, ok := r.m.NextDeadline(); !ok || at > r.m.Now() {
			return
		}
	}
	r.t.Fatal("ticks do not come to an end")
}

// connect connects a client with a session that never expires.
func (r *rig) connect(n command.NodeID, id string, change ...func(*command.Connect)) command.Ref {
	r.t.Helper()
	c := &command.Connect{ClientID: id, Identity: "u", Version: 5, ExpirySeconds: command.ExpiryNever}
	for _, f := range change {
		f(c)
	}
	r.do(n, c)
	ref, _, connected := r.m.Owner(id)
	if !connected {
		r.t.Fatalf("%s is not connected", id)
	}
	return ref
}

func transient(c *command.Connect) { c.ExpirySeconds = 0 }

func window(n uint16) func(*command.Connect) {
	return func(c *command.Connect) { c.ReceiveMaximum = n }
}

func (r *rig) node(ref command.Ref) command.NodeID {
	s := r.m.st.sessions.at(ref.Slot)
	return r.m.st.nodeOf(s)
}

// subscribe subscribes with "filter:qos" items.
func (r *rig) subscribe(ref command.Ref, filters ...string) {
	r.t.Helper()
	c := &command.Subscribe{Ref: ref}
	for _, f := range filters {
		i := strings.LastIndexByte(f, ':')
		c.Subscriptions = append(c.Subscriptions, command.Subscription{Filter: f[:i], QoS: f[i+1] - '0'})
	}
	r.do(r.node(ref), c)
}

func msg(topic string, qos byte, payload string) command.Message {
	return command.Message{Topic: topic, QoS: qos, Payload: []byte(payload)}
}

// publish publishes from nobody and gives the sequence.
func (r *rig) publish(topic string, qos byte, payload string) uint64 {
	r.t.Helper()
	return r.one(&command.Publish{Message: msg(topic, qos, payload)}).Seq
}

func (r *rig) retain(topic string, qos byte, payload string) uint64 {
	r.t.Helper()
	m := msg(topic, qos, payload)
	m.Retain = true
	return r.one(&command.Publish{Message: m}).Seq
}

// pull gives all a session has, as "payload:qos" with its flags.
func (r *rig) pull(ref command.Ref) []string {
	r.t.Helper()
	list, _, ok := r.m.Pull(ref, 0, 1<<20, nil)
	if !ok {
		return []string{"stale"}
	}
	var out []string
	for i := range list {
		out = append(out, show(&list[i]))
	}
	return out
}

func show(d *Delivery) string {
	s := fmt.Sprintf("%s:%d", d.Payload, d.QoS)
	if d.Retain {
		s += " retain"
	}
	if d.Marked {
		s += " marked"
	}
	if d.Received {
		s += " received"
	}
	for _, id := range d.SubIDs {
		s += fmt.Sprintf(" #%d", id)
	}
	return s
}

// finish reports everything pulled so far as done.
func (r *rig) finish(ref command.Ref) {
	r.t.Helper()
	list, scanned, _ := r.m.Pull(ref, 0, 1<<20, nil)
	it := command.ProgressItem{Ref: ref, Cursor: scanned}
	for i := range list {
		it.Done = append(it.Done, list[i].Seq)
	}
	r.do(r.node(ref), &command.Progress{Items: []command.ProgressItem{it}})
}

func (r *rig) seqs(ref command.Ref) []uint64 {
	list, _, _ := r.m.Pull(ref, 0, 1<<20, nil)
	var out []uint64
	for i := range list {
		out = append(out, list[i].Seq)
	}
	return out
}

func (r *rig) said(call string, args ...any) { r.calls = append(r.calls, fmt.Sprintf(call, args...)) }

// heard gives the calls since the last time, of those that begin with prefix.
func (r *rig) heard(prefix string) []string {
	var out []string
	for _, c := range r.calls {
		if strings.HasPrefix(c, prefix) {
			out = append(out, c)
		}
	}
	r.calls = nil
	return out
}

func (r *rig) BatchApplied(inc, number uint64, results []Result) {
	r.results = nil
	for _, x := range results {
		x.Codes, x.Existed = slices.Clone(x.Codes), slices.Clone(x.Existed)
		r.results = append(r.results, x)
	}
	r.said("applied %d/%d %d", inc, number, len(results))
}

func (r *rig) BatchGap(inc, expected, got uint64) { r.said("gap %d: %d got %d", inc, expected, got) }

func (r *rig) ConnectionEnded(ref command.Ref, node command.NodeID, reason packet.ReasonCode) {
	r.said("ended %d/%d %#x", ref.Slot, ref.Epoch, byte(reason))
}

func (r *rig) Published(m *Message) { r.said("published %s=%s", m.Topic, m.Payload) }

func (r *rig) Wake(ref command.Ref) { r.said("wake %d/%d", ref.Slot, ref.Epoch) }

func (r *rig) Restored() { r.said("restored") }

// snapshot writes a snapshot of the machine.
func (r *rig) snapshot() []byte {
	r.t.Helper()
	return snapshotOf(r.t, r.m)
}

func snapshotOf(t tester, m *Machine) []byte {
	t.Helper()
	s, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// check compares the state with what a restore derives from its snapshot: every count, holder, position and heap must
// follow from the objects.
func (r *rig) check() {
	r.t.Helper()
	other := New(nodeA, newMemory(), nil)
	if err := other.Restore(bytes.NewReader(r.snapshot())); err != nil {
		r.t.Fatal(err)
	}
	if got, want := dump(r.m.st, true), dump(other.st, true); got != want {
		r.t.Fatalf("the state does not follow from its objects:\n%s", difference(got, want))
	}
	live := 0
	for i := range r.m.st.slab.index.all() {
		if !r.m.st.slab.at(i).is(slotGone) {
			live++
		}
	}
	if live != r.bodies.len() {
		r.t.Fatalf("%d messages with a body, %d bodies", live, r.bodies.len())
	}
}

func difference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	var out []string
	for i := range max(len(x), len(y)) {
		l, r := "", ""
		if i < len(x) {
			l = x[i]
		}
		if i < len(y) {
			r = y[i]
		}
		if l != r {
			out = append(out, "- "+l, "+ "+r)
		}
	}
	return strings.Join(out, "\n")
}

func equal[T comparable](t tester, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// tester is what the helpers need of a test; *rapid.T has it too.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}
