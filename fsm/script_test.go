package fsm

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"quorate/fsm/command"
	"quorate/protocol/packet"
)

// step is a batch of a random script.
type step struct {
	stamp uint64
	node  command.NodeID
	// begins: the batch opens a new incarnation.
	begins bool
	cmds   []command.Command
}

// player applies a script to a machine, with borders of its own.
type player struct {
	t      tester
	m      *Machine
	bodies *memory
	index  uint64
	inc    map[command.NodeID]uint64
	number map[command.NodeID]uint64
	// published is every message, in order.
	published []string
}

func newPlayer(t tester) *player {
	p := &player{t: t, bodies: newMemory(), inc: map[command.NodeID]uint64{}, number: map[command.NodeID]uint64{}}
	p.m = New(nodeA, p.bodies, p)
	return p
}

func (p *player) batch(b []byte, s *step, cmds []command.Command) []byte {
	if s.begins && cmds[0].Kind() == command.KindNodeUp {
		p.inc[s.node]++
		p.number[s.node] = 0
	}
	p.number[s.node]++
	return command.AppendBatch(b, &command.Batch{
		Node: s.node, Incarnation: p.inc[s.node], Number: p.number[s.node], Count: len(cmds), Commands: encode(cmds...),
	})
}

func (p *player) apply(b []byte) {
	p.index++
	if err := p.m.Apply(p.index, b); err != nil {
		p.t.Fatal(err)
	}
}

// whole applies a step as one entry.
func (p *player) whole(s *step) {
	p.apply(p.batch(command.AppendEntryHeader(nil, s.stamp), s, s.cmds))
}

// split applies every command of a step as an entry of its own.
func (p *player) split(s *step) {
	for i := range s.cmds {
		p.apply(p.batch(command.AppendEntryHeader(nil, s.stamp), s, s.cmds[i:i+1]))
	}
}

// joined applies steps of one stamp as one entry of several batches.
func (p *player) joined(steps []step) {
	b := command.AppendEntryHeader(nil, steps[0].stamp)
	for i := range steps {
		b = p.batch(b, &steps[i], steps[i].cmds)
	}
	p.apply(b)
}

