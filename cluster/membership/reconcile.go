package membership

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"quorate/fsm/command"
)

// action is one change of the Raft configuration.
type action struct {
	change change
	id     command.NodeID
	why    string
}

type change string

const (
	addNonvoter change = "add non-voter"
	promote     change = "promote"
	remove      change = "remove"
)

// standing is what the leader knows of one server when it reconciles.
type standing struct {
	id       command.NodeID
	name     string
	addr     string
	inConfig bool
	voter    bool
	// alive is gossip's hint; reachable is the leader's own evidence. joinable: alive, connected, of no other cluster, and
	// never a member before.
	alive, reachable, joinable bool
	leaving                    bool
	// lost is how long the leader, gossip and mesh have all not reached it; ready, that it has been caught up for
	// StableAfter.
	lost  time.Duration
	ready bool
}

// plan returns the next change of the configuration, and what an operator should know. It changes nothing itself. at is
// sorted by id.
func plan(at []standing, cfg *Config) (next *action, complaints map[string]string) {
	complaints = make(map[string]string)
	for _, step := range []func([]standing, *Config, map[string]string) *action{planReplacement, planPromotion, planAddition} {
		if next = step(at, cfg, complaints); next != nil {
			return next, complaints
		}
	}
	return nil, complaints
}

// planReplacement removes a server whose place a new one of its name is ready to take: the new one is a non-voter
// already and, if the old one has a vote, has caught up; the old one has long been unreachable while the others are a
// majority of all voters, the old one counted.
func planReplacement(at []standing, cfg *Config, _ map[string]string) *action {
	for _, fresh := range at {
		if !fresh.inConfig || fresh.voter || !fresh.alive {
			continue
		}
		old := predecessor(at, fresh)
		if old == nil || old.lost < cfg.ReplaceAfter || old.voter && (!fresh.ready || !majorityWithout(at, old.id)) {
			continue
		}
		return &action{remove, old.id, fmt.Sprintf("server %s has taken the place of %s", fresh.id, old.name)}
	}
	return nil
}

// predecessor returns another configured server with the name of s, nil if there is none.
func predecessor(at []standing, s standing) *standing {
	for i := range at {
		if o := &at[i]; o.id != s.id && o.inConfig && o.name == s.name && s.name != "" {
			return o
		}
	}
	return nil
}

// majorityWithout reports whether the reachable voters besides id are a majority of all voters.
func majorityWithout(at []standing, id command.NodeID) bool {
	voters, reachable := 0, 0
	for _, s := range at {
		if s.voter {
			voters++
			if s.reachable && s.id != id {
				reachable++
			}
		}
	}
	return reachable >= voters/2+1
}

// planPromotion gives a vote to caught-up servers, towards the largest odd number they allow: an even number of voters
// survives no more failures than one less, and needs one more for each commit.
func planPromotion(at []standing, cfg *Config, _ map[string]string) *action {
	voters := 0
	var ready []standing
	for _, s := range at {
		switch {
		case s.voter:
			voters++
		case s.inConfig && s.ready && !s.leaving && predecessor(at, s) == nil:
			ready = append(ready, s)
		}
	}
	target := min(cfg.VotersMax, voters+len(ready))
	if target%2 == 0 {
		target--
	}
	if len(ready) == 0 || voters >= target {
		return nil
	}
	return &action{promote, ready[0].id, fmt.Sprintf("%d voters, %d wanted", voters, target)}
}

// planAddition adds a new server as a non-voter, unless its name belongs to a configured server that may be alive.
func planAddition(at []standing, cfg *Config, complaints map[string]string) *action {
	taken := make(map[string]command.NodeID)
	for _, s := range at {
		if s.inConfig || !s.joinable || s.leaving {
			continue
		}
		if first, ok := taken[s.name]; ok {
			complaints["name "+string(s.id)] = nameTaken(s.name, s.id, s.addr, first, "")
			continue
		}
		taken[s.name] = s.id
		if old := predecessor(at, s); old != nil && old.lost < cfg.ReplaceAfter {
			if old.reachable && old.addr != s.addr {
				complaints["name "+string(s.id)] = nameTaken(s.name, s.id, s.addr, old.id, old.addr)
			}
			continue
		}
		return &action{addNonvoter, s.id, "new server"}
	}
	return nil
}

// nameTaken tells an operator what to do about two live servers of one name.
func nameTaken(name string, id command.NodeID, addr string, owner command.NodeID, ownerAddr string) string {
	at := ""
	if ownerAddr != "" {
		at = " at " + ownerAddr
	}
	return fmt.Sprintf("the name %q of server %s at %s is in use by live server %s%s: "+
		"give one of them another --name, or stop the one that is not wanted", name, id, addr, owner, at)
}

// observer remembers, while this server leads, since when others are lost or caught up.
type observer struct {
	lostSince  map[command.NodeID]time.Time
	readySince map[command.NodeID]time.Time
	removed    map[command.NodeID]time.Time // lately: not to be added again before their meta data tells
}

