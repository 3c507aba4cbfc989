package storage

import (
	"bytes"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// The keys under which hashicorp/raft keeps its term and vote.
var (
	keyCurrentTerm  = []byte("CurrentTerm")
	keyLastVoteTerm = []byte("LastVoteTerm")
	keyLastVoteCand = []byte("LastVoteCand")
)

// stable repeats term and vote in the mark, after the store has them: a store whose term or vote is older than the
// mark's is an old copy, and would vote twice.
type stable struct {
	next raft.StableStore
	log  *log
}

// Set implements raft.StableStore. Raft writes the candidate last; with it the vote is whole.
func (s *stable) Set(key, value []byte) error {
	if err := s.log.alive(); err != nil {
		return err
	}
	if err := s.next.Set(key, value); err != nil {
		return s.log.fail(fmt.Errorf("store %s: %w", key, err))
	}
	if !bytes.Equal(key, keyLastVoteCand) {
		return nil
	}
	term, err := s.next.GetUint64(keyLastVoteTerm)
	if err != nil {
		return s.log.fail(fmt.Errorf("read term of vote: %w", err))
	}
	return s.note(func(st *state) { st.voteTerm, st.voteCRC = term, crc32.Checksum(value, castagnoli) })
}

// Get implements raft.StableStore.
func (s *stable) Get(key []byte) ([]byte, error) { return s.next.Get(key) }

// SetUint64 implements raft.StableStore.
func (s *stable) SetUint64(key []byte, value uint64) error {
	if err := s.log.alive(); err != nil {
		return err
	}
	if err := s.next.SetUint64(key, value); err != nil {
		return s.log.fail(fmt.Errorf("store %s: %w", key, err))
	}
	if bytes.Equal(key, keyCurrentTerm) && s.log.mark.load().currentTerm != value {
		return s.note(func(st *state) { st.currentTerm = value })
	}
	return nil
}

// GetUint64 implements raft.StableStore.
func (s *stable) GetUint64(key []byte) (uint64, error) { return s.next.GetUint64(key) }

func (s *stable) note(change func(*state)) error {
	if err := s.log.mark.update(change); err != nil {
		return s.log.fail(err)
	}
	return nil
}
