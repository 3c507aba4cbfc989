package sim

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/scripts/faults/check"
)

var (
	seeds = flag.Int("seeds", 0, "number of seeds; 0: as many as fit in a minute, or one with -seed")
	seed  = flag.Uint64("seed", 0, "first seed")
)

// seedsDefault is how many seeds a plain go test runs.
const seedsDefault = 16

func TestEveryPromiseHoldsUnderRandomFaults(t *testing.T) {
	first, n := max(*seed, 1), *seeds
	switch {
	case n == 0 && *seed > 0:
		n = 1
	case n == 0 && testing.Short():
		n = 2
	case n == 0:
		n = seedsDefault
	}
	for s := first; s < first+uint64(n); s++ {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			t.Parallel()
			play(t, s, func(c *cluster, rng *rand.Rand) error { return storm(c, rng, 3+rng.IntN(3)) })
		})
	}
}

// play runs everything in a bubble, and keeps what a failing run leaves.
func play(t *testing.T, seed uint64, disturb func(*cluster, *rand.Rand) error) {
	t.Helper()
	var r *result
	start := time.Now()
	synctest.Test(t, func(*testing.T) { r = everything(seed, disturb) })
	if r.valid() {
		if testing.Verbose() {
			t.Logf("%v of real time\n%v", time.Since(start).Round(time.Millisecond), r.report)
		}
		return
	}
	keep(t, r)
	t.Errorf("seed %d: %v\n%v\nagain: go test ./scripts/faults/sim -run '%s' -seed %d\n%s\n%s",
		seed, r.err, r.report, strings.SplitN(t.Name(), "/", 2)[0], seed, strings.Join(r.log, "\n"), r.nodes)
}

// keep writes the history to a file that outlives the test.
func keep(t *testing.T, r *result) {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "quorate-sim")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Error(err)
		return
	}
	name := filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")+".jsonl")
	f, err := os.Create(name)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if err := check.Write(f, r.events); err != nil {
		t.Error(err)
		return
	}
	t.Logf("history: %s; check it again: go run ./scripts/faults/recheck %s", name, name)
}

// The schedule with which one crash broke NATS 2.12.1: the node that comes
// back must not form a majority with one that never saw the writes.
func TestNothingIsLostWhenANodeIsCutOffAndAnotherCrashes(t *testing.T) {
	play(t, *seed, func(c *cluster, rng *rand.Rand) error {
		order := rng.Perm(3)
		a, b, z := c.nodes[order[0]].name, c.nodes[order[1]].name, c.nodes[order[2]].name
		c.isolate(a)
		time.Sleep(20 * time.Second)
		c.crash(b)
		c.mend()
		c.isolate(z)
		if err := c.start(b); err != nil {
			return err
		}
		time.Sleep(20 * time.Second)
		return nil
	})
}

// The same with a node whose network stands still, for its peers and for its
// clients, and that goes on with what was under way.
func TestNothingIsLostWhenANodeStandsStillAndAnotherCrashes(t *testing.T) {
	play(t, *seed, func(c *cluster, rng *rand.Rand) error {
		order := rng.Perm(3)
		a, b, z := c.nodes[order[0]].name, c.nodes[order[1]].name, c.nodes[order[2]].name
		c.freeze(a)
		time.Sleep(15 * time.Second)
		c.crash(b)
		c.mend()
		c.freeze(z)
		if err := c.start(b); err != nil {
			return err
		}
		time.Sleep(15 * time.Second)
		return nil
	})
}

func TestNothingIsLostWhenEveryNodeCrashesInTurn(t *testing.T) {
	play(t, *seed, func(c *cluster, rng *rand.Rand) error {
		for range 2 {
			for _, name := range c.names() {
				c.crash(name)
				time.Sleep(between(rng, 100*time.Millisecond, 20*time.Second))
				if err := c.heal(); err != nil {
					return err
				}
				time.Sleep(between(rng, 2*time.Second, 6*time.Second))
			}
		}
		return nil
	})
}
