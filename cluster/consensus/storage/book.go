package storage

import (
	"encoding/json"
	"errors"
	"fmt"

	"sync"

	"quorate/fsm/command"
)

// Record is what was last seen of a peer.
type Record struct {
	// Name and Addr are labels.
	Name string `json:"name"`
	Addr string `json:"addr"`
	// Incarnation is its start counter.
	Incarnation uint64 `json:"incarnation"`
	// Committed is the highest index that it had on disk and knew to be committed: its log can never end below.
	Committed uint64 `json:"committed"`
}

// Book remembers, durably, what this server has last seen of each peer, and refuses a peer that went back: an old copy
// of its data directory, which has forgotten what it promised. Safe for concurrent use.
type Book struct {
	save func([]byte) error // durable when it returns

	writing sync.Mutex // orders the writes; held over I/O, which is its purpose

	mu      sync.Mutex
	peers   map[command.NodeID]Record
	changed bool // since the last save
}

// ErrWentBack says that a peer has forgotten what this server has seen of it.
var ErrWentBack = errors.New("peer went back")

type bookFile struct {
	Format int                       `json:"format"`
	Peers  map[command.NodeID]Record `json:"peers"`
}

func openBook(data []byte, save func([]byte) error) (*Book, error) {
	b := &Book{save: save, peers: make(map[command.NodeID]Record)}
	if data == nil {
		return b, nil
	}
	var f bookFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("peers.json cannot be read: %w", err)
	}
	if f.Format > formatVersion {
		return nil, fmt.Errorf("peers.json has format %d, this version knows %d", f.Format, formatVersion)
	}
	for id, r := range f.Peers {
		b.peers[id] = r
	}
	return b, nil
}

// Admit decides whether a peer may take part. durable is the end of its log, as it says itself. What is new about an
// admitted peer is durable before Admit returns.
func (b *Book) Admit(id command.NodeID, name, addr string, incarnation, durable uint64) error {
	b.mu.Lock()
	r, known := b.peers[id]
	if known && (incarnation < r.Incarnation || durable < r.Committed) {
		b.mu.Unlock()
		return fmt.Errorf("%w: server %s (%s) starts for the %d. time with a log up to %d, and was seen in its %d. start with a log up to %d: "+
			"its data directory is an old copy; start it with an empty one, as a new server",
			ErrWentBack, id, name, incarnation, durable, r.Incarnation, r.Committed)
	}
	next := r
	next.Name, next.Addr, next.Incarnation = name, addr, incarnation
	fresh := next != r || !known
	b.peers[id] = next
	b.changed = b.changed || fresh
	b.mu.Unlock()
	if !fresh {
		return nil
	}
	if err := b.Flush(); err != nil {
		// Not durable, so not admitted: the next hello must not find it noted and pass.
		b.mu.Lock()
		if b.peers[id] == next {
			delete(b.peers, id)
			if known {
				b.peers[id] = r
			}
		}
		b.mu.Unlock()
		return err
	}
	return nil
}

// Note takes what a peer reports while it runs: its incarnation and what it has durable and knows to be committed. It
// is written by the next Flush.
func (b *Book) Note(id command.NodeID, incarnation, committed uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, known := b.peers[id]
	if !known || incarnation < r.Incarnation || incarnation == r.Incarnation && committed <= r.Committed {
		return
	}
	r.Incarnation, r.Committed = incarnation, max(committed, r.Committed)
	b.peers[id] = r
	b.changed = true
}

// Flush makes what was noted durable.
func (b *Book) Flush() error {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	if !b.changed {
		b.mu.Unlock()
		return nil
	}
	data, err := json.MarshalIndent(bookFile{Format: formatVersion, Peers: b.peers}, "", "  ")
	b.changed = false
	b.mu.Unlock()
	if err == nil {
		err = b.save(data)
	}
	if err != nil {
		b.mu.Lock()
		b.changed = true
		b.mu.Unlock()
		return fmt.Errorf("store peers.json: %w", err)
	}
	return nil
}

// Peers returns a copy of all records.
func (b *Book) Peers() map[command.NodeID]Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[command.NodeID]Record, len(b.peers))
	for id, r := range b.peers {
		out[id] = r
	}
	return out
}

// Forget takes a peer out: it was removed from the cluster.
func (b *Book) Forget(id command.NodeID) error {
	b.mu.Lock()
	if _, ok := b.peers[id]; !ok {
		b.mu.Unlock()
		return nil
	}
	delete(b.peers, id)
	b.changed = true
	b.mu.Unlock()
	return b.Flush()
}
