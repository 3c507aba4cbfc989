package consensus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/time/rate"

	"quorate/fsm/command"
)

// maxAppendEntries counts entries: 32 of 256 KiB are 8 MiB in a message and in what waits for the machine.
const maxAppendEntries = 32

// persistChunk is the size of the writes of a snapshot.
const persistChunk = 256 << 10

func raftConfig(cfg *Config, self command.NodeID) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(self)
	c.HeartbeatTimeout = cfg.Timings.Heartbeat
	c.ElectionTimeout = cfg.Timings.Election
	c.LeaderLeaseTimeout = cfg.Timings.Lease
	// The default of 50 ms is what followers of a quiet leader would apply, and so deliver, too late.
	c.CommitTimeout = cfg.Timings.Commit
	c.MaxAppendEntries = maxAppendEntries
	c.BatchApplyCh = false // it leaves futures unanswered at shutdown, and batches are made before
	// Entries hold up to 1,024 commands, so their number says nothing: runSnapshots decides by bytes.
	c.SnapshotThreshold = math.MaxUint64 >> 1
	c.SnapshotInterval = time.Minute
	c.TrailingLogs = 2048 // set anew by bytes before each snapshot
	c.NoLegacyTelemetry = true
	c.PreVoteDisabled = false
	c.ShutdownOnRemove = true // checkMembership notices
	c.Logger = newHCLog(cfg.Logger)
	return c
}

// applier is the machine as Raft sees it.
type applier struct{ n *Node }

// Apply implements raft.FSM. An entry that cannot be applied stops the node: its state would differ from the others'.
func (a *applier) Apply(entry *raft.Log) any {
	a.apply(entry.Index, entry.Data)
	return nil
}

// StoreConfiguration implements raft.ConfigurationStore. The machine gets an empty entry, so that its index reaches
// that of a configuration too: a read index may be one.
func (a *applier) StoreConfiguration(index uint64, _ raft.Configuration) {
	a.apply(index, command.AppendEntryHeader(nil, 0))
}

func (a *applier) apply(index uint64, entry []byte) {
	if a.n.broken.Load() {
		return
	}
	if err := a.n.cfg.Machine.Apply(index, entry); err != nil {
		a.n.fatal(fmt.Errorf("apply log entry %d: %w", index, err))
		return
	}
	if s := a.n.session.Load(); s != nil {
		signal(s.applied)
	}
}

// Snapshot implements raft.FSM.
func (a *applier) Snapshot() (raft.FSMSnapshot, error) {
	if a.n.broken.Load() {
		return nil, errors.New("the machine has failed")
	}
	s, err := a.n.cfg.Machine.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("snapshot of the machine: %w", err)
	}
	return &persister{n: a.n, snapshot: s}, nil
}

// Restore implements raft.FSM.
func (a *applier) Restore(r io.ReadCloser) error {
	if err := a.n.cfg.Machine.Restore(bufio.NewReaderSize(r, persistChunk)); err != nil {
		return fmt.Errorf("restore the machine: %w", err)
	}
	return nil
}

// persister writes a snapshot at a limited rate, so that appends to the log keep their share of the disk.
type persister struct {
	n        *Node
	snapshot Snapshot
}

// Persist implements raft.FSMSnapshot. Raft closes the sink.
func (p *persister) Persist(sink raft.SnapshotSink) error {
	w := bufio.NewWriterSize(&limitedWriter{
		ctx: p.n.ctx, w: sink, limit: rate.NewLimiter(rate.Limit(p.n.cfg.Bounds.PersistBytesPerSecond), 4*persistChunk),
	}, persistChunk)
	if _, err := p.snapshot.WriteTo(w); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	if err := w.Flush(); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return nil
}

// Release implements raft.FSMSnapshot.
func (p *persister) Release() { p.snapshot.Release() }

type limitedWriter struct {
	ctx   context.Context // the node's lifetime
	w     io.Writer
	limit *rate.Limiter
}

// Write implements io.Writer.
func (l *limitedWriter) Write(b []byte) (n int, err error) {
	for n < len(b) {
		chunk := b[n:min(len(b), n+persistChunk)]
		if err := l.limit.WaitN(l.ctx, len(chunk)); err != nil {
			return n, err
		}
		written, err := l.w.Write(chunk)
		n += written
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// runSnapshots takes a snapshot when the log since the last one is large, and larger than that one: so at most as much
// again is written for snapshots as for the log.
func (n *Node) runSnapshots() {
	tick := time.NewTicker(n.cfg.Timings.SnapshotCheck)
	defer tick.Stop()
	for {
		select {
		case <-n.stop:
			return
		case <-tick.C:
		}
		index, size, err := n.lastSnapshot()
		if err != nil {
			n.logger.Warn("snapshots cannot be listed", "err", err)
			continue
		}
		if n.cfg.Storage.LogBytes(index) <= max(n.cfg.Bounds.SnapshotBytes, size) {
			continue
		}
		if err := n.Snapshot(); err != nil {
			n.logger.Warn("no snapshot taken", "err", err)
		}
	}
}

func (n *Node) lastSnapshot() (index, bytes uint64, err error) {
	list, err := n.cfg.Storage.Snapshots.List()
	if err != nil || len(list) == 0 {
		return 0, 0, err
	}
	return list[0].Index, uint64(list[0].Size), nil
}

// Snapshot takes a snapshot now and deletes the log before it but for Bounds.TrailingBytes. It waits for the end.
func (n *Node) Snapshot() error {
	c := n.raft.ReloadableConfig()
	c.TrailingLogs = n.cfg.Storage.Trailing(n.cfg.Bounds.TrailingBytes)
	if err := n.raft.ReloadConfig(c); err != nil {
		return fmt.Errorf("set trailing log: %w", err)
	}
	if err := n.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return fmt.Errorf("take snapshot: %w", err)
	}
	return nil
}
