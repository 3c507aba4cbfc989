package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Step names a moment inside a write of a Memory, for tests that crash or fail there.
type Step string

// The steps, each before its effect.
const (
	StepWriteLog   Step = "write log"   // before entries are written
	StepSyncLog    Step = "sync log"    // written, not yet durable
	StepDeleteLog  Step = "delete log"  // before entries are deleted
	StepWriteMark  Step = "write mark"  // before a slot of the mark is durable
	StepWriteVote  Step = "write vote"  // before a value of the stable store is durable
	StepCloseSnap  Step = "close snap"  // before a snapshot is durable
	StepWriteOther Step = "write other" // before server.json or peers.json is durable
)

// ErrCrashed is what a disk in memory answers after Crash.
var ErrCrashed = errors.New("simulated crash")

// Memory is a disk for simulations. It holds what a data directory holds, goes through the same checksums and the same
// mark, and keeps over Crash what was synced. All methods are safe for concurrent use.
type Memory struct {
	mu      sync.Mutex
	epoch   int // of the opening; a crash ends it
	entries map[uint64]raft.Log
	first   uint64 // Invariant: entries holds exactly [first, last], gaps after a snapshot excepted
	last    uint64
	kv      map[string][]byte
	kvInt   map[string]uint64
	slot    [2][]byte
	snaps   []*memSnapshot // newest first
	id      *Identity
	book    []byte
	hook    func(Step) error
	delay   time.Duration
	free    uint64
	limited bool
}

// NewMemory returns an empty disk.
func NewMemory() *Memory {
	return &Memory{entries: make(map[uint64]raft.Log), kv: make(map[string][]byte), kvInt: make(map[string]uint64)}
}

// SetHook installs a function that is called before each step; its error fails the step as a broken disk would.
func (d *Memory) SetHook(hook func(Step) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = hook
}

// SetSyncDelay makes each sync of the log take a time. What is not synced when the disk crashes is lost.
func (d *Memory) SetSyncDelay(delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.delay = delay
}

// SetFree sets the free bytes that the disk reports; without a call it is never full.
func (d *Memory) SetFree(bytes uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free, d.limited = bytes, true
}

// Corrupt changes the data of a stored entry, as a disk that rots does. It reports whether the entry was there.
func (d *Memory) Corrupt(index uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.entries[index]
	if !ok {
		return false
	}
	e.Data = append([]byte{0xFF}, e.Data...)
	d.entries[index] = e
	return true
}

// Crash ends all use of the disk by whoever has it open: every later operation of theirs fails, and what they had not
// synced is gone.
func (d *Memory) Crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.epoch++
}

// Open opens the disk as Open opens a directory. A former opening is crashed.
func (d *Memory) Open(opt Options) (*Storage, error) {
	opt.fill()
	d.mu.Lock()
	d.epoch++
	at := &memOpen{d: d, epoch: d.epoch}
	empty := d.slot[0] == nil && d.slot[1] == nil
	id := Identity{ServerID: newServerID()}
	if d.id != nil {
		id = *d.id
	}
	book := d.book
	d.mu.Unlock()

	refuse := func(seen string, err error) (*Storage, error) {
		return nil, &RefusedError{Dir: "(in memory)", Seen: seen, Err: err}
	}
	if opt.ClusterID != "" && id.ClusterID != "" && opt.ClusterID != id.ClusterID {
		return refuse(fmt.Sprintf("it belongs to cluster %s, and %s was asked for", id.ClusterID, opt.ClusterID), nil)
	}
	open := openMark
	if empty {
		open = createMark
	}
	m, err := open(at)
	if err != nil {
		return refuse("the mark of what was acknowledged is damaged", err)
	}
	s, err := assemble(at, at, memSnapshots{at}, m, opt)
	if err != nil {
		return refuse("what it holds is less than this server has promised", err)
	}
	if s.Book, err = openBook(book, at.saveBook); err != nil {
		return refuse("what it knew of its peers is damaged", err)
	}
	s.freed, s.save = at.freeBytes, at.saveIdentity
	if opt.FreeBytes != nil {
		s.freed = opt.FreeBytes
	}
	s.closer = s.Book.Flush
	id.Incarnation++
	if opt.Name != "" {
		id.Name = opt.Name
	}
	if opt.ClusterID != "" {
		id.ClusterID = opt.ClusterID
	}
	_, err = s.update(func(to *Identity) { *to = id })
	return s, err
}