// restart puts the player on a new machine, restored from a snapshot of the old one.
func (p *player) restart() {
	b := snapshotOf(p.t, p.m)
	p.bodies = newMemory()
	p.m = New(nodeA, p.bodies, p)
	if err := p.m.Restore(bytes.NewReader(b)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *player) BatchApplied(uint64, uint64, []Result)                          {}
func (p *player) BatchGap(_, _, _ uint64)                                        {}
func (p *player) ConnectionEnded(command.Ref, command.NodeID, packet.ReasonCode) {}
func (p *player) Wake(command.Ref)                                               {}
func (p *player) Restored()                                                      {}
func (p *player) Published(m *Message) {
	p.published = append(p.published, fmt.Sprintf("%d %s %q %d %t %d %d", m.Seq, m.Topic, m.Payload, m.QoS, m.Retain, m.Publisher, m.Deadline))
}

// writer makes a random script, looking at the machine that it leads.
type writer struct {
	t     *rapid.T
	lead  *player
	stamp uint64
	refs  []command.Ref
}

var (
	someNodes   = []command.NodeID{nodeA, nodeB, nodeC}
	someTopics  = []string{"a", "a/b", "a/b/c", "b", "$s/x", ""}
	someFilters = []string{"a", "a/b", "#", "a/+", "+/b", "a/#", "$share/g/a", "$share/g/#", "$share/h/a/+", "b", "$s/#", "a/#/b"}
)

func pick[T any](t *rapid.T, what string, list []T) T { return rapid.SampledFrom(list).Draw(t, what) }

func (w *writer) chance(oneIn int) bool { return rapid.IntRange(0, oneIn-1).Draw(w.t, "chance") == 0 }
func (w *writer) upTo(n int) uint32     { return uint32(rapid.IntRange(0, n).Draw(w.t, "n")) }

// next makes a step and lets the lead apply it.
func (w *writer) next() step {
	if w.chance(4) {
		w.stamp += uint64(w.upTo(5)) * 700
	}
	s := step{stamp: w.stamp, node: pick(w.t, "node", someNodes)}
	if i, ok := w.lead.m.st.nodeByID[s.node]; !ok || w.lead.m.st.nodes.at(i).life == nil || w.chance(60) {
		s.begins = true
		s.cmds = []command.Command{&command.NodeUp{ID: s.node, Name: "n", Format: 1}}
	}
	w.refs = w.refs[:0]
	for _, x := range w.lead.m.st.sessions.cells {
		if x != nil && (x.connected || w.chance(10)) {
			w.refs = append(w.refs, x.ref())
		}
	}
	for range 1 + w.upTo(4) {
		s.cmds = append(s.cmds, w.command())
	}
	w.lead.whole(&s)
	return s
}

func (w *writer) ref() command.Ref {
	if len(w.refs) == 0 || w.chance(20) {
		return command.Ref{}
	}
	return pick(w.t, "ref", w.refs)
}

func (w *writer) message() command.Message {
	m := command.Message{
		Topic: pick(w.t, "topic", someTopics), QoS: byte(w.upTo(2)), Retain: w.chance(3), HasExpiry: w.chance(4),
		Payload: bytes.Repeat([]byte("x"), int(w.upTo(3))),
	}
	if m.HasExpiry {
		m.ExpirySeconds = w.upTo(4)
	}
	return m
}

func (w *writer) command() command.Command {
	switch rapid.IntRange(0, 21).Draw(w.t, "command") {
	case 0, 1, 2:
		return w.connect()
	case 3:
		return &command.Disconnect{Ref: w.ref(), SendWill: w.chance(2), HasExpiry: w.chance(4), ExpirySeconds: w.upTo(4), Sent: uint64(w.upTo(50)),
			Abandoned: w.chance(4)}
	case 4, 5, 6:
		return w.subscribe()
	case 7:
		return &command.Unsubscribe{Ref: w.ref(), Filters: []string{pick(w.t, "filter", someFilters)}, Routes: w.routes()}
	case 8:
		return &command.Routes{Add: w.routes(), Remove: w.routes()}
	case 9, 10, 11, 12, 13:
		return w.publish()
	case 14:
		return &command.Release{Ref: w.ref(), PacketID: uint16(w.upTo(3))}
	case 15, 16, 17:
		return w.progress()
	case 18:
		return &command.SendMark{Ref: w.ref(), Seqs: w.seqs()}
	case 19:
		return w.rare()
	default:
		return &command.Tick{}
	}
}

func (w *writer) connect() command.Command {
	c := &command.Connect{
		ClientID: "c" + itoa(int(w.upTo(5))), Identity: "u", Version: 5, CleanStart: w.chance(4), ExpirySeconds: w.upTo(5),
		ReceiveMaximum: uint16(w.upTo(4)),
	}
	if w.chance(4) {
		c.Before = uint64(w.upTo(60))
	}
	if w.chance(2) {
		c.ExpirySeconds = command.ExpiryNever
	}
	if w.chance(20) {
		c.Identity = "v"
	}
	if w.chance(2) {
		c.Will = &command.Will{Message: w.message(), DelaySeconds: w.upTo(4)}
	}
	return c
}

func (w *writer) routes() []string {
	if w.chance(2) {
		return nil
	}
	return []string{pick(w.t, "route", someFilters)}
}

func (w *writer) subscribe() command.Command {
	c := &command.Subscribe{Ref: w.ref(), ID: w.upTo(2), Routes: w.routes()}
	for range 1 + w.upTo(2) {
		c.Subscriptions = append(c.Subscriptions, command.Subscription{
			Filter: pick(w.t, "filter", someFilters), QoS: byte(w.upTo(2)), NoLocal: w.chance(4), RetainAsPublished: w.chance(2),
			RetainHandling: byte(w.upTo(2)),
		})
	}
	return c
}

func (w *writer) publish() command.Command {
	c := &command.Publish{Ref: w.ref(), Local: w.chance(2), Message: w.message()}
	if c.QoS == 2 {
		c.PacketID = uint16(w.upTo(3))
	}
	if w.chance(8) {
		c.DelaySeconds = w.upTo(3)
	}
	return c
}

// seqs are some of what a session may have been sent, and some that are nothing to it.
func (w *writer) seqs() []uint64 {
	var out []uint64
	for range w.upTo(4) {
		out = append(out, max(1, w.lead.m.st.seq)-min(uint64(w.upTo(12)), max(1, w.lead.m.st.seq)-1))
	}
	return out
}

func (w *writer) progress() command.Command {
	c := &command.Progress{}
	for range 1 + w.upTo(2) {
		it := command.ProgressItem{Ref: w.ref(), Done: w.seqs(), Received: w.seqs()}
		if list, scanned, ok := w.lead.m.Pull(it.Ref, 0, int(1+w.upTo(5)), nil); ok && w.chance(2) {
			it.Cursor = scanned
			for i := range list {
				it.Done = append(it.Done, list[i].Seq)
			}
		}
		c.Items = append(c.Items, it)
	}
	return c
}

func (w *writer) rare() command.Command {
	switch w.upTo(3) {
	case 0:
		n := pick(w.t, "node", someNodes)
		return &command.NodeDown{ID: n, Incarnation: w.lead.inc[n]}
	case 1:
		return &command.Kick{ClientID: "c" + itoa(int(w.upTo(5))), EndSession: w.chance(2), Reason: 0x98}
	case 2:
		l := DefaultLimits()
		l.MaxQueuedMessages, l.MaxQueuedBytes = uint64(1+w.upTo(9)), uint64(10+w.upTo(90))
		l.MaxStoredBytes, l.MaxStoredMessages = uint64(50+w.upTo(450)), uint64(5+w.upTo(40))
		l.MaxRetained, l.MaxDelayed, l.MaxSessions = uint64(w.upTo(4)), uint64(w.upTo(3)), uint64(1+w.upTo(5))
		l.MaxSubscriptionsPerSession, l.MaxSpans, l.MaxGroupMembers = 1+w.upTo(5), 1+w.upTo(3), 1+w.upTo(2)
		l.MaxReceiveWindow, l.ReassignOnDisconnect = uint16(1+w.upTo(4)), w.chance(2)
		l.MaxSessionExpirySeconds = w.upTo(20)
		return &command.Configure{Limits: l}
	default:
		return &command.Configure{Limits: DefaultLimits()}
	}
}

// TestTheSameLogGivesTheSameStateWhateverTheBorders plays one script with different borders of entries and batches, and
// with restarts from snapshots, and compares everything.
func TestTheSameLogGivesTheSameStateWhateverTheBorders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &writer{t: t, lead: newPlayer(t), stamp: 1000}
		split, joined, restarted := newPlayer(t), newPlayer(t), newPlayer(t)
		var steps []step
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			steps = append(steps, w.next())
			s := &steps[len(steps)-1]
			split.split(s)
			if w.chance(8) {
				restarted.restart()
			}
			restarted.whole(s)
			checkPlayer(t, w.lead)
		}
		for len(steps) > 0 {
			n := 1
			for n < len(steps) && steps[n].stamp == steps[0].stamp {
				n++
			}
			joined.joined(steps[:n])
			steps = steps[n:]
		}
		want := dump(w.lead.m.st, false)
		for name, p := range map[string]*player{"split": split, "joined": joined, "restarted": restarted} {
			if got := dump(p.m.st, false); got != want {
				t.Fatalf("%s differs:\n%s", name, difference(got, want))
			}
			if !slices.Equal(p.published, w.lead.published) {
				t.Fatalf("%s published %v, want %v", name, p.published, w.lead.published)
			}
		}
	})
}

