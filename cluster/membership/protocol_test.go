package membership

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/mesh"
	"quorate/fsm/command"
)

// model runs the founding protocol alone, under every disorder that can be thought of: views that agree on nothing,
// messages late or lost with their connection, crashes before and after each write, pauses of any length.
type model struct {
	t        *testing.T
	rng      *rand.Rand
	expect   int
	patience time.Duration // PromiseLostAfter: no safety may depend on it
	nodes    []*modelNode
	links    map[[2]int]*modelLink
	peace    bool
	formed   map[string][]command.NodeID // clusters that had a leader, with their first configuration
}

// modelNode is a server: a disk, and a process while it runs.
type modelNode struct {
	Consensus // only what is overridden below is called
	w         *model
	i         int
	id        command.NodeID
	store     MemoryStore
	saved     string           // cluster id on disk
	config    []command.NodeID // first configuration on disk
	index     uint64           // last log index on disk

	process  *founding // nil when down
	cluster  string    // cluster id in memory
	crashing bool      // from now on nothing reaches disk or network
}

type modelLink struct {
	up    bool
	queue []letter
}

var errCrashed = errors.New("crashed")

func newModel(t *testing.T, seed uint64) *model {
	w := &model{
		t: t, rng: rand.New(rand.NewPCG(seed, 3)),
		links: make(map[[2]int]*modelLink), formed: make(map[string][]command.NodeID),
	}
	w.expect = 2 + w.rng.IntN(3)
	w.patience = time.Duration(w.rng.IntN(3)) * 3 * time.Second
	for i := range w.expect + w.rng.IntN(3) {
		w.nodes = append(w.nodes, &modelNode{w: w, i: i, id: command.NodeID(fmt.Sprint("s", i))})
	}
	for i := range w.nodes {
		for j := range w.nodes {
			if i != j {
				w.links[[2]int{i, j}] = &modelLink{up: true}
			}
		}
	}
	return w
}

func (n *modelNode) start() {
	st, err := loadState(&n.store)
	if err != nil {
		n.w.t.Fatal(err)
	}
	cfg := Default()
	cfg.ServerID, cfg.Expect, cfg.Consensus, cfg.Logger = n.id, n.w.expect, n, slog.New(slog.DiscardHandler)
	cfg.Store, cfg.SaveClusterID = (*modelStore)(n), n.saveCluster
	cfg.PromiseLostAfter = n.w.patience
	n.cluster, n.crashing = n.saved, false
	n.process = newFounding(&cfg, n, newProblems(cfg.Logger), st.Promise)
}

// stop ends the process: what was on its connections is lost.
func (n *modelNode) stop() {
	n.process = nil
	for pair, l := range n.w.links {
		if pair[0] == n.i || pair[1] == n.i {
			l.queue = nil
		}
	}
}

// chance is whether the process crashes at this point.
func (n *modelNode) chance() bool {
	if !n.w.peace && !n.crashing && n.w.rng.IntN(100) == 0 {
		n.crashing = true
	}
	return n.crashing
}

// modelStore is a node's Store.
type modelStore modelNode

func (s *modelStore) Load() ([]byte, error) { return s.store.Load() }
func (s *modelStore) Save(b []byte) error {
	if (*modelNode)(s).chance() {
		return errCrashed
	}
	_ = s.store.Save(b)
	if (*modelNode)(s).chance() {
		return errCrashed
	}
	return nil
}

func (n *modelNode) saveCluster(id string) error {
	if n.chance() {
		return errCrashed
	}
	if n.saved != "" && n.saved != id {
		n.w.t.Fatalf("%s: cluster id changes from %s to %s", n.id, n.saved, id)
	}
	n.saved = id
	if n.chance() {
		return errCrashed
	}
	return nil
}

// Bootstrap implements Consensus.
func (n *modelNode) Bootstrap(servers []raft.Server) error {
	if n.chance() || n.index > 0 {
		return errCrashed
	}
	n.index = 1
	n.config = nil
	for _, s := range servers {
		n.config = append(n.config, command.NodeID(s.ID))
	}
	if n.chance() {
		return errCrashed
	}
	return nil
}

// Servers implements Consensus.
func (n *modelNode) Servers() ([]raft.Server, uint64) { return voters(n.config), n.index }

func (n *modelNode) clusterID() string        { return n.cluster }
func (n *modelNode) isLeaving() bool          { return false }
func (n *modelNode) unsaved() ([]Known, bool) { return nil, false }
func (n *modelNode) changed()                 {}
func (n *modelNode) setClusterID(id string) {
	if !n.crashing {
		n.cluster = id
	}
}

func (n *modelNode) connected() map[command.NodeID]bool {
	up := make(map[command.NodeID]bool)
	for _, o := range n.w.nodes {
		if o != n && o.process != nil && n.w.links[[2]int{n.i, o.i}].up {
			up[o.id] = true
		}
	}
	return up
}

func (n *modelNode) send(to command.NodeID, msg message) bool {
	for _, o := range n.w.nodes {
		if o.id == to && !n.crashing && n.connected()[to] {
			l := n.w.links[[2]int{n.i, o.i}]
			l.queue = append(l.queue, letter{n.id, msg})
			return true
		}
	}
	return false
}

// candidates is anything at all, until there is peace.
func (n *modelNode) candidates() (ids []command.NodeID, waiting string) {
	for _, o := range n.w.nodes {
		switch {
		case o == n || !n.w.peace && n.w.rng.IntN(3) > 0 || n.w.peace && o.cluster == "" && o.index == 0:
			ids = append(ids, o.id)
		case n.w.peace && n.clusterInSight():
			waiting = "a cluster exists"
		}
	}
	return ids, waiting
}

