package membership

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"quorate/fsm/command"
)

// The methods below are memberlist's callbacks. It calls them under its own lock: they copy what they need into the
// table and return. They are exported because memberlist's interfaces are.

// NodeMeta implements memberlist.Delegate.
func (m *Membership) NodeMeta(int) []byte { return m.meta.get().Append(nil) }

// NotifyMsg implements memberlist.Delegate; no data travels by gossip.
func (m *Membership) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (m *Membership) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (m *Membership) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (m *Membership) MergeRemoteState([]byte, bool) {}

// NotifyJoin implements memberlist.EventDelegate.
func (m *Membership) NotifyJoin(n *memberlist.Node) { m.NotifyUpdate(n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (m *Membership) NotifyUpdate(n *memberlist.Node) {
	meta, err := ParseMeta(n.Meta)
	if err != nil || meta.ServerID != command.NodeID(n.Name) || meta.ServerID == m.self {
		return
	}
	if m.table.alive(meta, time.Now()) {
		m.changed()
	}
}

// NotifyLeave implements memberlist.EventDelegate. It cannot be told whether the server left or died, and nothing
// depends on it.
func (m *Membership) NotifyLeave(n *memberlist.Node) {
	if m.table.gone(command.NodeID(n.Name), time.Now()) {
		m.changed()
	}
}

// NotifyAlive implements memberlist.AliveDelegate: members of other clusters stay out of this one's gossip.
func (m *Membership) NotifyAlive(n *memberlist.Node) error {
	meta, err := ParseMeta(n.Meta)
	if err != nil {
		return err
	}
	own := m.meta.get().ClusterHash
	if own != 0 && meta.ClusterHash != 0 && own != meta.ClusterHash {
		return fmt.Errorf("server %s (%s) belongs to another cluster", meta.ServerID, meta.Name)
	}
	return nil
}

// NotifyConflict implements memberlist.ConflictDelegate: one server id at two addresses, for a short time after a move.
func (m *Membership) NotifyConflict(existing, other *memberlist.Node) {
	m.logger.Debug("gossip has two addresses for a server", "peer", existing.Name, "addr", existing.Address(), "other", other.Address())
}

// logTo returns a log.Logger for memberlist that writes to logger.
func logTo(logger *slog.Logger) *log.Logger {
	return log.New(&gossipLog{logger: logger, last: make(map[string]time.Time)}, "", 0)
}

const (
	gossipLogEvery = time.Minute
	gossipLogMax   = 128
)

// gossipLog turns memberlist's lines into records, one level lower than it thinks (what it calls an error is a peer that
// does not answer), each text at most once a minute.
type gossipLog struct {
	logger *slog.Logger
	mu     sync.Mutex
	last   map[string]time.Time // Invariant: at most gossipLogMax entries.
}

// Write implements io.Writer for one line "[LEVEL] memberlist: text".
func (l *gossipLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level := slog.LevelDebug
	if head, rest, ok := strings.Cut(text, "] "); ok {
		text = strings.TrimPrefix(rest, "memberlist: ")
		switch strings.TrimPrefix(head, "[") {
		case "ERR":
			level = slog.LevelInfo
		}
	}
	if level > slog.LevelDebug && !l.due(text) {
		level = slog.LevelDebug
	}
	l.logger.Log(context.Background(), level, "gossip", "text", text)
	return len(line), nil
}

// due tells whether a line is to be written: one of a kind in a while. Where it came from makes no kind of its own, or
// garbage from many ports would flood the log.
func (l *gossipLog) due(text string) bool {
	text, _, _ = strings.Cut(text, " from=")
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.last[text]; ok && now.Sub(last) < gossipLogEvery {
		return false
	}
	if len(l.last) >= gossipLogMax {
		clear(l.last)
	}
	l.last[text] = now
	return true
}
