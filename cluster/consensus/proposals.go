package consensus

import (
	"sync/atomic"
	"time"

	"quorate/fsm"
	"quorate/fsm/command"
)

// retryPause is how long the sender waits after a leader did not take a batch. A change of leader ends the wait.
const retryPause = 20 * time.Millisecond

// Observer is the part of fsm.Observer that consensus needs. Make it first, let the machine's observer pass
// BatchApplied, BatchGap and Restored on to it, and give it to Start.
type Observer struct{ node atomic.Pointer[Node] }

// NewObserver returns an Observer that ignores everything until Start.
func NewObserver() *Observer { return new(Observer) }

// BatchApplied implements fsm.Observer: it runs the callbacks of the batch, in order.
func (o *Observer) BatchApplied(incarnation, number uint64, results []fsm.Result) {
	n := o.node.Load()
	if n == nil {
		return
	}
	b, skipped := n.window.applied(incarnation, number)
	fail(skipped, ErrUnknown)
	if b == nil {
		return
	}
	for i, done := range b.dones {
		if done != nil {
			done(results[i], nil)
		}
	}
	n.window.recycle(b)
	n.wakeSender(false)
}

// BatchGap implements fsm.Observer: what the machine waits for is sent again. An expected of 0 says that the node was
// declared dead.
func (o *Observer) BatchGap(incarnation, expected, _ uint64) {
	n := o.node.Load()
	if n == nil || incarnation != n.Incarnation() {
		return
	}
	if expected == 0 {
		n.reincarnate(incarnation)
		return
	}
	n.wakeSender(true)
}

// Restored implements fsm.Observer: what the snapshot contains is answered with ErrUnknown, the rest is sent again.
func (o *Observer) Restored() {
	n := o.node.Load()
	if n == nil {
		return
	}
	if self, ok := n.cfg.Machine.Node(n.self); ok {
		fail(n.window.restored(self.Incarnation, self.LastBatch), ErrUnknown)
	}
	n.wakeSender(true)
}

// Propose adds a command to this node's stream. It does not block. Commands are applied in the order of the calls, each
// exactly once, or never, in which case done gets an error. done runs exactly once, on the goroutine that applies
// entries (or, after that has stopped, the one that closes the node), in order; it must not block. It may be nil.
//
// Errors: ErrOverloaded, ErrTooLarge, ErrDiskFull, ErrShuttingDown; done is not called then. done's error is
// ErrUnknown: the command may or may not be applied, now or later, and must not be acknowledged.
func (n *Node) Propose(c command.Command, done func(fsm.Result, error)) error {
	if n.diskFull.Load() && c.Kind() == command.KindPublish {
		return ErrDiskFull
	}
	start, err := n.window.add(c, done)
	if err != nil {
		return err
	}
	if start {
		n.wakeSender(false)
	}
	return nil
}

// Incarnation returns the number under which this node proposes now.
func (n *Node) Incarnation() uint64 { return n.incarnation.Load() }

// wakeSender makes the sender look; again makes it send the whole window again.
func (n *Node) wakeSender(again bool) {
	if again {
		n.again.Store(true)
	}
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// nacked hears that a batch was not taken. The receiver that is not the leader may become it any moment.
func (n *Node) nacked(no nack) {
	if no.incarnation != n.Incarnation() {
		return
	}
	if no.expected == 0 {
		n.refused.Store(true)
	}
	n.wakeSender(true)
}

// runSender is the only goroutine that sends batches: frames leave in the order of their numbers.
//
// After a refusal it pauses, whatever is proposed meanwhile: otherwise each proposal would send the whole window to a
// node that does not want it. News of a leader end the pause.
func (n *Node) runSender() {
	net := time.NewTicker(n.cfg.Timings.Resend)
	defer net.Stop()
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	var seen uint64
	var buf []outgoing
	paused := false
	for {
		select {
		case <-n.stop:
			return
		case <-n.wake:
		case <-retry.C:
			paused = false
		case <-net.C:
			idle, progress := n.window.idle()
			if !idle && progress == seen {
				n.window.rewind()
			}
			seen = progress
		}
		again, refused := n.again.Swap(false), n.refused.Swap(false)
		if again {
			n.window.rewind()
			paused = false
		}
		if !refused && !paused {
			if buf, refused = n.sendBatches(buf[:0]); refused {
				n.window.rewind()
			}
		}
		if refused {
			paused = true
			retry.Reset(retryPause)
		}
	}
}

// sendBatches sends what may be sent to the leader. Without one there is nothing to do: its coming wakes the sender.
func (n *Node) sendBatches(buf []outgoing) (out []outgoing, refused bool) {
	leader, known := n.Leader()
	if !known {
		return buf, false
	}
	buf, incarnation := n.window.take(buf)
	for i := range buf {
		o := &buf[i]
		if o.frame == nil {
			o.frame = command.AppendBatch(make([]byte, 0, len(o.commands)+64), &command.Batch{
				Node: n.self, Incarnation: incarnation, Number: o.number, Count: o.count, Commands: o.commands,
			})
			n.window.framed(o.batch, o.frame)
		}
		if !n.sendBatch(leader, o.frame) {
			return buf, true
		}
	}
	clear(buf)
	return buf, false
}

func (n *Node) sendBatch(leader command.NodeID, frame []byte) bool {
	if leader != n.self {
		return n.cfg.Peers.Send(leader, KindPropose, frame)
	}
	s := n.session.Load()
	if s == nil {
		return false
	}
	_, ok := s.packer.accept(n.self, frame, true)
	return ok
}

// openIncarnation puts NodeUp first into the stream.
func (n *Node) openIncarnation(incarnation uint64) (lost []*batch) {
	n.registered.Store(false)
	n.incarnation.Store(incarnation)
	return n.window.restart(incarnation, &command.NodeUp{
		ID: n.self, Name: n.cfg.Storage.Identity().Name, ClientAddr: n.cfg.ClientAddr, Format: command.EntryVersion,
	}, func(_ fsm.Result, err error) {
		if err == nil && n.Incarnation() == incarnation {
			n.registered.Store(true)
		}
	})
}

// reincarnate goes on under a new incarnation after the old one was ended in the log. What was still proposed under it
// will never be applied; its callers hear ErrUnknown, which promises less.
func (n *Node) reincarnate(ended uint64) {
	if n.closing.Load() || n.Incarnation() != ended || n.ended.Swap(ended) == ended {
		return // or another goroutine does it
	}
	next, err := n.cfg.Storage.NextIncarnation()
	if err != nil {
		n.ended.Store(0) // when the disk is only full, the next gap or ping tries again
		n.storageError(err)
		return
	}
	n.logger.Warn("this node was declared dead, it goes on under a new incarnation", "ended", ended, "incarnation", next)
	lost := n.openIncarnation(next)
	if n.cfg.Reincarnated != nil {
		n.cfg.Reincarnated(next)
	}
	fail(lost, ErrUnknown)
	n.wakeSender(true)
}
