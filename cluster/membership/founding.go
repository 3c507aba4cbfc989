package membership

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/mesh"
	"quorate/fsm/command"
)

// founding is the part of a Membership that lasts until this server belongs to a cluster. See the package comment for
// the protocol.
//
// Its mutex is held over Store.Save and Config.SaveClusterID, against the house rule: a decision must be durable before
// the next one may be made, and nobody else waits for it but mesh's handshakes of a server without a cluster.
type founding struct {
	m *Membership

	mu      sync.Mutex
	promise *promise // what Store holds. Invariant: saved before anybody is told.
	attempt *attempt // this server is asking for promises. Invariant: promise is then its own.
	// refused are clusters that this process will make no promise for: it has said that they are dead.
	refused map[string]bool
	// fates are what members of a doubtful founding answered: true = never a part of it any more.
	fates       map[command.NodeID]bool
	lostSince   time.Time // since when the founder of promise has been unreachable; zero when it is not
	queriedAt   time.Time
	view        []command.NodeID // the servers seen last, to tell whether they settle
	viewSince   time.Time
	pauseUntil  time.Time // after a failed attempt
	saidWaiting time.Time
	founded     bool   // this server belongs to a cluster
	announcing  string // a durable cluster id that mesh is to be told, without f.mu: mesh calls adopt under its own lock
}

// attempt is one founding under way.
type attempt struct {
	clusterID string
	members   []command.NodeID
	granted   map[command.NodeID]bool
	began     time.Time
}

const (
	queryEvery   = 2 * time.Second
	waitingEvery = 30 * time.Second
)

func newFounding(m *Membership, p *promise) *founding {
	return &founding{m: m, promise: p, refused: make(map[string]bool), fates: make(map[command.NodeID]bool)}
}

// runFounding handles membership messages for ever, and founds a cluster while there is none.
func (m *Membership) runFounding() {
	tick := time.NewTicker(m.cfg.CheckInterval)
	defer tick.Stop()
	saved := time.Now()
	for {
		select {
		case l := <-m.inbox:
			m.dispatch(l)
			continue
		case <-m.wake:
		case <-tick.C:
		case <-m.ctx.Done():
			return
		}
		m.fillBook()
		m.founding.step()
		m.founding.announce()
		m.refreshMeta()
		m.checkName()
		if now := time.Now(); now.Sub(saved) >= rememberEvery {
			saved = now
			if err := m.founding.remember(); err != nil {
				m.logger.Warn("remembered addresses not saved", "err", err)
			}
		}
	}
}

// rememberEvery bounds how often changed addresses are written.
const rememberEvery = 10 * time.Second

// dispatch handles one message.
func (m *Membership) dispatch(l letter) {
	switch l.Op {
	case opAsk:
		reason := m.founding.asked(l)
		m.send(l.from, message{Op: opPromise, ClusterID: l.ClusterID, OK: reason == "", Reason: reason})
	case opPromise:
		m.founding.answered(l)
	case opRelease:
		m.founding.released(l)
	case opQuery:
		m.send(l.from, message{Op: opFate, ClusterID: l.ClusterID, Fate: m.founding.fateOf(l)})
	case opFate:
		m.founding.learned(l)
	case opRemove:
		m.serveRemoval(l)
	case opRemoved:
		m.asked.answer(l.Request, l.message)
	}
	m.founding.announce()
	m.refreshMeta()
}

// announce tells mesh the id of the cluster that this server has founded.
func (f *founding) announce() {
	f.mu.Lock()
	id := f.announcing
	f.announcing = ""
	f.mu.Unlock()
	if id != "" {
		f.m.mesh.SetClusterID(id)
	}
}

// refusedMax bounds the foundings remembered as dead; beyond it this server calls none dead any more.
const refusedMax = 4096

// refuseLocked resolves to make no promise for a cluster id in the life of this process; false means it cannot remember
// more.
func (f *founding) refuseLocked(clusterID string) bool {
	if !f.refused[clusterID] && len(f.refused) >= refusedMax {
		return false
	}
	f.refused[clusterID] = true
	return true
}

