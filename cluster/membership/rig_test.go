package membership_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"quorate/cluster/clustertest"
	"quorate/cluster/membership"
	"quorate/cluster/mesh"
	"quorate/fsm/command"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a set of servers with real Raft, mesh and gossip on one network in a bubble.
type rig struct {
	t       *testing.T
	net     *clustertest.Network
	mu      sync.Mutex
	running map[command.NodeID]*server
	byHost  map[int]*server
	members map[command.NodeID]string // names of servers that were members, as the replicated state knows them
	disks   int
}

func bubble(t *testing.T, f func(t *testing.T, r *rig)) { seeded(t, 1, f) }

func seeded(t *testing.T, seed uint64, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.NewNetwork(clustertest.Options{Seed: seed, DelayMin: time.Millisecond, DelayMax: 5 * time.Millisecond})
		r := &rig{t: t, net: n, running: make(map[command.NodeID]*server), byHost: make(map[int]*server), members: make(map[command.NodeID]string)}
		defer func() {
			r.stopAll()
			n.Close()
			time.Sleep(time.Minute) // a probe of memberlist ends by its own timers
		}()
		f(t, r)
	})
}

// disk is what survives a crash.
type disk struct {
	id          command.NodeID
	mu          sync.Mutex
	clusterID   string
	incarnation uint64
	log         *raft.InmemStore
	snaps       *raft.InmemSnapshotStore
	state       membership.MemoryStore
}

func (d *disk) cluster() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clusterID
}

func (d *disk) saveCluster(id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.clusterID != "" && d.clusterID != id {
		return fmt.Errorf("cluster id changes from %s to %s", d.clusterID, id)
	}
	d.clusterID = id
	return nil
}

func (r *rig) disk() *disk {
	r.disks++
	return r.diskOf(command.NodeID(fmt.Sprintf("%04x", 0x1000+r.disks)))
}

func (r *rig) diskOf(id command.NodeID) *disk {
	return &disk{id: id, log: raft.NewInmemStore(), snaps: raft.NewInmemSnapshotStore()}
}

func ipOf(host int) string   { return fmt.Sprintf("10.0.0.%d", host) }
func addrOf(host int) string { return ipOf(host) + ":7946" }

// server is one running process.
type server struct {
	*membership.Membership
	r       *rig
	host    int
	disk    *disk
	mesh    *mesh.Mesh
	raft    *raft.Raft
	mu      sync.Mutex
	refused error
	downAt  map[command.NodeID]time.Time
}

type option func(*membership.Config)

func expect(n int) option { return func(c *membership.Config) { c.Expect = n } }
func named(s string) option {
	return func(c *membership.Config) { c.Name = s }
}
func seeds(hosts ...int) option {
	return func(c *membership.Config) {
		c.Seeds = nil
		for _, h := range hosts {
			c.Seeds = append(c.Seeds, addrOf(h))
		}
	}
}

// start starts a process on host with disk d. Unless told otherwise it expects 3 servers, with hosts 1 to 3 as seeds.
func (r *rig) start(host int, d *disk, options ...option) *server {
	r.t.Helper()
	d.incarnation++
	cfg := membership.Default()
	cfg.ServerID, cfg.Name, cfg.Incarnation, cfg.Expect = d.id, fmt.Sprint("n", host), d.incarnation, 3
	cfg.ClientAddr, cfg.AdminAddr = ipOf(host)+":1883", ipOf(host)+":18083"
	seeds(1, 2, 3)(&cfg)
	s := &server{r: r, host: host, disk: d, downAt: make(map[command.NodeID]time.Time)}
	cfg.Logger = logger()
	cfg.Store, cfg.SaveClusterID, cfg.Consensus = &d.state, d.saveCluster, consensus{s}
	cfg.NameOf = r.memberName
	cfg.OnRefused = func(err error) { s.mu.Lock(); s.refused = err; s.mu.Unlock() }
	for _, o := range options {
		o(&cfg)
	}

	mc := mesh.Default()
	mc.Network, mc.Listen, mc.ServerID, mc.Name, mc.ClusterID = r.net.Host(ipOf(host)), addrOf(host), d.id, cfg.Name, d.cluster()
	mc.Incarnation = func() uint64 { return cfg.Incarnation }
	mc.DurableIndex = func() uint64 { i, _ := d.log.LastIndex(); return i }
	mc.Adopt = func(h mesh.Hello) error { return s.Adopt(h) }
	mc.Logger = cfg.Logger
	var err error
	if s.mesh, err = mesh.New(mc); err != nil {
		r.t.Fatal(err)
	}
	rc := raft.DefaultConfig()
	rc.LocalID, rc.Logger = raft.ServerID(d.id), hclog.NewNullLogger()
	if s.raft, err = raft.NewRaft(rc, nothing{}, d.log, d.log, d.snaps, s.mesh.RaftTransport()); err != nil {
		r.t.Fatal(err)
	}
	cfg.Mesh = s.mesh
	if s.Membership, err = membership.New(cfg); err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.running[d.id], r.byHost[host] = s, s
	r.mu.Unlock()
	s.mesh.Start()
	if err := s.Start(); err != nil {
		r.t.Fatal(err)
	}
	return s
}