// memOpen is one opening of the disk.
type memOpen struct {
	d     *Memory
	epoch int
}

// step waits at a step and reports whether the opening still lives. No lock is held meanwhile.
func (o *memOpen) step(step Step) error {
	o.d.mu.Lock()
	hook, delay, epoch := o.d.hook, o.d.delay, o.d.epoch
	o.d.mu.Unlock()
	if epoch != o.epoch {
		return ErrCrashed
	}
	if step == StepSyncLog && delay > 0 {
		time.Sleep(delay)
	}
	if hook != nil {
		return hook(step)
	}
	return nil
}

// commit makes a change durable unless the disk has crashed meanwhile.
func (o *memOpen) commit(change func(d *Memory)) error {
	o.d.mu.Lock()
	defer o.d.mu.Unlock()
	if o.d.epoch != o.epoch {
		return ErrCrashed
	}
	change(o.d)
	return nil
}

// look reads. It works after a crash too: whoever is dying harms nobody by reading, and Raft does not expect reads to fail.
func (o *memOpen) look(read func(d *Memory)) {
	o.d.mu.Lock()
	defer o.d.mu.Unlock()
	read(o.d)
}

func (o *memOpen) do(step Step, change func(d *Memory)) error {
	if err := o.step(step); err != nil {
		return err
	}
	return o.commit(change)
}

func (o *memOpen) saveIdentity(id Identity) error {
	return o.do(StepWriteOther, func(d *Memory) { d.id = &id })
}

func (o *memOpen) saveBook(b []byte) error {
	return o.do(StepWriteOther, func(d *Memory) { d.book = b })
}

func (o *memOpen) freeBytes() (uint64, error) {
	free := uint64(1 << 62)
	o.look(func(d *Memory) {
		if d.limited {
			free = d.free
		}
	})
	return free, nil
}

// FirstIndex implements raft.LogStore.
func (o *memOpen) FirstIndex() (i uint64, err error) {
	o.look(func(d *Memory) { i = d.first })
	return i, nil
}

// LastIndex implements raft.LogStore.
func (o *memOpen) LastIndex() (i uint64, err error) {
	o.look(func(d *Memory) { i = d.last })
	return i, nil
}

// GetLog implements raft.LogStore.
func (o *memOpen) GetLog(index uint64, entry *raft.Log) error {
	found := false
	o.look(func(d *Memory) {
		if e, ok := d.entries[index]; ok {
			*entry, found = e, true
		}
	})
	if !found {
		return raft.ErrLogNotFound
	}
	return nil
}