// save makes p the promise, durably. The caller holds f.mu.
func (f *founding) save(p *promise) error {
	known, _ := f.m.table.unsaved()
	if err := f.m.cfg.Store.Save(state{Version: stateVersion, Promise: p, Known: known}.encode()); err != nil {
		return fmt.Errorf("save membership state: %w", err)
	}
	f.promise = p
	f.lostSince, f.queriedAt = time.Time{}, time.Time{}
	clear(f.fates)
	return nil
}

// remember saves changed addresses.
func (f *founding) remember() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	known, dirty := f.m.table.unsaved()
	if !dirty {
		return nil
	}
	return f.m.cfg.Store.Save(state{Version: stateVersion, Promise: f.promise, Known: known}.encode())
}

// step moves founding on as far as the world allows.
func (f *founding) step() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.founded {
		return
	}
	servers, lastIndex := f.m.cfg.Consensus.Servers()
	switch {
	case f.m.mesh.ClusterID() != "":
		f.settleLocked(lastIndex)
	case lastIndex > 0:
		f.finishLocked(servers)
	case f.promise != nil && f.promise.Founder != f.m.self:
		f.doubtLocked()
	case f.attempt != nil:
		if time.Since(f.attempt.began) > f.m.cfg.PromiseTimeout {
			f.abandonLocked("not every server answered in time")
		}
	case f.promise != nil: // a restart in the middle of an attempt that got nowhere: it is dead
		f.dropLocked()
	case f.m.cfg.Expect > 0 && !f.m.isLeaving():
		f.considerLocked()
	}
}

// settleLocked ends founding: this server belongs to a cluster. One that it has helped to found gets the same first
// configuration here too, so that the others can elect a leader should the founder die before it has led.
func (f *founding) settleLocked(lastIndex uint64) {
	f.attempt = nil
	p := f.promise
	if p != nil && p.ClusterID == f.m.mesh.ClusterID() && !p.Frozen && lastIndex == 0 {
		if err := f.m.cfg.Consensus.Bootstrap(voters(p.Members)); err != nil {
			f.m.logger.Debug("first configuration comes from the leader", "err", err)
		}
	}
	if p != nil && f.save(nil) != nil {
		return // again at the next step
	}
	f.founded = true
}

func voters(ids []command.NodeID) []raft.Server {
	servers := make([]raft.Server, len(ids))
	for i, id := range ids {
		servers[i] = raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)}
	}
	return servers
}

// finishLocked completes the founding of a server whose Raft log was bootstrapped: it crashed before it saved the id.
func (f *founding) finishLocked(servers []raft.Server) {
	if f.promise == nil || f.promise.Founder != f.m.self {
		f.m.problems.report("no cluster id", fmt.Sprintf("this server has a Raft log of %d servers but no cluster id, and the note that would tell it is gone: delete its data directory and start it again", len(servers)))
		return
	}
	id := f.promise.ClusterID
	if err := f.m.cfg.SaveClusterID(id); err != nil {
		f.m.logger.Error("cluster id not saved", "err", err)
		return
	}
	f.attempt = nil
	f.announcing = id
	f.m.logger.Info("cluster founded", "cluster", id, "servers", len(servers))
}

// considerLocked starts an attempt when this server sees enough others and is the one to do it.
func (f *founding) considerLocked() {
	now := time.Now()
	view, waiting := f.m.candidates()
	if !slices.Equal(view, f.view) {
		f.view, f.viewSince = view, now
	}
	n := f.m.cfg.Expect
	if waiting == "" && len(view) < n {
		waiting = fmt.Sprintf("%d of %d servers are there", len(view), n)
	}
	if waiting == "" && view[0] != f.m.self {
		waiting = "server " + string(view[0]) + " is to found the cluster"
	}
	if waiting != "" {
		if now.Sub(f.saidWaiting) >= waitingEvery {
			f.saidWaiting = now
			f.m.logger.Info("waiting for a cluster", "because", waiting)
		}
		return
	}
	if n > 1 && now.Sub(f.viewSince) < f.m.cfg.SettleTime || now.Before(f.pauseUntil) {
		return
	}
	f.beginLocked(view[:n])
}

