package consensus

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quorate/fsm/command"
)

// roundRetry is how long a round waits before the voters are asked again; roundMax when it is given up.
const (
	roundRetry = 100 * time.Millisecond
	roundMax   = time.Second
)

// question is what waits for the proof that this node still leads.
type question struct {
	read bool // wants a read index; otherwise a pong, or nothing but done
	from command.NodeID
	id   uint64 // of the read request or the ping
	done func(verdict)
}

// verdict is the outcome of a round.
type verdict struct {
	ok    bool
	index uint64   // the commit index when the round began
	walls []uint64 // wall clocks of a majority, own included, in milliseconds
}

// verifier proves that this node leads, for all who asked since the last proof began, one round at a time.
//
// A round: note the commit index, ask all voters for their term, count those that are in no later term than ours. A
// majority of them had, after they were asked, given no vote for a later term; so when the round began nobody else had
// been elected, and nothing was committed that this node does not know of.
type verifier struct {
	n    *Node
	term uint64
	stop chan struct{}
	wake chan struct{}
	got  chan struct{} // an answer came

	mu      sync.Mutex
	closed  bool
	waiting []question
	round   uint64
	answers map[command.NodeID]probeAnswer // of the round under way
}

func newVerifier(n *Node, term uint64, stop chan struct{}) *verifier {
	return &verifier{n: n, term: term, stop: stop, wake: make(chan struct{}, 1), got: make(chan struct{}, 1)}
}

// ask adds a question. False when this leadership has ended.
func (v *verifier) ask(q question) bool {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return false
	}
	v.waiting = append(v.waiting, q)
	v.mu.Unlock()
	select {
	case v.wake <- struct{}{}:
	default:
	}
	return true
}

// answer takes a voter's answer to the round under way.
func (v *verifier) answer(from command.NodeID, a probeAnswer) {
	v.mu.Lock()
	current := a.round == v.round && v.answers != nil
	if current {
		v.answers[from] = a
	}
	v.mu.Unlock()
	if current {
		select {
		case v.got <- struct{}{}:
		default:
		}
	}
}

// run serves questions until the leadership ends.
func (v *verifier) run(reply func(question, verdict)) {
	for {
		select {
		case <-v.stop:
			v.close(reply)
			return
		case <-v.wake:
		}
		v.mu.Lock()
		asked := v.waiting
		v.waiting = nil
		v.mu.Unlock()
		if len(asked) == 0 {
			continue
		}
		result := v.prove()
		for _, q := range asked {
			reply(q, result)
		}
	}
}

func (v *verifier) close(reply func(question, verdict)) {
	v.mu.Lock()
	v.closed = true
	asked := v.waiting
	v.waiting = nil
	v.mu.Unlock()
	for _, q := range asked {
		reply(q, verdict{})
	}
}

// prove runs one round.
func (v *verifier) prove() verdict {
	index := v.n.raft.CommitIndex()
	voters := v.n.voters()
	need := len(voters)/2 + 1
	round := v.begin()
	deadline := time.NewTimer(roundMax)
	defer deadline.Stop()
	retry := time.NewTicker(roundRetry)
	defer retry.Stop()
	v.sendProbes(voters, round)
	for {
		walls, deposed := v.count(voters)
		if deposed || !v.n.leads(v.term) {
			return verdict{}
		}
		if len(walls) >= need {
			return verdict{ok: true, index: index, walls: walls}
		}
		select {
		case <-v.stop:
			return verdict{}
		case <-deadline.C:
			return verdict{}
		case <-retry.C:
			v.sendProbes(voters, round)
		case <-v.got:
		}
	}
}

func (v *verifier) begin() (round uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.round = v.n.ids.Add(1) // never used before, so that no old answer fits
	v.answers = make(map[command.NodeID]probeAnswer)
	return v.round
}

// sendProbes asks those who have not answered.
func (v *verifier) sendProbes(voters []raft.ServerID, round uint64) {
	for _, id := range voters {
		if to := command.NodeID(id); to != v.n.self && !v.answered(to) {
			v.n.send(to, KindProbe, round, v.term)
		}
	}
}

func (v *verifier) answered(id command.NodeID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.answers[id]
	return ok
}

// count returns the wall clocks of the voters that still follow this term, and whether somebody is in a later one.
func (v *verifier) count(voters []raft.ServerID) (walls []uint64, deposed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range voters {
		if command.NodeID(id) == v.n.self {
			walls = append(walls, uint64(v.n.cfg.Clock.Wall().UnixMilli()))
			continue
		}
		if a, ok := v.answers[command.NodeID(id)]; ok {
			deposed = deposed || a.term > v.term
			walls = append(walls, a.wall)
		}
	}
	return walls, deposed
}

// lowerMedian returns the lower of the middle values.
func lowerMedian(values []uint64) uint64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/2]
}
