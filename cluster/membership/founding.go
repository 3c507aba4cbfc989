package membership

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
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
	self     command.NodeID
	cfg      *Config
	world    world
	logger   *slog.Logger
	problems *problems

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

// world is what founding sees and does; Membership is one, and tests have others.
type world interface {
	clusterID() string
	setClusterID(id string)
	// connected returns the servers that send reaches.
	connected() map[command.NodeID]bool
	// send queues a message, at most once and in order, or returns false.
	send(to command.NodeID, msg message) bool
	// candidates returns the servers to found a cluster with, sorted, or why to wait.
	candidates() (ids []command.NodeID, waiting string)
	clusterInSight() bool
	isLeaving() bool
	unsaved() ([]Known, bool)
	changed()
}

var _ world = (*Membership)(nil)

func (m *Membership) clusterID() string        { return m.mesh.ClusterID() }
func (m *Membership) setClusterID(id string)   { m.mesh.SetClusterID(id) }
func (m *Membership) unsaved() ([]Known, bool) { return m.table.unsaved() }

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

func newFounding(cfg *Config, w world, problems *problems, p *promise) *founding {
	return &founding{
		self: cfg.ServerID, cfg: cfg, world: w, logger: cfg.Logger, problems: problems,
		promise: p, refused: make(map[string]bool), fates: make(map[command.NodeID]bool),
	}
}

// handle handles one message about a founding.
func (f *founding) handle(l letter) {
	switch l.Op {
	case opAsk:
		reason := f.asked(l)
		f.world.send(l.from, message{Op: opPromise, ClusterID: l.ClusterID, OK: reason == "", Reason: reason})
	case opPromise:
		f.answered(l)
	case opRelease:
		f.released(l)
	case opQuery:
		f.world.send(l.from, message{Op: opFate, ClusterID: l.ClusterID, Fate: f.fateOf(l)})
	case opFate:
		f.learned(l)
	}
	f.announce()
}