// beginLocked notes the attempt durably and asks the others. Each is asked once: a member that has said no for good must
// not find a second request in the pipe.
func (f *founding) beginLocked(members []command.NodeID) {
	up := f.m.connected()
	for _, id := range members {
		if id != f.m.self && !up[id] {
			return // mesh is still dialling
		}
	}
	a := &attempt{clusterID: newClusterID(), members: slices.Clone(members), granted: make(map[command.NodeID]bool), began: time.Now()}
	if err := f.save(&promise{ClusterID: a.clusterID, Founder: f.m.self, Members: a.members}); err != nil {
		f.m.logger.Error("cluster not founded", "err", err)
		return
	}
	f.attempt = a
	f.m.logger.Info("founding a cluster", "cluster", a.clusterID, "servers", len(members))
	for _, id := range members {
		if id != f.m.self && !f.m.send(id, message{Op: opAsk, ClusterID: a.clusterID, Founder: f.m.self, Expect: f.m.cfg.Expect, Members: a.members}) {
			f.abandonLocked("server " + string(id) + " went away")
			return
		}
	}
	f.tryBootstrapLocked()
}

func newClusterID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// abandonLocked gives the attempt up and releases the promises made for it. Nobody bootstraps its id any more.
func (f *founding) abandonLocked(reason string) {
	a := f.attempt
	f.attempt = nil
	f.m.logger.Info("founding given up", "cluster", a.clusterID, "because", reason)
	f.dropLocked()
	for _, id := range a.members {
		if id != f.m.self {
			f.m.send(id, message{Op: opRelease, ClusterID: a.clusterID}) // one that misses it will ask
		}
	}
	f.pauseUntil = time.Now().Add(f.m.cfg.CheckInterval)
}

// dropLocked forgets the promise.
func (f *founding) dropLocked() {
	f.refuseLocked(f.promise.ClusterID)
	if err := f.save(nil); err != nil {
		f.m.logger.Error("promise not dropped", "err", err)
	}
}

// answered takes a promise, or a refusal.
func (f *founding) answered(l letter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.attempt
	if a == nil || a.clusterID != l.ClusterID || !slices.Contains(a.members, l.from) {
		return
	}
	if !l.OK {
		f.abandonLocked("server " + string(l.from) + ": " + l.Reason)
		return
	}
	a.granted[l.from] = true
	f.tryBootstrapLocked()
}

// tryBootstrapLocked bootstraps once everybody has promised.
func (f *founding) tryBootstrapLocked() {
	a := f.attempt
	if len(a.granted) < len(a.members)-1 {
		return
	}
	servers := voters(a.members)
	if err := f.m.cfg.Consensus.Bootstrap(servers); err != nil {
		f.m.logger.Error("bootstrap", "err", err)
		if _, lastIndex := f.m.cfg.Consensus.Servers(); lastIndex == 0 {
			f.abandonLocked("bootstrap failed")
			return
		}
	}
	f.finishLocked(servers)
}

// asked decides on a request for a promise. It returns "" once the promise is durable, or why there is none.
func (f *founding) asked(l letter) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if reason := f.objectionLocked(l); reason != "" {
		return reason
	}
	if f.promise != nil && f.promise.ClusterID == l.ClusterID {
		return ""
	}
	if f.attempt != nil { // the lower id goes first
		f.abandonLocked("server " + string(l.from) + " founds one")
	}
	if err := f.save(&promise{ClusterID: l.ClusterID, Founder: l.from, Members: l.Members}); err != nil {
		f.m.logger.Error("promise not given", "err", err)
		return "promise not saved"
	}
	f.m.logger.Info("promised to help found a cluster", "cluster", l.ClusterID, "founder", l.from)
	return ""
}