func (n *modelNode) clusterInSight() bool {
	return n.w.peace && slices.ContainsFunc(n.w.nodes, func(o *modelNode) bool { return n.w.formed[o.cluster] != nil })
}

// hello is what a connection from one server to another does to a server without a cluster.
func (w *model) hello(from, to *modelNode) {
	if from.process == nil || to.process == nil || !w.links[[2]int{from.i, to.i}].up || from.cluster == "" || to.cluster != "" {
		return
	}
	h := mesh.Hello{ClusterID: from.cluster, ServerID: from.id, Wanted: to.id, DurableIndex: from.index}
	if to.process.adopt(h) == nil && !to.crashing {
		to.cluster = h.ClusterID
	}
}

// elect lets a cluster have a leader if a majority of its configuration is there.
func (w *model) elect(candidate *modelNode) {
	x := candidate.cluster
	if candidate.process == nil || x == "" || candidate.index == 0 {
		return
	}
	voted := []*modelNode{candidate}
	for _, o := range w.nodes {
		if o != candidate && o.process != nil && o.cluster == x && slices.Contains(candidate.config, o.id) && w.links[[2]int{candidate.i, o.i}].up {
			voted = append(voted, o)
		}
	}
	if len(voted) < len(candidate.config)/2+1 {
		return
	}
	for _, o := range voted {
		o.index, o.config = max(o.index, 2), candidate.config
	}
	w.formed[x] = candidate.config
	for a, first := range w.formed {
		for b, second := range w.formed {
			if a != b && slices.ContainsFunc(first, func(id command.NodeID) bool { return slices.Contains(second, id) }) {
				w.t.Fatalf("two clusters share a server: %v and %v", first, second)
			}
		}
	}
}

// event does one thing somewhere.
func (w *model) event() {
	n, o := w.nodes[w.rng.IntN(len(w.nodes))], w.nodes[w.rng.IntN(len(w.nodes))]
	k := w.rng.IntN(100)
	switch {
	case n.process == nil:
		if w.peace || k < 20 {
			n.start()
		}
	case k < 30:
		n.process.step()
	case k < 60:
		for _, x := range w.nodes { // n hears from everybody, or hardly from anybody
			if x != n && w.rng.IntN(4) < 1+k%3 {
				w.deliver(x, n)
			}
		}
	case k < 75 && n != o:
		w.hello(n, o)
	case k < 85:
		w.elect(n)
	case k < 90:
		time.Sleep(time.Duration(w.rng.IntN(3000)) * time.Millisecond)
	case w.peace:
	case k < 92:
		time.Sleep(time.Duration(w.rng.IntN(60)) * time.Second)
	case k < 97 && n != o:
		up := w.rng.IntN(3) > 0
		for _, pair := range [][2]int{{n.i, o.i}, {o.i, n.i}} {
			w.links[pair].up, w.links[pair].queue = up, nil
		}
	case k == 99:
		n.stop()
	}
	for _, x := range w.nodes {
		if x.process != nil && x.crashing {
			x.stop()
		}
	}
}

// deliver hands over the next message from n to o.
func (w *model) deliver(n, o *modelNode) {
	if l := w.links[[2]int{n.i, o.i}]; len(l.queue) > 0 && l.up && o.process != nil {
		first := l.queue[0]
		l.queue = l.queue[1:]
		o.process.handle(first)
	}
}

// settled reports whether every server is in a cluster that formed, or stranded: its founding was given up by all others
// after it had bootstrapped, which only an operator can put right, and which the rest must survive if it is large enough.
func (w *model) settled() bool {
	free, stranded := 0, 0
	for _, n := range w.nodes {
		switch {
		case w.formed[n.cluster] != nil:
		case n.index == 1 && w.abandoned(n):
			stranded++
		case n.cluster == "" && n.index == 0 && n.process != nil && n.process.promise == nil:
			free++
		default:
			return false
		}
	}
	return free == 0 || stranded > 0 && len(w.formed) == 0 && free < w.expect
}

// abandoned reports whether no other server can be part of the cluster of n.
func (w *model) abandoned(n *modelNode) bool {
	for _, o := range w.nodes {
		if o != n && (o.process == nil || o.cluster == n.cluster || o.process.promise != nil && o.process.promise.ClusterID == n.cluster) {
			return false
		}
	}
	return n.cluster != ""
}

func TestFoundingIsSafeUnderAnyDisorderAndEndsInPeace(t *testing.T) {
	runs := uint64(5000)
	if testing.Short() {
		runs = 500
	}
	outcomes := make(map[string]int)
	stranded := 0
	for seed := range runs {
		synctest.Test(t, func(t *testing.T) {
			w := newModel(t, seed)
			for range 1000 {
				w.event()
			}
			outcomes[fmt.Sprint(len(w.formed), " clusters in war")]++
			w.peace = true
			for _, l := range w.links {
				l.up = true
			}
			for i := 0; !w.settled(); i++ {
				if i > 20_000 {
					for _, n := range w.nodes {
						t.Logf("%s running %v cluster %q index %d config %v promise %+v", n.id, n.process != nil, n.cluster, n.index, n.config, n.process.promise)
					}
					t.Fatalf("seed %d: no cluster in peace; formed %v", seed, w.formed)
				}
				w.event()
				for _, n := range w.nodes {
					for _, o := range w.nodes {
						if n != o && w.rng.IntN(2) == 0 {
							w.deliver(n, o)
						}
					}
				}
			}
			if len(w.formed) == 0 {
				stranded++
			}
		})
	}
	t.Log(outcomes, "stranded", stranded)
	if outcomes["1 clusters in war"] == 0 || outcomes["0 clusters in war"] == 0 {
		t.Fatalf("the disorder is one-sided: %v", outcomes)
	}
}
