package broker

import (
	"maps"
	"slices"
	"sync"

	"quorate/fsm"
	"quorate/fsm/command"
)

// routes counts, for each filter, the live subscribers of this node and the SUBSCRIBEs under way, and tells the log of
// the first and the last one. Counters and route commands change under one lock, so that the commands are in the log in
// the order of the changes.
//
// The commands are apart from the Subscribe that causes them: a Subscribe whose connection has lost its ownership does
// nothing, and the route that a second subscriber counts on would be missing.
type routes struct {
	broker *Broker
	mu     sync.Mutex
	counts map[string]int
	missed command.Routes // changes that the log did not take yet
	// forgotten: the log has none of the routes and did not take them again. Invariant: nobody is counted meanwhile.
	forgotten bool
}

// againMax is how many routes one command of again has: a command has a limit in bytes.
const againMax = 1000

// again proposes every route: the log forgot them with the incarnation of the node that it ended.
func (r *routes) again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.remember() // retry and acquire try again
}

// remember is again with r.mu held.
func (r *routes) remember() error {
	for filters := range slices.Chunk(slices.Sorted(maps.Keys(r.counts)), againMax) {
		if err := r.propose(command.Routes{Add: filters}); err != nil {
			r.forgotten = true
			return err
		}
	}
	r.forgotten = false
	return nil
}

// acquire counts one more user of each filter. A SUBSCRIBE proposed afterwards is applied after the route. It returns
// the log's error when a route could not be proposed; nothing is counted then.
func (r *routes) acquire(filters []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.forgotten {
		if err := r.remember(); err != nil {
			return err
		}
	}
	if r.counts == nil {
		r.counts = make(map[string]int)
	}
	var first []string
	for _, f := range filters {
		if r.counts[f]++; r.counts[f] == 1 {
			first = append(first, f)
		}
	}
	if len(first) == 0 {
		return nil
	}
	if err := r.propose(command.Routes{Add: first}); err != nil {
		for _, f := range filters {
			r.drop(f)
		}
		return err
	}
	return nil
}

// release counts one user less of each filter.
func (r *routes) release(filters []string) {
	if len(filters) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var last []string
	for _, f := range filters {
		if r.drop(f) {
			last = append(last, f)
		}
	}
	if len(last) > 0 {
		if err := r.propose(command.Routes{Remove: last}); err != nil {
			// A route too many costs frames but loses nothing: it is removed later.
			r.missed.Remove = append(r.missed.Remove, last...)
		}
	}
}

func (r *routes) drop(filter string) (last bool) {
	if r.counts[filter]--; r.counts[filter] > 0 {
		return false
	}
	delete(r.counts, filter)
	return true
}

// propose sends route commands; r.mu is held. What was missed before goes first where it still holds.
func (r *routes) propose(c command.Routes) error {
	return r.broker.log.Propose(&c, func(fsm.Result, error) {})
}

// retry proposes what the log did not take. The watch calls it.
func (r *routes) retry() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.forgotten && r.remember() != nil {
		return
	}
	if len(r.missed.Remove) == 0 {
		return
	}
	var again command.Routes
	for _, f := range r.missed.Remove {
		if r.counts[f] == 0 {
			again.Remove = append(again.Remove, f)
		}
	}
	r.missed.Remove = nil
	if len(again.Remove) > 0 && r.propose(again) != nil {
		r.missed = again
	}
}
