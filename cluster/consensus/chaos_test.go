package consensus

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/consensus/storage"
	"quorate/fsm"
	"quorate/fsm/command"
)

// history is what the proposers of one host were told.
type history struct {
	mu       sync.Mutex
	proposed []string       // in the order of Propose
	outcome  map[string]int // 1 applied, 2 unknown
	answers  []string       // in the order of the callbacks
	twice    []string
	result   map[string]uint64
}

func newHistory() *history {
	return &history{outcome: make(map[string]int), result: make(map[string]uint64)}
}

// propose records the outcome of one proposal.
func (hi *history) propose(h *host, topic string) error {
	node := h.current()
	if node == nil {
		return ErrShuttingDown
	}
	hi.mu.Lock()
	defer hi.mu.Unlock() // so that the order of proposed is that of Propose
	err := node.Propose(publish("%s", topic), func(r fsm.Result, err error) {
		hi.mu.Lock()
		defer hi.mu.Unlock()
		if hi.outcome[topic] != 0 {
			hi.twice = append(hi.twice, topic)
		}
		hi.answers = append(hi.answers, topic)
		hi.outcome[topic] = 1
		hi.result[topic] = r.Seq
		if err != nil {
			hi.outcome[topic] = 2
		}
	})
	if err == nil {
		hi.proposed = append(hi.proposed, topic)
	}
	return err
}

// check compares what was answered with what every machine applied.
func (hi *history) check(t *testing.T, who string, topics []string) (ok, unknown int) {
	t.Helper()
	hi.mu.Lock()
	defer hi.mu.Unlock()
	if len(hi.twice) > 0 {
		t.Errorf("%s: answered twice: %v", who, hi.twice)
	}
	if !slices.Equal(hi.answers, hi.proposed) {
		t.Errorf("%s: callbacks are missing or out of order: %d of %d", who, len(hi.answers), len(hi.proposed))
	}
	at := make(map[string]int)
	var order []string
	for i, topic := range topics {
		if !strings.HasPrefix(topic, who+"/") {
			continue
		}
		if _, dup := at[topic]; dup {
			t.Errorf("%s was applied twice", topic)
		}
		at[topic] = i + 1
		order = append(order, topic)
	}
	for _, topic := range hi.proposed {
		seq, applied := at[topic]
		switch hi.outcome[topic] {
		case 1:
			ok++
			if !applied {
				t.Errorf("%s was acknowledged and is lost", topic)
			} else if hi.result[topic] != uint64(seq) {
				t.Errorf("%s got the result of another command: %d, want %d", topic, hi.result[topic], seq)
			}
		case 2:
			unknown++
		}
	}
	place := make(map[string]int, len(hi.proposed))
	for i, topic := range hi.proposed {
		place[topic] = i
	}
	last := -1
	for _, topic := range order {
		i := place[topic]
		if i < last {
			t.Errorf("%s: %s was applied after a later one", who, topic)
		}
		last = i
	}
	return ok, unknown
}

// TestProposalsAreAppliedExactlyOnceAndInOrderWhateverHappens crashes, cuts, and loses frames by a seed.
func TestProposalsAreAppliedExactlyOnceAndInOrderWhateverHappens(t *testing.T) {
	seeds := 24
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { chaos(t, rand.New(rand.NewPCG(uint64(seed), 7))) })
		})
	}
}

func chaos(t *testing.T, rng *rand.Rand) {
	l := newLan(t, "a", "b", "c")
	l.delay = time.Duration(rng.IntN(3)) * time.Millisecond
	for _, h := range l.order {
		h.disk.SetSyncDelay(time.Duration(rng.IntN(5)) * time.Millisecond)
		h.tune = func(c *Config) {
			c.Bounds.BatchCommands = 8
			c.Bounds.TrailingBytes = 4 << 10
			c.Bounds.SnapshotBytes = 16 << 10
			c.Timings.SnapshotCheck = time.Second
		}
	}
	defer l.close()
	l.found()

	histories := make(map[string]*history)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, h := range l.order {
		hi := newHistory()
		histories[h.name] = hi
		pace := rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
		wg.Go(func() { keepProposing(l, h, hi, pace, stop) })
	}
	for range 12 {
		disturb(l, rng)
	}
	healAll(l)
	close(stop)
	wg.Wait()
	settle(t, l)
	total, lost := 0, 0
	for name, hi := range histories {
		ok, unknown := hi.check(t, name, l.order[0].machine.topics())
		total, lost = total+ok, lost+unknown
	}
	if total < 500 {
		t.Errorf("only %d proposals went through: the test proves nothing", total)
	}
	t.Logf("%d acknowledged, %d unknown", total, lost)
}

func keepProposing(l *lan, h *host, hi *history, rng *rand.Rand, stop chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rng.IntN(100)) * time.Millisecond):
		}
		for j := range 1 + rng.IntN(12) {
			_ = hi.propose(h, fmt.Sprintf("%s/%d/%d", h.name, i, j))
		}
	}
}

// disturb does one bad thing for a while.
func disturb(l *lan, rng *rand.Rand) {
	h := l.order[rng.IntN(len(l.order))]
	if rng.IntN(2) == 0 {
		for _, o := range l.order {
			if o.node != nil && o.node.IsLeader() {
				h = o
			}
		}
	}
	other := l.order[rng.IntN(len(l.order))]
	pause := time.Duration(50+rng.IntN(6000)) * time.Millisecond
	switch rng.IntN(5) {
	case 0:
		h.crash()
		time.Sleep(pause)
		h.start()
	case 1:
		l.isolate(h, true)
		time.Sleep(pause)
		l.isolate(h, false)
	case 2:
		if h != other {
			l.setCut(h, other, true)
			time.Sleep(pause)
			l.setCut(h, other, false)
		}
	case 3:
		percent := 10 + rng.IntN(60)
		l.mu.Lock()
		l.drop = func(_, _ command.NodeID, _ byte, _ []byte) bool { return rng.IntN(100) < percent }
		l.mu.Unlock()
		time.Sleep(pause)
		l.mu.Lock()
		l.drop = nil
		l.mu.Unlock()
	case 4: // a stall of the disk
		h.disk.SetSyncDelay(time.Duration(rng.IntN(3000)) * time.Millisecond)
		time.Sleep(pause)
		h.disk.SetSyncDelay(time.Millisecond)
	}
	time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
}

func healAll(l *lan) {
	for _, h := range l.order {
		l.isolate(h, false)
		if h.node == nil {
			h.start()
		}
	}
}

// settle waits until nothing is under way and all machines have applied the same.
func settle(t *testing.T, l *lan) {
	t.Helper()
	l.leader()
	for _, h := range l.order {
		l.until(h.name+" to finish", func() bool { _, empty := h.node.window.pending(); return empty })
	}
	for _, h := range l.order {
		var err error
		l.until("a read index at "+h.name, func() bool { err = h.readIndex(); return err == nil })
	}
	want := l.order[0].machine.topics()
	for _, h := range l.order[1:] {
		if got := h.machine.topics(); !slices.Equal(got, want) {
			t.Errorf("%s and %s differ: %d and %d commands", h.name, l.order[0].name, len(got), len(want))
		}
	}
	for _, h := range l.order {
		for _, err := range h.fatals {
			if !errors.Is(err, storage.ErrCrashed) {
				t.Errorf("%s: fatal: %v", h.name, err)
			}
		}
	}
}
