package membership

import (
	"slices"
	"time"

	"quorate/fsm/command"
)

// This file is about promises whose founder is silent.

// doubtLocked asks what has become of a promised founding. The caller holds f.mu.
func (f *founding) doubtLocked() {
	now := time.Now()
	p := f.promise
	up := f.world.connected()
	if up[p.Founder] {
		f.lostSince = time.Time{}
	} else if f.lostSince.IsZero() {
		f.lostSince = now
	}
	if now.Sub(f.queriedAt) < queryEvery {
		return
	}
	f.queriedAt = now
	query := message{Op: opQuery, ClusterID: p.ClusterID, Founder: p.Founder}
	if up[p.Founder] {
		f.world.send(p.Founder, query)
	}
	if !p.Frozen && !f.lostLocked(now) {
		return
	}
	f.freezeLocked()
	for _, id := range f.othersLocked() {
		f.world.send(id, query)
	}
	f.concludeLocked()
}

// lostLocked reports whether the founder has been unreachable for long enough to question its promises.
func (f *founding) lostLocked(now time.Time) bool {
	return !f.lostSince.IsZero() && now.Sub(f.lostSince) >= f.cfg.PromiseLostAfter
}

// othersLocked returns the members of the promised cluster besides the founder and this server.
func (f *founding) othersLocked() []command.NodeID {
	return slices.DeleteFunc(slices.Clone(f.promise.Members), func(id command.NodeID) bool {
		return id == f.self || id == f.promise.Founder
	})
}

// takenUpBy reports whether a server of the promised cluster that belongs to it lets this one belong too. A frozen
// promise is taken up again by any member but the founder: that member, being part of the cluster, has never said that it
// will not be, so nobody can have dropped the promise for good.
func (p *promise) takenUpBy(id command.NodeID) bool {
	return slices.Contains(p.Members, id) && (!p.Frozen || id != p.Founder)
}

// freezeLocked resolves, durably, never to be part of the promised cluster unless it forms without this server. The
// promise is still kept: others may not have resolved the same.
func (f *founding) freezeLocked() {
	if f.promise.Frozen {
		return
	}
	frozen := *f.promise
	frozen.Frozen = true
	lost := f.lostSince
	if err := f.save(&frozen); err != nil {
		f.logger.Error("promise not questioned", "err", err)
		return
	}
	f.lostSince = lost
	f.logger.Warn("founder of a promised cluster is gone, asking the others", "cluster", frozen.ClusterID, "founder", frozen.Founder)
}

// concludeLocked drops the promise when no other member can be part of the cluster any more either: its founder alone is
// no majority of two or more.
func (f *founding) concludeLocked() {
	if !f.promise.Frozen {
		return
	}
	for _, id := range f.othersLocked() {
		if !f.fates[id] {
			f.problems.report("promise", "this server has promised to help found a cluster with server "+string(f.promise.Founder)+
				", which is gone, and server "+string(id)+" does not say that it is free too: "+
				"start them, or delete this server's (empty) data directory and start it again")
			return
		}
	}
	f.logger.Info("promise dropped: its founder is gone and nobody else keeps it", "cluster", f.promise.ClusterID)
	f.dropLocked()
}

// fateOf answers what this server knows of a founding.
func (f *founding) fateOf(l letter) fate {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.promise
	ours := f.world.clusterID()
	switch {
	case ours == l.ClusterID:
		return fateFormed
	case p == nil || p.ClusterID != l.ClusterID:
		if !f.refuseLocked(l.ClusterID) {
			return fatePending
		}
		return fateDead
	case p.Founder == f.self && f.attempt == nil && !f.bootstrapped():
		return fateDead // a restarted founder: step drops it
	case p.Frozen:
		return fateDead
	}
	return fatePending
}

// bootstrapped reports whether this server has a Raft log.
func (f *founding) bootstrapped() bool {
	_, lastIndex := f.cfg.Consensus.Servers()
	return lastIndex > 0
}

// learned takes an answer about a founding.
func (f *founding) learned(l letter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.promise
	if p == nil || p.Founder == f.self || p.ClusterID != l.ClusterID || f.world.clusterID() != "" {
		return
	}
	switch {
	case l.from == p.Founder && l.Fate == fateDead:
		f.logger.Info("promise dropped: its founder has given up", "cluster", p.ClusterID, "founder", p.Founder)
		f.dropLocked()
	case l.Fate == fateDead && slices.Contains(p.Members, l.from):
		f.fates[l.from] = true
		if p.Frozen {
			f.concludeLocked()
		}
	case l.Fate == fateFormed:
		f.lostSince = time.Time{}
	}
}
