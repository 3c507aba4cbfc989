package fsm

import (
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"quorate/fsm/command"
)

func TestTheLowestFreeIndexIsNextWhateverHappenedBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x indexSet
		used := map[uint32]bool{}
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			for range rapid.IntRange(0, 400).Draw(t, "takes") {
				want := uint32(0)
				for used[want] {
					want++
				}
				if got := x.take(); got != want {
					t.Fatalf("took %d, want %d", got, want)
				}
				used[want] = true
			}
			if i := uint32(rapid.IntRange(0, 9000).Draw(t, "use")); !used[i] {
				x.use(i)
				used[i] = true
			}
			for range rapid.IntRange(0, 300).Draw(t, "frees") {
				if i := uint32(rapid.IntRange(0, 9000).Draw(t, "free")); used[i] {
					x.free(i)
					delete(used, i)
				}
			}
		}
		var got []uint32
		for i := range x.all() {
			got = append(got, i)
		}
		if len(got) != len(used) || !slices.IsSorted(got) {
			t.Fatalf("%d in use, want %d", len(got), len(used))
		}
	})
}

func TestAListIsAQueueAndAViewDoesNotChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l list
		var want []uint32
		type picture struct {
			view list
			want []uint32
		}
		var pictures []picture
		fronted := false
		next := uint32(0)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			n := rapid.IntRange(0, 1500).Draw(t, "n")
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1, 2:
				for range n {
					l.push(next)
					want = append(want, next)
					next++
				}
			case 3, 4:
				for range min(n, len(want)) {
					if l.front() != want[0] {
						t.Fatalf("front %d, want %d", l.front(), want[0])
					}
					l.pop()
					want = want[1:]
				}
			case 5:
				pictures = append(pictures, picture{l.view(), slices.Clone(want)})
			default:
				if n > 1480 {
					front := []uint32{next, next + 1}
					next += 2
					l.pushFront(front)
					want = append(front, want...)
					fronted = true
				}
			}
			if len(want) > 0 && !fronted {
				if i := n % len(want); l.at(i) != want[i] {
					t.Fatalf("at %d: %d, want %d", i, l.at(i), want[i])
				}
			}
		}
		pictures = append(pictures, picture{l, want})
		for _, p := range pictures {
			if got := slotsOf(&p.view); !slices.Equal(got, p.want) {
				t.Fatalf("%d slots, want %d", len(got), len(p.want))
			}
		}
	})
}

func TestTimersLeaveInTheOrderOfTheirKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d deadlines
		var all []*timer
		for i := range rapid.IntRange(0, 200).Draw(t, "timers") {
			x := &timer{at: uint64(rapid.IntRange(1, 20).Draw(t, "at")), kind: uint8(i % 3), tie: uint64(i)}
			d.add(x)
			all = append(all, x)
			if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
				j := rapid.IntRange(0, len(all)-1).Draw(t, "which")
				d.remove(all[j])
				all = slices.Delete(all, j, j+1)
			}
		}
		slices.SortFunc(all, (*timer).compare)
		for _, want := range all {
			got := d.heap[0]
			if got != want {
				t.Fatalf("%+v, want %+v", got, want)
			}
			d.remove(got)
		}
	})
}

func TestPositionsAreCountedPerBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p positions
		var subs []uint64
		last := uint64(0)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				subs = append(subs, uint64(rapid.IntRange(0, 9000).Draw(t, "at")))
				p.add(subs[len(subs)-1], last)
			case 1:
				if len(subs) > 0 {
					p.remove(subs[0], last)
					subs = subs[1:]
				}
			case 2:
				if len(subs) > 0 {
					i := rapid.IntRange(0, len(subs)-1).Draw(t, "which")
					to := subs[i] + uint64(rapid.IntRange(0, 3000).Draw(t, "by"))
					p.move(subs[i], to, last)
					subs[i] = to
				}
			default:
				last = max(last, slices.Max(append([]uint64{0}, subs...))) + 1
				p.caught = 0
			}
			checkPositions(t, &p, subs, last)
		}
	})
}

func checkPositions(t *rapid.T, p *positions, subs []uint64, last uint64) {
	caught, low := 0, ^uint64(0)
	for _, s := range subs {
		low = min(low, s)
		if s >= last {
			caught++
		}
	}
	if p.subs != len(subs) || p.caught != caught {
		t.Fatalf("%+v, want %d positions, %d caught up", p, len(subs), caught)
	}
	done := p.done(last)
	if len(subs) > 0 && done > low {
		t.Fatalf("done up to %d, somebody is at %d", done, low)
	}
	if caught < len(subs) && low-done >= 1<<bucketShift {
		t.Fatalf("done up to %d only, all are at %d or above", done, low)
	}
	if !slices.IsSortedFunc(p.buckets, func(a, b bucket) int { return cmp.Compare(a.key, b.key) }) {
		t.Fatalf("%+v", p)
	}
}

func TestALargeGroupGivesConnectedMembersInTurn(t *testing.T) {
	r := up(t)
	r.unchecked = true
	for i := range 3 * RouteMembersMax {
		ref := r.connect(nodeA, itoa(i))
		r.subscribe(ref, "$share/g/t:1")
		if i%2 == 0 {
			r.subscribe(ref, "t:0")
			r.do(nodeA, &command.Disconnect{Ref: ref})
		}
	}
	seen := map[uint64]bool{}
	var route Route
	for range 3 * RouteMembersMax {
		r.m.Route("t", &route)
		members := route.Groups[0].Members
		if len(members) != RouteMembersMax {
			t.Fatalf("%d members", len(members))
		}
		for _, m := range members {
			if !m.Connected {
				t.Fatal("one that is not connected")
			}
			seen[m.Serial] = true
		}
	}
	if len(seen) != 3*RouteMembersMax/2 {
		t.Fatalf("%d members were named", len(seen))
	}
}