// StoreLog implements raft.LogStore.
func (o *memOpen) StoreLog(entry *raft.Log) error { return o.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (o *memOpen) StoreLogs(entries []*raft.Log) error {
	if err := o.step(StepWriteLog); err != nil {
		return err
	}
	return o.do(StepSyncLog, func(d *Memory) {
		for _, e := range entries {
			d.entries[e.Index] = *e
			if d.first == 0 {
				d.first = e.Index
			}
			d.last = max(d.last, e.Index)
		}
	})
}

// DeleteRange implements raft.LogStore.
func (o *memOpen) DeleteRange(first, last uint64) error {
	return o.do(StepDeleteLog, func(d *Memory) {
		for i := first; i <= last; i++ {
			delete(d.entries, i)
		}
		d.first, d.last = 0, 0
		for i := range d.entries {
			d.last = max(d.last, i)
			if d.first == 0 || i < d.first {
				d.first = i
			}
		}
	})
}

var errKeyNotFound = errors.New("not found") // the text is what hashicorp/raft compares

// Set implements raft.StableStore.
func (o *memOpen) Set(key, value []byte) error {
	return o.do(StepWriteVote, func(d *Memory) { d.kv[string(key)] = bytes.Clone(value) })
}

// Get implements raft.StableStore.
func (o *memOpen) Get(key []byte) (value []byte, err error) {
	o.look(func(d *Memory) { value = d.kv[string(key)] })
	if value == nil {
		return nil, errKeyNotFound
	}
	return value, nil
}

// SetUint64 implements raft.StableStore.
func (o *memOpen) SetUint64(key []byte, value uint64) error {
	return o.do(StepWriteVote, func(d *Memory) { d.kvInt[string(key)] = value })
}

// GetUint64 implements raft.StableStore.
func (o *memOpen) GetUint64(key []byte) (value uint64, err error) {
	o.look(func(d *Memory) { value = d.kvInt[string(key)] })
	if value == 0 {
		return 0, errKeyNotFound
	}
	return value, nil
}

func (o *memOpen) read(i int) (b []byte, err error) {
	o.look(func(d *Memory) { b = d.slot[i] })
	return b, nil
}

func (o *memOpen) write(i int, slot []byte) error {
	return o.do(StepWriteMark, func(d *Memory) { d.slot[i] = bytes.Clone(slot) })
}

func (o *memOpen) close() error { return nil }

// memSnapshot is a snapshot; it counts only when it was closed.
type memSnapshot struct {
	meta raft.SnapshotMeta
	data []byte
}

type memSnapshots struct{ o *memOpen }

// Create implements raft.SnapshotStore.
func (s memSnapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64,
	_ raft.Transport,
) (raft.SnapshotSink, error) {
	return &memSink{o: s.o, snap: memSnapshot{meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term,
		Configuration: conf, ConfigurationIndex: confIndex,
	}}}, nil
}

// List implements raft.SnapshotStore.
func (s memSnapshots) List() (list []*raft.SnapshotMeta, err error) {
	s.o.look(func(d *Memory) {
		for _, snap := range d.snaps {
			meta := snap.meta
			list = append(list, &meta)
		}
	})
	return list, nil
}

// Open implements raft.SnapshotStore.
func (s memSnapshots) Open(id string) (meta *raft.SnapshotMeta, r io.ReadCloser, err error) {
	s.o.look(func(d *Memory) {
		for _, snap := range d.snaps {
			if snap.meta.ID == id {
				copied := snap.meta
				meta, r = &copied, io.NopCloser(bytes.NewReader(snap.data))
			}
		}
	})
	if meta == nil {
		err = fmt.Errorf("snapshot %s: %w", id, errNotExist)
	}
	return meta, r, err
}

type memSink struct {
	o    *memOpen
	snap memSnapshot
	done bool
}

// Write implements raft.SnapshotSink.
func (s *memSink) Write(b []byte) (int, error) {
	s.snap.data = append(s.snap.data, b...)
	return len(b), nil
}

// ID implements raft.SnapshotSink.
func (s *memSink) ID() string { return s.snap.meta.ID }

// Cancel implements raft.SnapshotSink.
func (s *memSink) Cancel() error {
	s.done = true
	return nil
}

// Close implements raft.SnapshotSink.
func (s *memSink) Close() error {
	if s.done {
		return nil
	}
	s.done = true
	s.snap.meta.Size = int64(len(s.snap.data))
	return s.o.do(StepCloseSnap, func(d *Memory) {
		d.snaps = append([]*memSnapshot{&s.snap}, d.snaps...)
		d.snaps = d.snaps[:min(len(d.snaps), snapshotsKept)]
	})
}
