package storage

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/hashicorp/raft"
)

// snapshots raises the mark when a snapshot is durable: from then on it stands in for the entries before it.
type snapshots struct {
	raft.SnapshotStore
	log *log
}

// Create implements raft.SnapshotStore.
func (s snapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64,
	trans raft.Transport,
) (raft.SnapshotSink, error) {
	if err := s.log.alive(); err != nil {
		return nil, err
	}
	sink, err := s.SnapshotStore.Create(version, index, term, conf, confIndex, trans)
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	return &snapshotSink{SnapshotSink: sink, log: s.log, index: index, term: term}, nil
}

type snapshotSink struct {
	raft.SnapshotSink
	log         *log
	index, term uint64
	cancelled   bool
}

// Cancel implements raft.SnapshotSink.
func (s *snapshotSink) Cancel() error {
	s.cancelled = true
	return s.SnapshotSink.Cancel()
}

// Close implements raft.SnapshotSink. A full disk costs this snapshot; a disk that cannot write costs the process.
func (s *snapshotSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		if errors.Is(err, syscall.EIO) {
			return s.log.fail(fmt.Errorf("store snapshot %d: %w", s.index, err))
		}
		return fmt.Errorf("store snapshot %d: %w", s.index, err)
	}
	if s.cancelled {
		return nil
	}
	return s.log.raise(s.index, s.term)
}
