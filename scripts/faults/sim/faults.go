package sim

import (
	"math/rand/v2"
	"time"
)

// fault breaks something; heal mends it.
type fault struct {
	name  string
	begin func(c *cluster, rng *rand.Rand)
}

// faults are the kinds a seed chooses from.
var faults = []fault{
	{"isolate one node", func(c *cluster, rng *rand.Rand) { c.isolate(pick(rng, c.names())) }},
	{"isolate the leader", func(c *cluster, rng *rand.Rand) { c.isolate(c.leaderOr(rng)) }},
	{"all apart", func(c *cluster, _ *rand.Rand) {
		for _, name := range c.names() {
			c.isolate(name)
		}
	}},
	{"bridge", func(c *cluster, rng *rand.Rand) {
		ends := rng.Perm(len(c.nodes))
		a, b := c.nodes[ends[0]].name, c.nodes[ends[1]].name
		c.cut(a, b)
		c.cut(b, a)
		c.tell()
	}},
	{"deaf", func(c *cluster, rng *rand.Rand) {
		deaf := pick(rng, c.names())
		for _, other := range c.names() {
			if other != deaf {
				c.cut(other, deaf)
			}
		}
		c.tell()
	}},
	{"mute", func(c *cluster, rng *rand.Rand) {
		mute := c.leaderOr(rng)
		for _, other := range c.names() {
			if other != mute {
				c.cut(mute, other)
			}
		}
		c.tell()
	}},
	{"crash one node", func(c *cluster, rng *rand.Rand) { c.crash(pick(rng, c.names())) }},
	{"crash the leader", func(c *cluster, rng *rand.Rand) { c.crash(c.leaderOr(rng)) }},
	{"crash all", func(c *cluster, _ *rand.Rand) { c.crash(c.names()...) }},
	{"slow node", func(c *cluster, rng *rand.Rand) {
		lo := time.Duration(1+rng.IntN(100)) * time.Millisecond
		c.delay(pick(rng, c.names()), lo, 3*lo)
	}},
}

func pick(rng *rand.Rand, names []string) string { return names[rng.IntN(len(names))] }

// leaderOr returns the leader that some running node knows, or any node.
func (c *cluster) leaderOr(rng *rand.Rand) string {
	for _, m := range c.nodes {
		if !m.down {
			if name, ok := m.leader(); ok {
				return name
			}
		}
	}
	return pick(rng, c.names())
}

// between returns a random time in [lo, hi).
func between(rng *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(rng.Int64N(int64(hi-lo)))
}

// storm injects n faults, one after the other. A third of them gets a second
// one on top. Some last for moments, some outlast every timer.
func storm(c *cluster, rng *rand.Rand, n int) error {
	for range n {
		time.Sleep(between(rng, time.Second, 8*time.Second))
		for again := true; again; again = rng.IntN(3) == 0 {
			f := faults[rng.IntN(len(faults))]
			c.note("fault: %s", f.name)
			f.begin(c, rng)
			longest := 5 * time.Second
			if rng.IntN(2) == 0 {
				longest = 25 * time.Second
			}
			time.Sleep(between(rng, 10*time.Millisecond, longest))
		}
		if err := c.heal(); err != nil {
			return err
		}
	}
	return nil
}
