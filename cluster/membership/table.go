package membership

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"quorate/cluster/mesh"
	"quorate/fsm/command"
)

// Known is what is remembered of a server, over restarts.
type Known struct {
	ID          command.NodeID `json:"id"`
	Name        string         `json:"name"`
	Addr        string         `json:"addr"`
	Incarnation uint64         `json:"incarnation"`
	LastSeen    time.Time      `json:"last_seen"`
}

// knownMax bounds what is remembered; the longest unseen one makes room.
const knownMax = 256

// table is what gossip and hellos said about other servers.
type table struct {
	self command.NodeID

	mu    sync.Mutex // leaf: taken under memberlist's lock
	live  map[command.NodeID]Meta
	known map[command.NodeID]Known // Invariant: at most knownMax; holds every live one.
	dirty bool                     // known differs from what was saved
}

func newTable(self command.NodeID, known []Known) *table {
	t := &table{self: self, live: make(map[command.NodeID]Meta), known: make(map[command.NodeID]Known)}
	for _, k := range known {
		t.known[k.ID] = k
	}
	return t
}

// alive notes that gossip calls a server alive and reports whether anything changed.
func (t *table) alive(meta Meta, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was, ok := t.live[meta.ServerID]
	t.live[meta.ServerID] = meta
	t.rememberLocked(Known{meta.ServerID, meta.Name, meta.Addr, meta.Incarnation, now})
	return !ok || was != meta
}

// gone notes that gossip no longer calls a server alive.
func (t *table) gone(id command.NodeID, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.live[id]
	delete(t.live, id)
	if k, known := t.known[id]; known && ok {
		k.LastSeen = now
		t.known[id] = k
	}
	return ok
}

// heard notes a proven hello.
func (t *table) heard(h mesh.Hello, now time.Time) bool {
	if h.Addr == "" || h.ServerID == t.self {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rememberLocked(Known{h.ServerID, h.Name, h.Addr, h.Incarnation, now})
}

// rememberLocked keeps k unless something newer is known. It reports whether address or name changed.
func (t *table) rememberLocked(k Known) bool {
	was, ok := t.known[k.ID]
	if ok && was.Incarnation > k.Incarnation {
		return false
	}
	if !ok && len(t.known) >= knownMax {
		t.evictLocked()
	}
	t.known[k.ID] = k
	changed := !ok || was.Addr != k.Addr || was.Name != k.Name
	t.dirty = t.dirty || changed
	return changed
}

// evictLocked forgets the server unseen for longest.
func (t *table) evictLocked() {
	var oldest command.NodeID
	for id, k := range t.known {
		if _, live := t.live[id]; !live && (oldest == "" || k.LastSeen.Before(t.known[oldest].LastSeen)) {
			oldest = id
		}
	}
	delete(t.known, oldest)
}

// prune forgets what has been unseen since before and is not to be kept.
func (t *table) prune(before time.Time, keep func(command.NodeID) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, k := range t.known {
		if _, live := t.live[id]; !live && k.LastSeen.Before(before) && !keep(id) {
			delete(t.known, id)
			t.dirty = true
		}
	}
}

// snapshot returns copies of what is alive and what is remembered.
func (t *table) snapshot() (live map[command.NodeID]Meta, known map[command.NodeID]Known) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.live), maps.Clone(t.known)
}

// unsaved returns what is remembered if it changed since the last call, sorted by id.
func (t *table) unsaved() ([]Known, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	dirty := t.dirty
	t.dirty = false
	return slices.SortedFunc(maps.Values(t.known), func(a, b Known) int { return strings.Compare(string(a.ID), string(b.ID)) }), dirty
}

// heard is mesh's callback for each proven hello of this cluster.
func (m *Membership) heard(h mesh.Hello) {
	if m.table.heard(h, time.Now()) {
		m.changed()
	}
}

// Members returns every server known, this one included, sorted by name and id.
func (m *Membership) Members() []Member {
	servers, _ := m.cfg.Consensus.Servers()
	live, known := m.table.snapshot()
	up := m.connected()
	now := time.Now()
	own := m.meta.get()
	members := map[command.NodeID]Member{m.self: {Meta: own, Alive: true, Connected: true, LastSeen: now}}
	for id, k := range known {
		meta := Meta{ServerID: id, Name: k.Name, Addr: k.Addr, Incarnation: k.Incarnation}
		members[id] = Member{Meta: meta, LastSeen: k.LastSeen, Connected: up[id]}
	}
	for id, meta := range live {
		members[id] = Member{Meta: meta, Alive: true, LastSeen: now, Connected: up[id]}
	}
	for _, s := range servers {
		id := command.NodeID(s.ID)
		member, ok := members[id]
		if !ok {
			member.ServerID, member.Name = id, m.nameOf(id, known)
		}
		member.InConfig, member.Meta.Voter = true, isVoter(servers, id)
		members[id] = member
	}
	return slices.SortedFunc(maps.Values(members), func(a, b Member) int {
		return strings.Compare(a.Name+"\x00"+string(a.ServerID), b.Name+"\x00"+string(b.ServerID))
	})
}

