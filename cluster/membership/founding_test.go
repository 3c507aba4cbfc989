package membership_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"quorate/cluster/membership"
)

// formed returns the cluster ids of disks whose log proves that their cluster had a leader.
func formed(disks []*disk) map[string]bool {
	ids := make(map[string]bool)
	for _, d := range disks {
		if last, _ := d.log.LastIndex(); last > 1 {
			ids[d.cluster()] = true
		}
	}
	return ids
}

func seedCount() uint64 {
	if n, err := strconv.Atoi(os.Getenv("QUORATE_SEEDS")); err == nil {
		return uint64(n)
	}
	if testing.Short() {
		return 20
	}
	return 200
}

// Servers start at different times, see different parts of each other, crash and come back while they found a cluster,
// some with a wrong --expect: at most one cluster ever forms, and once there is peace, exactly one with everybody in it.
func TestWhateverHappensDuringFoundingThereIsOneCluster(t *testing.T) {
	for seed := range seedCount() {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			seeded(t, seed, func(t *testing.T, r *rig) { foundUnderFire(t, r, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func foundUnderFire(t *testing.T, r *rig, rng *rand.Rand) {
	n := 3 + rng.IntN(3)
	hosts := make([]int, n)
	for i := range hosts {
		hosts[i] = i + 1
	}
	options := make([][]option, n+1)
	disks := make([]*disk, n+1)
	for _, i := range rng.Perm(n) {
		disks[i+1] = r.disk() // ids in random order
	}
	for _, h := range hosts {
		options[h] = []option{seeds(hosts...)}
	}
	if n > 3 && rng.IntN(3) == 0 {
		options[1+rng.IntN(n)] = []option{seeds(hosts...), expect(2 + 3*rng.IntN(2))}
	}
	check := func() {
		if ids := formed(disks[1:]); len(ids) > 1 {
			t.Fatalf("%d clusters formed: %v", len(ids), ids)
		}
	}
	start := time.Now()
	for time.Since(start) < 20*time.Second {
		h := 1 + rng.IntN(n)
		s := r.byHost[h]
		switch k := rng.IntN(10); {
		case s == nil:
			r.byHost[h] = r.start(h, disks[h], options[h]...)
		case k == 0:
			s.crash()
			delete(r.byHost, h)
		case k <= 3:
			r.net.Cut(ipOf(h), ipOf(1+rng.IntN(n)))
		case k <= 5:
			r.net.Heal()
		}
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
		check()
	}
	r.net.Heal()
	for _, h := range hosts {
		if r.byHost[h] == nil {
			r.byHost[h] = r.start(h, disks[h], options[h]...)
		}
	}
	r.waitFor(3*time.Minute, "one cluster of everybody", func() bool {
		check()
		l := r.leader()
		if l == nil {
			return false
		}
		servers, _ := consensus{l}.Servers()
		return len(servers) == n
	})
}

// Two founders whose views share a server ask at the same moment, with every outcome of who hears whom.
func TestOfTwoOverlappingViewsAtMostOneFounds(t *testing.T) {
	for seed := range seedCount() / 4 {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			seeded(t, seed, func(t *testing.T, r *rig) {
				rng := rand.New(rand.NewPCG(seed, 2))
				var disks []*disk
				// Hosts 1 and 2 see host 3, and so do 4 and 5; the two pairs do not see each other.
				r.net.Partition([]string{ipOf(1), ipOf(2)}, []string{ipOf(4), ipOf(5)})
				for _, h := range rng.Perm(5) {
					disks = append(disks, r.disk())
					r.start(h+1, disks[len(disks)-1], seeds(3, 1, 2, 4, 5))
					time.Sleep(time.Duration(rng.IntN(800)) * time.Millisecond)
				}
				end := time.Now().Add(time.Minute)
				for time.Now().Before(end) {
					time.Sleep(100 * time.Millisecond)
					if ids := formed(disks); len(ids) > 1 {
						t.Fatalf("%d clusters formed: %v", len(ids), ids)
					}
				}
				r.net.Heal()
				r.waitConfig(2*time.Minute, "[n1* n2* n3* n4* n5*]")
				if ids := formed(disks); len(ids) != 1 {
					t.Fatalf("%d clusters formed", len(ids))
				}
			})
		})
	}
}

func TestThreeOfFourServersAreEnough(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start(1, r.disk(), seeds(1, 2, 3, 4))
		r.start(2, r.disk(), seeds(1, 2, 3, 4))
		time.Sleep(5 * time.Minute)
		if r.leader() != nil {
			t.Fatal("two of three founded a cluster")
		}
		r.start(4, r.disk(), seeds(1, 2, 3, 4))
		r.waitConfig(10*time.Second, "[n1* n2* n4*]")
		r.start(3, r.disk(), seeds(1, 2, 3, 4))
		r.waitConfig(20*time.Second, "[n1* n2* n3 n4*]")
	})
}

func TestAWrongExpectIsReportedAndDoesNotStopTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		wrong := r.start(4, r.disk(), expect(5))
		r.start(1, r.disk())
		r.start(2, r.disk())
		r.waitFor(20*time.Second, "both sides complain", func() bool {
			return len(wrong.Problems()) > 0 && len(r.byHost[1].Problems()) > 0
		})
		r.start(3, r.disk())
		r.waitConfig(30*time.Second, "[n1* n2* n3* n4]")
	})
}

func TestTwoServersWithOneNameDoNotFoundTogether(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start(1, r.disk(), named("same"))
		r.start(2, r.disk(), named("same"))
		r.start(3, r.disk())
		time.Sleep(time.Minute)
		if r.leader() != nil {
			t.Fatal("a name counted twice")
		}
		loser := r.byHost[2]
		loser.mu.Lock()
		defer loser.mu.Unlock()
		if loser.refused == nil || r.byHost[1].refused != nil {
			t.Fatalf("refused: %v and %v", loser.refused, r.byHost[1].refused)
		}
	})
}

// The founder dies for good at every moment of a founding; the rest and a new server found a cluster nevertheless.
func TestAPromiseToAFounderThatIsGoneForGoodIsDropped(t *testing.T) {
	gone := 0
	for ms := 0; ms <= 3000; ms += 50 {
		t.Run(fmt.Sprint("after ", ms, " ms"), func(t *testing.T) {
			seeded(t, uint64(ms), func(t *testing.T, r *rig) {
				disks := []*disk{r.disk(), r.disk(), r.disk()}
				first := r.start(1, disks[0])
				r.start(2, disks[1])
				r.start(3, disks[2])
				time.Sleep(time.Duration(ms) * time.Millisecond)
				first.crash()
				if disks[0].cluster() == "" {
					gone++
				}
				r.start(4, r.disk(), seeds(2, 3))
				r.waitFor(3*time.Minute, "a cluster", func() bool { return r.leader() != nil })
			})
		})
	}
	if gone == 0 {
		t.Fatal("the founder never died before it had founded")
	}
}

func TestAFounderThatCrashedBeforeItSavedTheClusterIDFinishes(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		d := r.disk()
		s := r.start(1, d, expect(1), seeds(), func(c *membership.Config) {
			c.SaveClusterID = func(string) error { return fmt.Errorf("crashed") }
		})
		time.Sleep(10 * time.Second)
		if d.cluster() != "" {
			t.Fatal("cluster id saved")
		}
		if last, _ := d.log.LastIndex(); last == 0 {
			t.Fatal("not bootstrapped")
		}
		s.crash()
		r.start(1, d, expect(1), seeds())
		r.waitConfig(10*time.Second, "[n1*]")
	})
}
