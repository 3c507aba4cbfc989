package storage

import (
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// audited is what is known of a log after its entries were all read.
type audited struct {
	sizes *sizes
	// dropFrom is the first entry of a torn tail that nobody was ever promised, 0 for none.
	dropFrom, last uint64
}

// audit reads every entry and compares the whole with the mark. Its error says in words what was seen.
//
// What lies beyond the mark was never reported as stored and may be missing, torn or whole. Everything up to the mark
// must be there: in the log, undamaged, or in a snapshot.
func audit(logs raft.LogStore, m state, snapshot uint64) (audited, error) {
	a := audited{sizes: &sizes{}}
	first, err := logs.FirstIndex()
	if err != nil {
		return a, fmt.Errorf("the start of the log cannot be read: %w", err)
	}
	last, err := logs.LastIndex()
	if err != nil {
		return a, fmt.Errorf("the end of the log cannot be read: %w", err)
	}
	a.last = last
	if last > 0 && first > snapshot+1 {
		return a, fmt.Errorf("the log starts at entry %d, and the newest snapshot ends at %d", first, snapshot)
	}
	kept := uint64(0)
	for i := first; i > 0 && i <= last; i++ {
		var e raft.Log
		switch err := readChecked(logs, i, &e); {
		case err == nil:
			if i == m.index && m.entryCRC != 0 && (e.Term != m.term || entryCRC(&e) != m.entryCRC) {
				return a, fmt.Errorf("log entry %d is not the one that was acknowledged (term %d, was %d)", i, e.Term, m.term)
			}
			a.sizes.add(i, entrySize(&e))
			kept = i
		case i > m.index:
			a.dropFrom = i
			i = last
		case errors.Is(err, raft.ErrLogNotFound) && i <= snapshot:
			// The gap that an installed snapshot leaves.
		default:
			return a, fmt.Errorf("the log is damaged: %w", err)
		}
	}
	if reach := max(kept, snapshot); reach < m.index {
		return a, fmt.Errorf("the log is cut: entries up to %d were acknowledged, and it ends at %d", m.index, reach)
	}
	return a, nil
}

func readChecked(logs raft.LogStore, index uint64, e *raft.Log) error {
	if err := logs.GetLog(index, e); err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	return checkAt(index, e)
}

// auditVote compares the store's term and vote with the mark's.
func auditVote(s raft.StableStore, m state) error {
	current, err := uint64Of(s, keyCurrentTerm)
	if err != nil {
		return err
	}
	if current < m.currentTerm {
		return fmt.Errorf("it is of term %d, and this server has been in term %d", current, m.currentTerm)
	}
	vote, err := uint64Of(s, keyLastVoteTerm)
	if err != nil {
		return err
	}
	if vote < m.voteTerm {
		return fmt.Errorf("its vote is of term %d, and this server has voted in term %d", vote, m.voteTerm)
	}
	if vote > m.voteTerm || vote == 0 {
		return nil
	}
	candidate, err := s.Get(keyLastVoteCand)
	if err != nil {
		return fmt.Errorf("the vote cannot be read: %w", err)
	}
	if crc32.Checksum(candidate, castagnoli) != m.voteCRC {
		return fmt.Errorf("its vote of term %d is not the one that was given", vote)
	}
	return nil
}

// uint64Of reads a number that may not be there. raft-boltdb and Raft know that case only by its text.
func uint64Of(s raft.StableStore, key []byte) (uint64, error) {
	v, err := s.GetUint64(key)
	if err != nil && err.Error() != "not found" {
		return 0, fmt.Errorf("%s cannot be read: %w", key, err)
	}
	return v, nil
}

// newestSnapshot returns the index of the newest complete snapshot, 0 for none. Its content is checked when it is read.
func newestSnapshot(s raft.SnapshotStore) (uint64, error) {
	list, err := s.List()
	if err != nil {
		return 0, fmt.Errorf("the snapshots cannot be listed: %w", err)
	}
	if len(list) == 0 {
		return 0, nil
	}
	return list[0].Index, nil
}

// assemble audits the parts and puts them together. The error is not yet a RefusedError.
func assemble(logs raft.LogStore, votes raft.StableStore, snaps raft.SnapshotStore, m *mark, opt Options) (*Storage, error) {
	snapshot, err := newestSnapshot(snaps)
	if err != nil {
		return nil, err
	}
	if err := auditVote(votes, m.load()); err != nil {
		return nil, err
	}
	found, err := audit(logs, m.load(), snapshot)
	if err != nil {
		return nil, err
	}
	if found.dropFrom > 0 {
		opt.Logger.Info("log has a torn tail that was never acknowledged", "from", found.dropFrom, "to", found.last, "mark", m.load().index)
		if err := logs.DeleteRange(found.dropFrom, found.last); err != nil {
			return nil, fmt.Errorf("the torn tail from entry %d cannot be deleted: %w", found.dropFrom, err)
		}
	}
	s := &Storage{opt: opt}
	s.id.Store(new(Identity))
	s.log = &log{next: logs, mark: m, sizes: found.sizes, fatal: opt.Fatal, space: s.hasSpace}
	s.log.snapshot.Store(snapshot)
	s.Logs = s.log
	s.Stable = &stable{next: votes, log: s.log}
	s.Snapshots = snapshots{SnapshotStore: snaps, log: s.log}
	return s, nil
}

// hasSpace reports whether the log may grow. Not being able to tell is no reason to stop.
func (s *Storage) hasSpace() bool {
	free, err := s.freed()
	return err != nil || free >= s.opt.CriticalBytes
}
