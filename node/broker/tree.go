package broker

import (
	"sync"
	"sync/atomic"

	"quorate/protocol/topic"
)

// options are those of a subscription. Immutable.
type options struct {
	link    *link
	id      uint32 // Subscription Identifier; 0: none
	qos     byte
	noLocal bool
	rap     bool // Retain As Published
}

// sub is one subscription of one connection in the live tree.
type sub struct {
	// opts are nil once the subscription has ended, so that whoever remembers it does not keep the connection. A SUBSCRIBE that replaces it replaces them, so that nothing is
	// missed and nothing comes twice meanwhile [MQTT-3.8.4-4].
	opts atomic.Pointer[options]
}

// node is a filter of the live tree.
type node struct {
	// subs is only appended to or replaced: a reader that took the slice under the lock may walk it afterwards.
	subs []*sub
	dead int // ended subscriptions still in subs
}

// liveTree holds the subscriptions of the connections of this node. Matching takes a read lock for the walk of the tree
// only, not for the fan-out; publishers that repeat a topic take no lock at all while generation stands still.
type liveTree struct {
	generation atomic.Uint64 // changes after every change of the tree
	mu         sync.RWMutex
	tree       topic.Tree[*node]
	subs       int
}

func (t *liveTree) init() { t.generation.Store(1) }

// add puts a subscription under filter.
func (t *liveTree) add(filter string, s *sub) {
	t.mu.Lock()
	n, ok := t.tree.Get(filter)
	if !ok {
		n = &node{}
		t.tree.Set(filter, n)
	}
	n.subs = append(n.subs, s)
	t.subs++
	t.mu.Unlock()
	t.generation.Add(1)
}

// remove ends a subscription that add has put under filter.
func (t *liveTree) remove(filter string, s *sub) {
	t.mu.Lock()
	if s.opts.Swap(nil) == nil {
		t.mu.Unlock()
		panic("broker: a subscription ended twice")
	}
	n, _ := t.tree.Get(filter)
	n.dead++
	t.subs--
	switch {
	case n.dead == len(n.subs):
		t.tree.Delete(filter)
	case n.dead > 16 && n.dead > len(n.subs)/2:
		n.compact()
	}
	t.mu.Unlock()
	t.generation.Add(1)
}

// compact leaves out the ended subscriptions, in a new slice.
func (n *node) compact() {
	kept := make([]*sub, 0, len(n.subs)-n.dead)
	for _, s := range n.subs {
		if s.opts.Load() != nil {
			kept = append(kept, s)
		}
	}
	n.dead -= len(n.subs) - len(kept)
	n.subs = kept
}

// match appends the subscriptions of every matching filter to dst.
func (t *liveTree) match(name string, dst [][]*sub) [][]*sub {
	t.mu.RLock()
	t.tree.Match(name, func(n *node) { dst = append(dst, n.subs) })
	t.mu.RUnlock()
	return dst
}
