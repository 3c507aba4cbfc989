package sim

import (
	"runtime"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"quorate/cluster/consensus"
)

// A goroutine cannot be killed. A process of the simulation that was killed
// goes on as a ghost: its network is gone for ever, its writes seem to succeed
// and change nothing, and it is closed like any other. Once the disk belongs
// to its successor, a goroutine of the ghost that reads from it ends there.

// haunt makes the storage of one process one that can become a ghost's.
func haunt(s *consensus.Storage, dead *atomic.Bool) {
	s.Logs = ghostLogs{s.Logs, dead}
	s.Stable = ghostStable{s.Stable, dead}
	s.Snapshots = ghostSnapshots{s.Snapshots, dead}
}

// outcome hides the error of a ghost's write.
func outcome(dead *atomic.Bool, err error) error {
	if dead.Load() {
		return nil
	}
	return err
}

// seen ends a goroutine of a ghost whose read failed.
func seen(dead *atomic.Bool, err error) error {
	if err != nil && dead.Load() {
		runtime.Goexit()
	}
	return err
}

type ghostLogs struct {
	raft.LogStore
	dead *atomic.Bool
}

// FirstIndex implements raft.LogStore.
func (g ghostLogs) FirstIndex() (uint64, error) {
	i, err := g.LogStore.FirstIndex()
	return i, seen(g.dead, err)
}

// LastIndex implements raft.LogStore.
func (g ghostLogs) LastIndex() (uint64, error) {
	i, err := g.LogStore.LastIndex()
	return i, seen(g.dead, err)
}

// GetLog implements raft.LogStore.
func (g ghostLogs) GetLog(index uint64, entry *raft.Log) error {
	return seen(g.dead, g.LogStore.GetLog(index, entry))
}

// StoreLog implements raft.LogStore.
func (g ghostLogs) StoreLog(entry *raft.Log) error { return g.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (g ghostLogs) StoreLogs(entries []*raft.Log) error {
	if g.dead.Load() {
		return nil
	}
	return outcome(g.dead, g.LogStore.StoreLogs(entries))
}

// DeleteRange implements raft.LogStore.
func (g ghostLogs) DeleteRange(first, last uint64) error {
	if g.dead.Load() {
		return nil
	}
	return outcome(g.dead, g.LogStore.DeleteRange(first, last))
}

type ghostStable struct {
	raft.StableStore
	dead *atomic.Bool
}

// Set implements raft.StableStore.
func (g ghostStable) Set(key, value []byte) error {
	if g.dead.Load() {
		return nil
	}
	return outcome(g.dead, g.StableStore.Set(key, value))
}

// SetUint64 implements raft.StableStore.
func (g ghostStable) SetUint64(key []byte, value uint64) error {
	if g.dead.Load() {
		return nil
	}
	return outcome(g.dead, g.StableStore.SetUint64(key, value))
}

// Get implements raft.StableStore.
func (g ghostStable) Get(key []byte) ([]byte, error) {
	v, err := g.StableStore.Get(key)
	return v, seen(g.dead, err)
}

// GetUint64 implements raft.StableStore.
func (g ghostStable) GetUint64(key []byte) (uint64, error) {
	v, err := g.StableStore.GetUint64(key)
	return v, seen(g.dead, err)
}

type ghostSnapshots struct {
	raft.SnapshotStore
	dead *atomic.Bool
}

// Create implements raft.SnapshotStore.
func (g ghostSnapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	s, err := g.SnapshotStore.Create(version, index, term, conf, confIndex, t)
	return s, seen(g.dead, err)
}