func logger() *slog.Logger {
	if os.Getenv("QUORATE_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// crash ends a process without goodbye; its host is restarted without one.
func (s *server) crash() {
	s.r.net.PowerOff(ipOf(s.host))
	s.close()
	s.r.net.Restart(ipOf(s.host))
}

// close ends a process.
func (s *server) close() {
	s.r.mu.Lock()
	if s.r.running[s.disk.id] == s {
		delete(s.r.running, s.disk.id)
	}
	s.r.mu.Unlock()
	if err := s.Membership.Close(); err != nil {
		s.r.t.Error(err)
	}
	if err := s.raft.Shutdown().Error(); err != nil {
		s.r.t.Error(err)
	}
	_ = s.mesh.Close()
}

func (r *rig) memberName(id command.NodeID) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members[id]
}

// noteMembers remembers whom a live leader has in its configuration while it is itself heard: the registrations of the
// broker's nodes.
func (r *rig) noteMembers() {
	l := r.leader()
	if l == nil || l.raft.Barrier(0).Error() != nil {
		return
	}
	for _, m := range l.Members() {
		if m.InConfig {
			r.mu.Lock()
			r.members[m.ServerID] = m.Name
			r.mu.Unlock()
		}
	}
}

func (r *rig) all() []*server {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*server
	for _, s := range r.running {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *server) int { return a.host - b.host })
	return out
}

func (r *rig) stopAll() {
	for _, s := range r.all() {
		s.close()
	}
}

// nothing is a state machine without state.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nil, raft.ErrNothingNewToSnapshot }
func (nothing) Restore(io.ReadCloser) error         { return nil }

// consensus is the Raft side of a server.
type consensus struct{ s *server }

func (c consensus) Bootstrap(servers []raft.Server) error {
	return c.s.raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error()
}

func (c consensus) Servers() ([]raft.Server, uint64) {
	return c.s.raft.GetConfiguration().Configuration().Servers, c.s.raft.LastIndex()
}

func (c consensus) IsLeader() bool { return c.s.raft.State() == raft.Leader }

func (c consensus) Leader() (command.NodeID, bool) {
	_, id := c.s.raft.LeaderWithID()
	return command.NodeID(id), id != ""
}

func (c consensus) AddNonvoter(_ context.Context, id command.NodeID) error {
	return c.s.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), 0, 10*time.Second).Error()
}

func (c consensus) Promote(_ context.Context, id command.NodeID) error {
	return c.s.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(id), 0, 10*time.Second).Error()
}

func (c consensus) Remove(_ context.Context, id command.NodeID) error {
	return c.s.raft.RemoveServer(raft.ServerID(id), 0, 10*time.Second).Error()
}

// Progress takes mesh's probes for the leader's evidence.
func (c consensus) Progress(id command.NodeID) (uint64, time.Duration, bool) {
	if id == c.s.disk.id {
		return c.s.raft.AppliedIndex(), 0, true
	}
	c.s.r.mu.Lock()
	other := c.s.r.running[id]
	c.s.r.mu.Unlock()
	for _, p := range c.s.mesh.Peers() {
		if p.ID != id {
			continue
		}
		if p.Up && other != nil {
			return other.raft.AppliedIndex(), 0, true
		}
		return 0, time.Since(p.Since), true
	}
	return 0, 0, false
}

// summary is the cluster as s sees it: "n1* n2* n3" with a star for voters, by host.
func (s *server) summary() string {
	servers, _ := consensus{s}.Servers()
	names := make(map[string]bool)
	var out []string
	for _, m := range s.Members() {
		if m.InConfig {
			mark := ""
			if m.Voter {
				mark = "*"
			}
			out = append(out, m.Name+mark)
			names[m.Name] = true
		}
	}
	if len(out) != len(servers) {
		return fmt.Sprint("members ", out, " differ from ", servers)
	}
	return fmt.Sprint(out)
}

// waitFor waits, in virtual time, until ok holds.
func (r *rig) waitFor(limit time.Duration, what string, ok func() bool) {
	r.t.Helper()
	for start := time.Now(); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Since(start) > limit {
			for _, s := range r.all() {
				servers, last := consensus{s}.Servers()
				leader, _ := consensus{s}.Leader()
				r.t.Logf("host %d server %s cluster %q log %d leader %s config %v problems %v", s.host, s.disk.id, s.mesh.ClusterID(), last, leader, servers, s.Problems())
				for _, m := range s.Members() {
					r.t.Logf("    %+v", m)
				}
				for _, p := range s.mesh.Peers() {
					r.t.Logf("    %+v", p)
				}
				r.t.Logf("    %+v", s.mesh.Stats())
			}
			r.t.Fatalf("not after %v: %s", limit, what)
		}
	}
}

func (r *rig) leader() *server {
	for _, s := range r.all() {
		if (consensus{s}).IsLeader() && s.raft.VerifyLeader().Error() == nil {
			return s
		}
	}
	return nil
}

// waitConfig waits until the leader has this configuration.
func (r *rig) waitConfig(limit time.Duration, want string) {
	r.t.Helper()
	r.waitFor(limit, "configuration "+want, func() bool {
		l := r.leader()
		return l != nil && l.summary() == want
	})
}

// waitMembers waits until every running server's gossip sees all running servers.
func (r *rig) waitMembers(limit time.Duration) {
	r.t.Helper()
	all := r.all()
	r.waitFor(limit, "everybody sees everybody", func() bool {
		for _, s := range all {
			alive := 0
			for _, m := range s.Members() {
				if m.Alive {
					alive++
				}
			}
			if alive != len(all) {
				return false
			}
		}
		return true
	})
}
