package mesh

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Refusal says why a connection was not taken. Zero is welcome. Values are part of the wire format: only add.
type Refusal byte

// The reasons of a refusal.
const (
	Welcome          Refusal = iota
	RefusedProtocol          // the first byte or the hello is not ours
	RefusedCluster           // another cluster id
	RefusedServer            // this is not the wanted server
	RefusedSelf              // the peer claims this server's own id: a copied data directory
	RefusedFresh             // the peer has no cluster id; it may adopt the answerer's and come back
	RefusedAdoption          // this server has no cluster id and may not adopt the peer's (yet)
	RefusedAdmission         // Config.Admit said no (start counter or log went back, ...)
	RefusedBusy              // too many connections, or not ready to serve this kind
	RefusedSilence           // no hello within the deadline
	RefusedOldCopy           // Config.Admit said that the peer went back: its data directory is an old copy
	refusalCount
)

var refusalNames = [refusalCount]string{"welcome", "protocol", "cluster", "server", "self", "fresh", "adoption", "admission", "busy", "silence", "old_copy"}

// String names r as in the metrics.
func (r Refusal) String() string {
	if r < refusalCount {
		return refusalNames[r]
	}
	return fmt.Sprintf("refusal %d", byte(r))
}

// RefusedError is the error of a connection that either side refused.
type RefusedError struct {
	Code   Refusal
	Reason string
	// ByPeer is true when the other side refused.
	ByPeer bool
}

// Error implements error.
func (e *RefusedError) Error() string {
	if e.ByPeer {
		return "refused by peer (" + e.Code.String() + "): " + e.Reason
	}
	return "refused (" + e.Code.String() + "): " + e.Reason
}

func refuse(code Refusal, format string, args ...any) *RefusedError {
	return &RefusedError{Code: code, Reason: fmt.Sprintf(format, args...)}
}

const (
	refusalLogEvery  = time.Minute
	refusalCausesMax = 256
)

// refusals counts refused connections and logs each cause at most once a minute.
type refusals struct {
	logger *slog.Logger
	counts [refusalCount]atomic.Uint64

	mu   sync.Mutex
	last map[string]time.Time // Invariant: at most refusalCausesMax entries.
}

func newRefusals(logger *slog.Logger) *refusals {
	return &refusals{logger: logger, last: make(map[string]time.Time)}
}

// note counts err and logs it unless the same code and party were logged within the last minute.
func (r *refusals) note(err *RefusedError, party string) {
	if err.Code < refusalCount {
		r.counts[err.Code].Add(1)
	}
	if !r.due(fmt.Sprint(err.Code, err.ByPeer, party)) {
		return
	}
	msg := "peer connection refused"
	if err.ByPeer {
		msg = "peer refused our connection"
	}
	level := slog.LevelWarn
	switch err.Code {
	case RefusedFresh, RefusedAdoption, RefusedProtocol, RefusedSilence:
		level = slog.LevelInfo // part of joining, or a port scanner
	}
	r.logger.Log(context.Background(), level, msg, "peer", party, "cause", err.Code.String(), "reason", err.Reason)
}

func (r *refusals) due(key string) bool {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.last[key]; ok && now.Sub(last) < refusalLogEvery {
		return false
	}
	if len(r.last) >= refusalCausesMax {
		for k, t := range r.last {
			if now.Sub(t) >= refusalLogEvery {
				delete(r.last, k)
			}
		}
		if len(r.last) >= refusalCausesMax {
			return false // a flood of causes: the counters still tell
		}
	}
	r.last[key] = now
	return true
}

// snapshot returns the counters by name.
func (r *refusals) snapshot() map[string]uint64 {
	out := make(map[string]uint64, refusalCount-1)
	for c := RefusedProtocol; c < refusalCount; c++ {
		out[c.String()] = r.counts[c].Load()
	}
	return out
}