func newObserver() *observer {
	return &observer{
		lostSince: make(map[command.NodeID]time.Time), readySince: make(map[command.NodeID]time.Time),
		removed: make(map[command.NodeID]time.Time),
	}
}

// observe collects what the leader knows now, sorted by id.
func (m *Membership) observe(o *observer) []standing {
	now := time.Now()
	servers, _ := m.cfg.Consensus.Servers()
	live, known := m.table.snapshot()
	up := m.connected()
	ids := make(map[command.NodeID]bool)
	for _, s := range servers {
		ids[command.NodeID(s.ID)] = true
	}
	for id := range live {
		ids[id] = true
	}
	ownApplied, _, _ := m.cfg.Consensus.Progress(m.self)
	ownHash := m.meta.get().ClusterHash
	at := make([]standing, 0, len(ids))
	for id := range ids {
		meta, alive := live[id]
		applied, silent, ok := m.cfg.Consensus.Progress(id)
		s := standing{
			id: id, name: m.nameOf(id, known), addr: known[id].Addr,
			inConfig: inConfig(servers, id), voter: isVoter(servers, id),
			alive:     alive || id == m.self,
			reachable: id == m.self || ok && silent < m.cfg.SilentAfter,
			leaving:   meta.Leaving,
		}
		if id == m.self {
			s.name, s.addr = m.cfg.Name, m.mesh.Addr()
		}
		s.joinable = alive && up[id] && !m.wasMember(meta) && (meta.ClusterHash == 0 || meta.ClusterHash == ownHash) &&
			now.Sub(o.removed[id]) > forgetPeersAfter
		// A server that Raft or mesh still reaches is not lost, whatever gossip says; one that only gossip knows may be.
		s.lost = since(o.lostSince, id, !s.reachable && !up[id] && !alive, now)
		caughtUp := s.inConfig && s.reachable && s.alive && applied+m.cfg.LagMax >= ownApplied && applied > 0
		s.ready = caughtUp && since(o.readySince, id, caughtUp, now) >= m.cfg.StableAfter
		at = append(at, s)
	}
	slices.SortFunc(at, func(a, b standing) int { return strings.Compare(string(a.id), string(b.id)) })
	return at
}

// wasMember reports whether a server outside the configuration was removed from it. One that has a log but is unknown to
// the replicated state was not: a leader added it, sent it entries, and died before the addition was committed.
func (m *Membership) wasMember(meta Meta) bool {
	return meta.HasLog && (m.cfg.NameOf == nil || m.cfg.NameOf(meta.ServerID) != "")
}

// since keeps in times since when a condition holds and returns for how long that has been.
func since(times map[command.NodeID]time.Time, id command.NodeID, holds bool, now time.Time) time.Duration {
	if !holds {
		delete(times, id)
		return 0
	}
	first, ok := times[id]
	if !ok {
		times[id], first = now, now
	}
	return now.Sub(first)
}

// runReconcile brings the configuration in step while this server leads, one change at a time.
func (m *Membership) runReconcile() {
	tick := time.NewTicker(m.cfg.CheckInterval)
	defer tick.Stop()
	var o *observer
	for {
		select {
		case <-m.leading:
		case <-tick.C:
		case r := <-m.removals:
			r.result <- m.removeNow(r)
			if o != nil {
				o.removed[r.id] = time.Now()
			}
			continue
		case <-m.ctx.Done():
			return
		}
		if !m.cfg.Consensus.IsLeader() {
			o = nil
			continue
		}
		if o == nil {
			o = newObserver()
		}
		m.reconcile(o)
	}
}

// reconcile makes at most one change.
func (m *Membership) reconcile(o *observer) {
	next, complaints := plan(m.observe(o), &m.cfg)
	for subject, text := range complaints {
		m.problems.report(subject, text)
	}
	if next == nil {
		return
	}
	m.logger.Info("changing the cluster", "change", string(next.change), "peer", next.id, "because", next.why)
	if err := m.apply(*next); err != nil {
		m.logger.Warn("cluster not changed", "change", string(next.change), "peer", next.id, "err", err)
		m.pause(m.cfg.CheckInterval)
		return
	}
	delete(o.readySince, next.id)
	if next.change == remove {
		o.removed[next.id] = time.Now()
	}
	signal(m.leading) // there may be more to do
}

func (m *Membership) apply(a action) error {
	ctx, cancel := context.WithTimeout(m.ctx, m.cfg.ChangeTimeout)
	defer cancel()
	switch a.change {
	case addNonvoter:
		return m.cfg.Consensus.AddNonvoter(ctx, a.id)
	case promote:
		return m.cfg.Consensus.Promote(ctx, a.id)
	default:
		return m.cfg.Consensus.Remove(ctx, a.id)
	}
}

func inConfig(servers []raft.Server, id command.NodeID) bool {
	return slices.ContainsFunc(servers, func(s raft.Server) bool { return s.ID == raft.ServerID(id) })
}

func isVoter(servers []raft.Server, id command.NodeID) bool {
	return slices.ContainsFunc(servers, func(s raft.Server) bool {
		return s.ID == raft.ServerID(id) && s.Suffrage == raft.Voter
	})
}