// checkPlayer checks that all derived state follows from the objects.
func checkPlayer(t *rapid.T, p *player) {
	r := &rig{t: t, m: p.m, bodies: p.bodies}
	r.check()
}

// TestASnapshotIsTheStateAtItsBeginningWhateverIsAppliedMeanwhile writes snapshots in the smallest steps, with parts of a
// script in between, and restores them.
func TestASnapshotIsTheStateAtItsBeginningWhateverIsAppliedMeanwhile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &writer{t: t, lead: newPlayer(t), stamp: 1000}
		for range rapid.IntRange(5, 40).Draw(t, "before") {
			w.next()
		}
		for range 2 {
			want := dump(w.lead.m.st, true)
			s, err := w.lead.m.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			var after []step
			s.records = 1
			s.between = func() {
				if w.chance(2) && len(after) < 30 {
					after = append(after, w.next())
				}
			}
			var b bytes.Buffer
			if _, err := s.WriteTo(&b); err != nil {
				t.Fatal(err)
			}
			s.Release()
			other := newPlayer(t)
			if err := other.m.Restore(&b); err != nil {
				t.Fatal(err)
			}
			if got := dump(other.m.st, true); got != want {
				t.Fatalf("the snapshot is of another state:\n%s", difference(got, want))
			}
			follow(w, other, after)
			if got, want := dump(other.m.st, true), dump(w.lead.m.st, true); got != want {
				t.Fatalf("the restored machine goes another way:\n%s", difference(got, want))
			}
		}
	})
}

// follow applies to a restored machine what its lead has applied since.
func follow(w *writer, p *player, steps []step) {
	p.index = w.lead.index - uint64(len(steps))
	for _, n := range p.m.st.nodes.cells {
		p.inc[n.id], p.number[n.id] = n.incarnation, n.lastBatch
	}
	for i := range steps {
		// A batch of a dead incarnation was numbered by the lead, but is not in the node's record.
		p.whole(&steps[i])
	}
}
