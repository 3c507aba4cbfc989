package consensus

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"quorate/fsm"
	"quorate/fsm/command"
)

// TransferAndShutdown ends the node in good order: it takes no more proposals, waits for those under way
// (Timings.Flush), says that its incarnation has ended, hands leadership over (Timings.Transfer), and closes. ctx cuts
// the waiting short. It may be called twice, also after Close.
func (n *Node) TransferAndShutdown(ctx context.Context) error {
	if n.closing.CompareAndSwap(false, true) {
		n.flush(ctx)
		n.transfer(ctx)
	}
	return n.end()
}

// Close ends the node at once, without handing over. What was proposed and not answered gets ErrUnknown. It closes the
// storage, waits for every goroutine, and may be called twice.
func (n *Node) Close() error {
	n.closing.Store(true)
	return n.end()
}

// flush ends the stream with the end of this incarnation, so that nobody has to wait to declare it dead.
func (n *Node) flush(ctx context.Context) {
	if n.raftStopped() { // removed
		return
	}
	done := make(chan struct{})
	start := n.window.addLast(&command.NodeDown{ID: n.self, Incarnation: n.Incarnation()}, func(fsm.Result, error) { close(done) })
	if !start {
		if _, empty := n.window.pending(); empty {
			return
		}
	}
	n.wakeSender(false)
	limit := time.NewTimer(n.cfg.Timings.Flush)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		n.logger.Warn("proposals were not finished before the node ends")
	case <-ctx.Done():
	case <-n.stop:
	}
}

// transfer hands leadership over. Nowhere else may it be asked for: cut off at the wrong moment it leaves a leader that
// refuses everything for ever (hashicorp/raft #696).
func (n *Node) transfer(ctx context.Context) {
	if n.raft.State() != raft.Leader || len(n.voters()) < 2 {
		return
	}
	giveUp := make(chan struct{})
	limit := time.AfterFunc(n.cfg.Timings.Transfer, func() { close(giveUp) })
	done := make(chan error, 1)
	n.wg.Go(func() { done <- wait(n.raft.LeadershipTransfer(), giveUp) })
	select {
	case err := <-done:
		if err != nil {
			n.logger.Info("leadership not handed over", "err", err)
		}
	case <-ctx.Done():
	}
	if limit.Stop() {
		close(giveUp)
	}
}

func (n *Node) end() error {
	n.once.Do(func() {
		stopped := n.raft.Shutdown().Error()
		close(n.stop)
		n.cancel()
		n.wg.Wait()
		fail(n.window.close(), ErrUnknown)
		n.reads.close()
		n.err = errors.Join(stopped, n.cfg.Storage.Close())
	})
	return n.err
}
