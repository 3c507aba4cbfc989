// Package storage is what a server's vote rests on: the Raft log, the term and vote, the snapshots, and what the
// server remembers of its peers, in one data directory.
//
// It is fail-stop (P12). Every log entry carries a CRC32C that travels with it. A mark beside the log says, durably,
// how far this server has ever reported entries as stored, and for whom it voted. A directory that falls short of its
// own mark is refused, with the command that brings the node back as a new server; a write or an fsync that fails ends
// the process, and is never tried again. What this server cannot see by itself (a wiped directory, an old copy) its
// peers see: a wiped one has a new id, and Book refuses one that went back.
//
// The directory:
//
//	lock            flock of the process that uses the directory
//	server.json     Identity and format, replaced by rename
//	peers.json      Book
//	raft/log.db     raft-boltdb: log, term and vote
//	raft/mark       two checksummed slots, see mark
//	raft/snapshots  raft.FileSnapshotStore
//
// Why raft-boltdb and not the faster raft-wal: on a damaged file the first refuses, the second comes back silently
// shorter. Why a mark and not only checksums: a log that lost its tail is perfectly consistent.
package storage

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"quorate/fsm/command"
)

// Identity says which server a data directory is.
type Identity struct {
	// ServerID is random, drawn when the directory was made. It is the Raft ServerID.
	ServerID command.NodeID
	// ClusterID is empty until the server belongs to a cluster.
	ClusterID string
	// Name is a label for people.
	Name string
	// Incarnation counts the starts; it was raised, and the new value made durable, when the directory was opened.
	Incarnation uint64
}

// Options are the settings of a store.
type Options struct {
	// Name is the node's label; it replaces the recorded one when not empty.
	Name string
	// ClusterID refuses a directory of another cluster. Empty accepts any.
	ClusterID string
	// LowBytes of free disk space are the mark below which a node proposes nothing more that must be stored.
	LowBytes uint64
	// CriticalBytes of free disk space are the mark below which the log takes no entries: it says no before the file
	// system does, so that nothing is torn and the node goes on by itself when there is space again.
	CriticalBytes uint64
	// FreeBytes measures the free disk space; nil asks the file system of the directory.
	FreeBytes func() (uint64, error)
	// Fatal is called when the store can no longer be trusted, and at each use after that. It must end the process, or in
	// a simulation the goroutine (runtime.Goexit): if it returns, the store refuses everything, and Raft may panic because
	// of that. Nil panics.
	Fatal func(error)
	// Logger is where the store reports; nil discards.
	Logger *slog.Logger
}

// DefaultOptions returns the settings of a production node, without a Fatal.
func DefaultOptions() Options {
	return Options{LowBytes: 1 << 30, CriticalBytes: 128 << 20}
}

// ErrDiskFull says that an entry was not taken because the disk is nearly full. Nothing was written.
var ErrDiskFull = errors.New("disk is nearly full")

// ErrFailed says that the store has failed before and takes nothing any more.
var ErrFailed = errors.New("storage has failed")

// Storage is an open data directory. Logs, Stable and Snapshots are for hashicorp/raft, which follows its own rules of
// concurrency; all methods are safe for concurrent use.
type Storage struct {
	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	// Book is what this server remembers of its peers.
	Book *Book

	opt    Options
	dir    string // "" in memory
	log    *log
	freed  func() (uint64, error)
	save   func(Identity) error
	closer func() error

	mu sync.Mutex // serialises changes of the identity; held over their fsync, which is its purpose
	id atomic.Pointer[Identity]
}

// Identity returns who this server is.
func (s *Storage) Identity() Identity { return *s.id.Load() }

// Durable returns the last log index that is durable here, in the log or in a snapshot. It goes back only when a
// suffix that was never committed is deleted.
func (s *Storage) Durable() uint64 { return s.log.mark.load().index }

// SnapshotIndex returns the index of the newest durable snapshot, 0 for none.
func (s *Storage) SnapshotIndex() uint64 { return s.log.snapshot.Load() }

// Dir returns the data directory, "" in memory.
func (s *Storage) Dir() string { return s.dir }

// NextIncarnation makes a new incarnation durable and returns its number: a node that was declared dead while it lived
// goes on under a new one.
func (s *Storage) NextIncarnation() (uint64, error) {
	id, err := s.update(func(id *Identity) { id.Incarnation++ })
	return id.Incarnation, err
}

// SetClusterID makes the cluster that this server belongs to durable. It is set once: another id is an error.
func (s *Storage) SetClusterID(clusterID string) error {
	if was := s.Identity().ClusterID; was != "" && was != clusterID {
		return &RefusedError{Dir: s.dir, Seen: "it belongs to cluster " + was + ", not " + clusterID}
	}
	_, err := s.update(func(id *Identity) { id.ClusterID = clusterID })
	return err
}

func (s *Storage) update(change func(*Identity)) (Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.Identity()
	change(&id)
	if err := s.save(id); err != nil {
		return s.Identity(), err
	}
	s.id.Store(&id)
	return id, nil
}

// Low reports whether free disk space is below Options.LowBytes. An error of measuring is not low: the log itself
// refuses what it cannot hold.
func (s *Storage) Low() bool {
	free, err := s.freed()
	if err != nil {
		s.opt.Logger.LogAttrs(context.Background(), slog.LevelWarn, "free disk space is unknown", slog.Any("err", err))
		return false
	}
	return free < s.opt.LowBytes
}

// LogBytes returns the bytes of the entries after index.
func (s *Storage) LogBytes(after uint64) uint64 { return s.log.sizes.bytesAfter(after) }

// Trailing returns how many of the newest entries together hold at most bytes.
func (s *Storage) Trailing(bytes uint64) uint64 { return s.log.sizes.trailing(bytes) }

// Close closes all files and gives up the lock. It may be called twice.
func (s *Storage) Close() error { return s.closer() }

func (o *Options) fill() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) { panic(err) }
	}
}