// nameOf returns the last known name of a server, "" if there is none.
func (m *Membership) nameOf(id command.NodeID, known map[command.NodeID]Known) string {
	if k, ok := known[id]; ok && k.Name != "" {
		return k.Name
	}
	if m.cfg.NameOf != nil {
		return m.cfg.NameOf(id)
	}
	return ""
}

// connected returns the servers that mesh reaches.
func (m *Membership) connected() map[command.NodeID]bool {
	up := make(map[command.NodeID]bool)
	for _, p := range m.mesh.Peers() {
		if p.Up {
			up[p.ID] = true
		}
	}
	return up
}

// forgetPeersAfter is how long mesh goes on dialling a server that is neither alive nor in the configuration.
const forgetPeersAfter = time.Minute

// fillBook brings mesh's address book in step: every server that is alive or in the configuration.
func (m *Membership) fillBook() {
	servers, _ := m.cfg.Consensus.Servers()
	live, known := m.table.snapshot()
	now := time.Now()
	wanted := make(map[command.NodeID]bool)
	for id, k := range known {
		_, isLive := live[id]
		if isLive || inConfig(servers, id) || now.Sub(k.LastSeen) < forgetPeersAfter {
			wanted[id] = true
			m.mesh.SetPeer(id, k.Addr)
		}
	}
	for _, p := range m.mesh.Peers() {
		if !wanted[p.ID] {
			m.mesh.RemovePeer(p.ID)
		}
	}
	m.table.prune(now.Add(-m.cfg.RememberFor), func(id command.NodeID) bool { return inConfig(servers, id) })
}

// runRejoin tries every address that is no live member, for ever: memberlist does not heal a long cut by itself.
func (m *Membership) runRejoin() {
	trying := make(map[string]bool)
	var mu sync.Mutex // guards trying
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		for _, addr := range m.strangers() {
			mu.Lock()
			busy := trying[addr] || len(trying) >= rejoinsMax
			if !busy {
				trying[addr] = true
			}
			mu.Unlock()
			if busy {
				continue
			}
			wg.Go(func() {
				m.join(addr)
				mu.Lock()
				delete(trying, addr)
				mu.Unlock()
			})
		}
		if !m.pause(m.rejoinPause()) {
			return
		}
	}
}

// rejoinsMax bounds joins under way.
const rejoinsMax = 32

// rejoinPause is shorter while this server is not part of a cluster: founding waits for it.
func (m *Membership) rejoinPause() time.Duration {
	if m.mesh.ClusterID() == "" {
		return min(m.cfg.RejoinInterval, time.Second)
	}
	return m.cfg.RejoinInterval
}

func (m *Membership) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.ctx.Done():
		return false
	}
}

// strangers returns the seeds and remembered addresses that no live member has, sorted.
func (m *Membership) strangers() []string {
	live, known := m.table.snapshot()
	members := map[string]bool{m.mesh.Addr(): true}
	for _, meta := range live {
		members[meta.Addr] = true
	}
	addrs := make(map[string]bool)
	for _, addr := range m.cfg.Seeds {
		addrs[addr] = true
	}
	for _, k := range known {
		addrs[k.Addr] = true
	}
	maps.DeleteFunc(addrs, func(addr string, _ bool) bool { return members[addr] })
	return slices.Sorted(maps.Keys(addrs))
}

// join exchanges the member list with whoever is at addr.
func (m *Membership) join(addr string) {
	targets, err := m.resolve(addr)
	if err != nil {
		m.logger.Debug("seed not resolved", "addr", addr, "err", err)
		return
	}
	own := m.mesh.Addr()
	targets = slices.DeleteFunc(targets, func(t string) bool { return t == own })
	if len(targets) == 0 {
		return
	}
	if _, err := m.list.Join(targets); err != nil {
		m.logger.Debug("no answer from address", "addr", addr, "err", err)
	}
}

// resolve turns a seed into addresses with IPs, here rather than in memberlist, which asks DNS servers by itself.
func (m *Membership) resolve(addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) != nil {
		return []string{addr}, nil
	}
	ctx, cancel := context.WithTimeout(m.ctx, gossipTimeout)
	defer cancel()
	ips, err := m.cfg.Resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	for i := range ips {
		ips[i] = net.JoinHostPort(ips[i], port)
	}
	return ips, nil
}
