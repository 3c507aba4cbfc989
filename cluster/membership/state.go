package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"quorate/fsm/command"
)

// Store keeps a few kilobytes over restarts. Save returns when they are durable; the old ones survive a failed Save.
// Calls do not overlap.
type Store interface {
	Load() ([]byte, error) // nil when there is nothing yet
	Save(data []byte) error
}

// state is what is stored, as JSON: {"version":1,"promise":...,"known":[...]}.
type state struct {
	Version int      `json:"version"`
	Promise *promise `json:"promise,omitempty"`
	Known   []Known  `json:"known"`
}

const stateVersion = 1

// promise says which cluster this server has promised to help found, or means to found itself.
type promise struct {
	ClusterID string           `json:"cluster_id"`
	Founder   command.NodeID   `json:"founder"`
	Members   []command.NodeID `json:"members"`
	// Frozen says that this server has told others that it will not be part of that cluster any more, unless the cluster
	// forms nevertheless; it still must not help found another one.
	Frozen bool `json:"frozen,omitempty"`
}

func loadState(s Store) (state, error) {
	b, err := s.Load()
	if err != nil {
		return state{}, fmt.Errorf("load membership state: %w", err)
	}
	if len(b) == 0 {
		return state{Version: stateVersion}, nil
	}
	var st state
	if err := json.Unmarshal(b, &st); err != nil {
		return state{}, fmt.Errorf("membership state is damaged (the file may be deleted if this server is in a cluster already: "+
			"the seeds will be asked again): %w", err)
	}
	if st.Version < 1 || st.Version > stateVersion {
		return state{}, fmt.Errorf("membership state has version %d, this program knows up to %d", st.Version, stateVersion)
	}
	return st, nil
}

func (st state) encode() []byte {
	b, err := json.Marshal(st)
	if err != nil {
		panic(fmt.Sprintf("membership: encode state: %v", err)) // plain data
	}
	return append(b, '\n')
}

// FileStore is a Store in a file.
type FileStore struct{ Path string }

var _ Store = FileStore{}

// Load implements Store.
func (f FileStore) Load() ([]byte, error) {
	b, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// Save implements Store: write beside, sync, rename, sync the directory.
func (f FileStore) Save(data []byte) error {
	temp := f.Path + ".tmp"
	if err := writeSynced(temp, data); err != nil {
		return err
	}
	if err := os.Rename(temp, f.Path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(f.Path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func writeSynced(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// MemoryStore is a Store in memory, for tests: it survives a simulated crash of the node that uses it. The zero value is
// empty.
type MemoryStore struct {
	mu   sync.Mutex
	data []byte
}

var _ Store = (*MemoryStore)(nil)

// Load implements Store.
func (s *MemoryStore) Load() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]byte(nil), s.data...), nil
}

// Save implements Store.
func (s *MemoryStore) Save(data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data = append([]byte(nil), data...)
	return nil
}