// announce tells mesh the id of the cluster that this server has founded.
func (f *founding) announce() {
	f.mu.Lock()
	id := f.announcing
	f.announcing = ""
	f.mu.Unlock()
	if id != "" {
		f.world.setClusterID(id)
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
	known, _ := f.world.unsaved()
	if err := f.cfg.Store.Save(state{Version: stateVersion, Promise: p, Known: known}.encode()); err != nil {
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
	known, dirty := f.world.unsaved()
	if !dirty {
		return nil
	}
	return f.cfg.Store.Save(state{Version: stateVersion, Promise: f.promise, Known: known}.encode())
}

// step moves founding on as far as the world allows.
func (f *founding) step() {
	f.stepOnce()
	f.announce()
}

func (f *founding) stepOnce() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.founded {
		return
	}
	servers, lastIndex := f.cfg.Consensus.Servers()
	switch {
	case f.world.clusterID() != "":
		f.settleLocked(lastIndex)
	case lastIndex > 0:
		f.finishLocked(servers)
	case f.promise != nil && f.promise.Founder != f.self:
		f.doubtLocked()
	case f.attempt != nil:
		if time.Since(f.attempt.began) > f.cfg.PromiseTimeout {
			f.abandonLocked("not every server answered in time")
		}
	case f.promise != nil: // a restart in the middle of an attempt that got nowhere: it is dead
		f.dropLocked()
	case f.cfg.Expect > 0 && !f.world.isLeaving():
		f.considerLocked()
	}
}

// settleLocked ends founding: this server belongs to a cluster. One that it has helped to found gets the same first
// configuration here too, so that the others can elect a leader should the founder die before it has led.
func (f *founding) settleLocked(lastIndex uint64) {
	f.attempt = nil
	p := f.promise
	if p != nil && p.ClusterID == f.world.clusterID() && !p.Frozen && lastIndex == 0 {
		if err := f.cfg.Consensus.Bootstrap(voters(p.Members)); err != nil {
			f.logger.Debug("first configuration comes from the leader", "err", err)
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
	if f.promise == nil || f.promise.Founder != f.self {
		f.problems.report("no cluster id", fmt.Sprintf("this server has a Raft log of %d servers but no cluster id, "+
			"and the note that would tell it is gone: delete its data directory and start it again", len(servers)))
		return
	}
	id := f.promise.ClusterID
	if err := f.cfg.SaveClusterID(id); err != nil {
		f.logger.Error("cluster id not saved", "err", err)
		return
	}
	f.attempt = nil
	f.announcing = id
	f.logger.Info("cluster founded", "cluster", id, "servers", len(servers))
}

// considerLocked starts an attempt when this server sees enough others and is the one to do it.
func (f *founding) considerLocked() {
	now := time.Now()
	view, waiting := f.world.candidates()
	if !slices.Equal(view, f.view) {
		f.view, f.viewSince = view, now
	}
	n := f.cfg.Expect
	if waiting == "" && len(view) < n {
		waiting = fmt.Sprintf("%d of %d servers are there", len(view), n)
	}
	if waiting == "" && view[0] != f.self {
		waiting = "server " + string(view[0]) + " is to found the cluster"
	}
	if waiting != "" {
		if now.Sub(f.saidWaiting) >= waitingEvery {
			f.saidWaiting = now
			f.logger.Info("waiting for a cluster", "because", waiting)
		}
		return
	}
	if (n > 1 || len(f.cfg.Seeds) > 0) && now.Sub(f.viewSince) < f.cfg.SettleTime || now.Before(f.pauseUntil) {
		return
	}
	f.beginLocked(view[:n])
}

// beginLocked notes the attempt durably and asks the others. Each is asked once: a member that has said no for good must
// not find a second request in the pipe.
func (f *founding) beginLocked(members []command.NodeID) {
	up := f.world.connected()
	for _, id := range members {
		if id != f.self && !up[id] {
			return // mesh is still dialling
		}
	}
	a := &attempt{clusterID: newClusterID(), members: slices.Clone(members), granted: make(map[command.NodeID]bool), began: time.Now()}
	if err := f.save(&promise{ClusterID: a.clusterID, Founder: f.self, Members: a.members}); err != nil {
		f.logger.Error("cluster not founded", "err", err)
		return
	}
	f.attempt = a
	f.logger.Info("founding a cluster", "cluster", a.clusterID, "servers", len(members))
	for _, id := range members {
		if id != f.self && !f.world.send(id, message{Op: opAsk, ClusterID: a.clusterID, Founder: f.self, Expect: f.cfg.Expect, Members: a.members}) {
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
	f.logger.Info("founding given up", "cluster", a.clusterID, "because", reason)
	f.dropLocked()
	for _, id := range a.members {
		if id != f.self {
			f.world.send(id, message{Op: opRelease, ClusterID: a.clusterID}) // one that misses it will ask
		}
	}
	f.pauseUntil = time.Now().Add(f.cfg.CheckInterval)
}

// dropLocked forgets the promise.
func (f *founding) dropLocked() {
	f.refuseLocked(f.promise.ClusterID)
	if err := f.save(nil); err != nil {
		f.logger.Error("promise not dropped", "err", err)
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
	if err := f.cfg.Consensus.Bootstrap(servers); err != nil {
		f.logger.Error("bootstrap", "err", err)
		if _, lastIndex := f.cfg.Consensus.Servers(); lastIndex == 0 {
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
	} else if f.promise != nil {
		f.dropLocked()
	}
	if err := f.save(&promise{ClusterID: l.ClusterID, Founder: l.from, Members: l.Members}); err != nil {
		f.logger.Error("promise not given", "err", err)
		return "promise not saved"
	}
	f.logger.Info("promised to help found a cluster", "cluster", l.ClusterID, "founder", l.from)
	return ""
}

// objectionLocked returns why there is no promise for l.
func (f *founding) objectionLocked(l letter) string {
	_, lastIndex := f.cfg.Consensus.Servers()
	switch {
	case f.world.clusterID() != "" || lastIndex > 0:
		return "this server belongs to a cluster already"
	case f.refused[l.ClusterID]:
		return "that founding was given up"
	case f.promise != nil && f.promise.ClusterID == l.ClusterID && !f.promise.Frozen:
		return ""
	case l.Founder != l.from || !slices.Contains(l.Members, f.self) || slices.Min(l.Members) != l.from:
		return "the request is not in order"
	case l.Expect != f.cfg.Expect || l.Expect != len(l.Members):
		reason := differentExpect(f.cfg.Expect, Meta{ServerID: l.from, Expect: l.Expect})
		f.problems.report("expect "+string(l.from), reason)
		return reason
	case f.promise != nil && f.promise.Founder != f.self && f.promise.Founder != l.from: // else it has given the former up
		return "promised to server " + string(f.promise.Founder)
	case f.attempt != nil && l.from > f.self:
		return "server " + string(f.self) + " founds one itself"
	case f.world.isLeaving():
		return "this server is leaving"
	case f.world.clusterInSight():
		return "there is a cluster already"
	}
	return ""
}

// released voids a promise.
func (f *founding) released(l letter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.promise; p != nil && p.Founder == l.from && p.ClusterID == l.ClusterID && f.world.clusterID() == "" {
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
	_, lastIndex := f.cfg.Consensus.Servers()
	p := f.promise
	switch {
	case lastIndex > 0:
		return fmt.Errorf("this server has a Raft log of its own, so it cannot join cluster %s", h.ClusterID)
	case p != nil && p.ClusterID == h.ClusterID && (h.Formed() || p.takenUpBy(h.ServerID)):
	case p != nil && p.Founder != f.self:
		return fmt.Errorf("this server has promised to help found cluster %s", p.ClusterID)
	case !h.Formed():
		return fmt.Errorf("cluster %s has had no leader yet", h.ClusterID)
	}
	if f.attempt != nil {
		f.abandonLocked("there is a cluster already")
	}
	if err := f.cfg.SaveClusterID(h.ClusterID); err != nil {
		return fmt.Errorf("save cluster id: %w", err)
	}
	f.world.changed()
	return nil
}