// objectionLocked returns why there is no promise for l.
func (f *founding) objectionLocked(l letter) string {
	_, lastIndex := f.m.cfg.Consensus.Servers()
	switch {
	case f.m.mesh.ClusterID() != "" || lastIndex > 0:
		return "this server belongs to a cluster already"
	case f.refused[l.ClusterID]:
		return "that founding was given up"
	case f.promise != nil && f.promise.ClusterID == l.ClusterID && !f.promise.Frozen:
		return ""
	case l.Founder != l.from || !slices.Contains(l.Members, f.m.self) || slices.Min(l.Members) != l.from:
		return "the request is not in order"
	case l.Expect != f.m.cfg.Expect || l.Expect != len(l.Members):
		reason := fmt.Sprintf("this server was started with --expect %d, server %s with --expect %d: use the same number everywhere", f.m.cfg.Expect, l.from, l.Expect)
		f.m.problems.report("expect "+string(l.from), reason)
		return reason
	case f.promise != nil && f.promise.Founder != f.m.self:
		return "promised to server " + string(f.promise.Founder)
	case f.attempt != nil && l.from > f.m.self:
		return "server " + string(f.m.self) + " founds one itself"
	case f.m.isLeaving():
		return "this server is leaving"
	case f.m.clusterInSight():
		return "there is a cluster already"
	}
	return ""
}

// released voids a promise.
func (f *founding) released(l letter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.promise; p != nil && p.Founder == l.from && p.ClusterID == l.ClusterID && f.m.mesh.ClusterID() == "" {
		f.dropLocked()
		return
	}
	f.refuseLocked(l.ClusterID)
}

// Adopt decides whether this server takes over the cluster id of a peer, and makes it durable. It is mesh.Config.Adopt.
func (m *Membership) Adopt(h mesh.Hello) error { return m.founding.adopt(h) }

func (f *founding) adopt(h mesh.Hello) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, lastIndex := f.m.cfg.Consensus.Servers()
	p := f.promise
	switch {
	case lastIndex > 0:
		return fmt.Errorf("this server has a Raft log of its own, so it cannot join cluster %s", h.ClusterID)
	case p != nil && p.ClusterID == h.ClusterID && (h.Formed() || !p.Frozen && slices.Contains(p.Members, h.ServerID)):
	case p != nil && p.Founder != f.m.self:
		return fmt.Errorf("this server has promised to help found cluster %s", p.ClusterID)
	case !h.Formed():
		return fmt.Errorf("cluster %s has had no leader yet", h.ClusterID)
	}
	if f.attempt != nil {
		f.abandonLocked("there is a cluster already")
	}
	if err := f.m.cfg.SaveClusterID(h.ClusterID); err != nil {
		return fmt.Errorf("save cluster id: %w", err)
	}
	signal(f.m.wake)
	return nil
}

// candidates returns the servers that could found a cluster with this one, itself included, sorted; or why it has to
// wait. What an operator has to put right is reported.
func (m *Membership) candidates() (ids []command.NodeID, waiting string) {
	live, _ := m.table.snapshot()
	ids = []command.NodeID{m.self}
	names := map[string]command.NodeID{m.cfg.Name: m.self}
	for _, id := range sortedIDs(live) {
		meta := live[id]
		switch {
		case meta.ClusterHash != 0 || meta.HasLog:
			waiting = "server " + string(id) + " (" + meta.Name + ") has a cluster, which must add this one"
		case meta.Leaving || meta.Expect == 0:
		case meta.Expect != m.cfg.Expect:
			m.problems.report("expect "+string(id), fmt.Sprintf("server %s (%s at %s) was started with --expect %d, this one with --expect %d: use the same number everywhere",
				id, meta.Name, meta.Addr, meta.Expect, m.cfg.Expect))
		case names[meta.Name] != "" && names[meta.Name] != m.self: // the lower id has the name; checkName reports it
		case names[meta.Name] == m.self && id > m.self:
		case names[meta.Name] == m.self:
			waiting = "server " + string(id) + " has this server's name"
		default:
			names[meta.Name] = id
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, waiting
}

func sortedIDs(live map[command.NodeID]Meta) []command.NodeID {
	ids := make([]command.NodeID, 0, len(live))
	for id := range live {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b command.NodeID) int { return strings.Compare(string(a), string(b)) })
	return ids
}

// clusterInSight reports whether gossip knows a living member of a cluster.
func (m *Membership) clusterInSight() bool {
	live, _ := m.table.snapshot()
	for _, meta := range live {
		if meta.ClusterHash != 0 || meta.HasLog {
			return true
		}
	}
	return false
}
