package fsm

import (
	"errors"
	"fmt"
	"slices"

	"quorate/fsm/command"
	"quorate/protocol/packet"
)

// errBatchCount says that a batch does not hold as many commands as it says.
var errBatchCount = errors.New("batch holds another number of commands than it says")

// applyEntry applies one log entry.
func (st *state) applyEntry(b []byte) {
	st.events.reset()
	st.entries++
	entry, err := command.DecodeEntry(b)
	if err != nil {
		st.fail(err)
		return
	}
	// Time never goes back: a leader whose clock is behind stands still until it has caught up.
	st.now = max(st.now, entry.Stamp)
	for st.err == nil {
		batch, ok, err := entry.Next()
		if err != nil {
			st.fail(err)
			return
		}
		if !ok {
			return
		}
		if l := st.admit(&batch); l != nil {
			st.applyBatch(&batch, l)
		}
	}
}

// admit decides whether a batch is the next of its node's present incarnation, or opens a new one. A batch that was
// applied before, leaves a gap, or is of an incarnation that has ended, is skipped whole.
func (st *state) admit(b *command.Batch) *life {
	var n *node
	if i, known := st.nodeByID[b.Node]; known {
		n = st.nodes.at(i)
	}
	current, up := uint64(0), false
	if n != nil {
		current, up = n.incarnation, n.life != nil
	}
	if b.Incarnation > current {
		return st.admitIncarnation(b)
	}
	if b.Incarnation < current || n == nil {
		return nil
	}
	if !up {
		st.events.gap(st.self == b.Node, b.Incarnation, 0, b.Number)
		return nil
	}
	if b.Number != n.lastBatch+1 {
		if b.Number > n.lastBatch {
			st.events.gap(st.self == b.Node, b.Incarnation, n.lastBatch+1, b.Number)
		}
		return nil
	}
	st.touchNode(n)
	n.lastBatch = b.Number
	return n.life
}

// admitIncarnation opens an incarnation with its first batch, which must begin with NodeUp.
func (st *state) admitIncarnation(b *command.Batch) *life {
	if b.Number != 1 {
		st.events.gap(st.self == b.Node, b.Incarnation, 1, b.Number)
		return nil
	}
	if b.Count == 0 || command.Kind(b.Commands[0]) != command.KindNodeUp {
		return nil
	}
	cmd, _, err := command.Decode(b.Commands)
	if err != nil {
		st.fail(err)
		return nil
	}
	if up := cmd.(*command.NodeUp); up.ID != b.Node || !st.nodeUp(up, b.Incarnation) {
		return nil
	}
	n := st.nodes.at(st.nodeByID[b.Node])
	st.touchNode(n)
	n.lastBatch = 1
	return n.life
}

// applyBatch applies the commands of an admitted batch.
func (st *state) applyBatch(b *command.Batch, l *life) {
	own := b.Node == st.self
	if own {
		st.events.beginBatch()
	}
	rest := b.Commands
	for i := range b.Count {
		r := &st.scratch
		if own {
			r = st.events.result()
		} else {
			*r = Result{Codes: r.Codes[:0], Existed: r.Existed[:0]}
		}
		n, err := st.applyCommand(rest, l, i == 0 && b.Number == 1, r)
		if err != nil {
			st.fail(err)
		}
		if st.err != nil {
			return
		}
		rest = rest[n:]
	}
	if len(rest) != 0 {
		st.fail(fmt.Errorf("batch %d of node %s: %w", b.Number, b.Node, errBatchCount))
		return
	}
	if own {
		st.events.endBatch(b.Incarnation, b.Number)
	}
}

// applyCommand decodes and applies one command and says how many bytes it took. opening is set for the NodeUp that
// admitted the batch and has been applied.
func (st *state) applyCommand(b []byte, l *life, opening bool, r *Result) (int, error) {
	if len(b) > 0 && command.Kind(b[0]) == command.KindPublish {
		n, err := command.DecodePublish(b, &st.publishing)
		if err == nil && l.up {
			st.publish(&st.publishing, l, r)
		}
		r.Stale = r.Stale || !l.up
		return n, err
	}
	cmd, n, err := command.Decode(b)
	if err != nil {
		return 0, err
	}
	if !l.up {
		// The batch ended its own incarnation: what follows comes from nobody.
		r.Stale = true
		return n, nil
	}
	st.dispatch(cmd, l, opening, r)
	return n, nil
}

func (st *state) dispatch(cmd command.Command, l *life, opening bool, r *Result) {
	switch c := cmd.(type) {
	case *command.NodeUp:
		if !opening {
			r.Code = packet.ProtocolError
		}
	case *command.NodeDown:
		r.Existed = append(r.Existed, st.nodeDown(c))
	case *command.Configure:
		st.configure(c)
	case *command.Connect:
		st.connect(c, l, r)
	case *command.Disconnect:
		st.disconnect(c, r)
	case *command.Release:
		st.releaseIn2(c, r)
	case *command.Subscribe:
		st.subscribe(c, l, r)
	case *command.Unsubscribe:
		st.unsubscribe(c, l, r)
	case *command.Routes:
		st.changeRoutes(c.Add, c.Remove, l)
	case *command.Progress:
		st.progress(c, r)
	case *command.SendMark:
		st.sendMark(c, r)
	case *command.Tick:
		st.tick()
	case *command.Kick:
		st.kick(c, r)
	default:
		panic(fmt.Sprintf("fsm: no rule for command kind %d", cmd.Kind()))
	}
}

// configure replaces the limits. The members of groups depend on one of them.
func (st *state) configure(c *command.Configure) {
	st.limits = c.Limits
	st.effect(effectConfigure, hashBytes(command.AppendLimits(nil, &c.Limits)), 0)
	for _, g := range st.groups.cells {
		if g == nil {
			continue
		}
		for _, m := range slices.Clone(g.members) {
			m.refresh(st.limits.MaxReceiveWindow)
		}
		st.drainGroup(g, 1)
	}
}
