package topic

import (
	"slices"
	"strings"
)

// Tree holds a value for each of a set of Topic Filters and finds those whose
// filter matches a Topic Name. The zero Tree is empty and ready. It is not safe
// for concurrent changes; any number of readers may run while nobody changes it.
//
// Filters are valid and plain (what ParseShared calls inner). In one that is not,
// a wildcard character out of its place is an ordinary one, which no valid Topic
// Name holds.
//
// Filters without a wildcard, the many, are in one hash map by their whole text.
// The others form a trie over levels, whose nodes are in one slice and whose
// edges are in one hash map: a map or a slice of children in each node would cost
// more than all the rest (BenchmarkTreeMatch reports the bytes for each filter).
type Tree[V any] struct {
	exact map[string]V
	nodes []node[V]       // nodes[0] is the root; empty until the first wildcard
	edges map[edge]uint32 // literal levels
	free  []uint32        // nodes that are not in use
	wild  int             // filters in the trie
}

// edge leads from a node over a literal level to another node.
type edge struct {
	from  uint32
	level string
}

// node is a sequence of levels that a filter begins with. Its number is its place
// in Tree.nodes; 0, the root, stands for "none" in a link.
//
// Invariant: every node but the root has a filter or a child.
type node[V any] struct {
	plus     uint32 // the child of "+"
	hash     uint32 // the child of "#"
	children uint32 // how many there are, plus and hash included
	set      bool
	filter   string // counts with set
	value    V
}

// Set puts v in for filter, in place of what was there.
func (t *Tree[V]) Set(filter string, v V) {
	if !HasWildcard(filter) {
		if t.exact == nil {
			t.exact = make(map[string]V)
		}
		t.exact[filter] = v
		return
	}
	if len(t.nodes) == 0 {
		t.nodes = append(t.nodes, node[V]{})
		t.edges = make(map[edge]uint32)
	}
	at := uint32(0)
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		next := t.child(at, level)
		if next == 0 {
			next = t.add(at, level)
		}
		at = next
	}
	n := &t.nodes[at]
	if !n.set {
		t.wild++
	}
	n.set, n.filter, n.value = true, filter, v
}

// Get returns the value of exactly this filter.
func (t *Tree[V]) Get(filter string) (v V, ok bool) {
	if !HasWildcard(filter) {
		v, ok = t.exact[filter]
		return v, ok
	}
	at, ok := t.find(filter, nil)
	if !ok {
		return v, false
	}
	return t.nodes[at].value, t.nodes[at].set
}

// Delete takes filter out and reports whether it was there.
func (t *Tree[V]) Delete(filter string) bool {
	if !HasWildcard(filter) {
		_, ok := t.exact[filter]
		delete(t.exact, filter)
		return ok
	}
	var room [MaxLevels + 1]uint32
	path := room[:0]
	at, ok := t.find(filter, &path)
	if !ok || !t.nodes[at].set {
		return false
	}
	var zero V
	n := &t.nodes[at]
	n.set, n.filter, n.value = false, "", zero
	t.wild--
	t.prune(filter, path)
	return true
}

// Len returns how many filters there are.
func (t *Tree[V]) Len() int { return len(t.exact) + t.wild }

// Match calls visit once for each filter that the Topic Name matches (section
// 4.7), in no particular order. visit does not change the Tree.
func (t *Tree[V]) Match(name string, visit func(v V)) {
	if v, ok := t.exact[name]; ok {
		visit(v)
	}
	if t.wild > 0 {
		t.match(0, name, true, name != "" && name[0] == '$', visit)
	}
}

// All calls visit for each filter in the order of their bytes. visit does not
// change the Tree.
func (t *Tree[V]) All(visit func(filter string, v V)) {
	filters := make([]string, 0, t.Len())
	for f := range t.exact {
		filters = append(filters, f)
	}
	places := make(map[string]uint32, t.wild)
	for i := range t.nodes {
		if n := &t.nodes[i]; n.set {
			filters = append(filters, n.filter)
			places[n.filter] = uint32(i)
		}
	}
	slices.Sort(filters)
	for _, f := range filters {
		if at, ok := places[f]; ok {
			visit(f, t.nodes[at].value)
			continue
		}
		visit(f, t.exact[f])
	}
}

// match visits what is at and below a node for the levels in rest. It goes as deep
// as the filters do, which is MaxLevels. dollar says that the next level is the
// first and begins with "$": wildcards do not match it [MQTT-4.7.2-1].
func (t *Tree[V]) match(at uint32, rest string, more, dollar bool, visit func(v V)) {
	n := &t.nodes[at]
	if n.hash != 0 && !dollar {
		if h := &t.nodes[n.hash]; h.set {
			visit(h.value) // the parent level matches too
		}
	}
	if !more {
		if n.set {
			visit(n.value)
		}
		return
	}
	if n.children == 0 {
		return
	}
	level, rest, more := strings.Cut(rest, "/")
	if n.plus != 0 && !dollar {
		t.match(n.plus, rest, more, false, visit)
	}
	if next, ok := t.edges[edge{at, level}]; ok {
		t.match(next, rest, more, false, visit)
	}
}

// child returns the child of a node for one level of a filter, or 0.
func (t *Tree[V]) child(at uint32, level string) uint32 {
	switch level {
	case "+":
		return t.nodes[at].plus
	case "#":
		return t.nodes[at].hash
	}
	return t.edges[edge{at, level}]
}

// add makes that child.
func (t *Tree[V]) add(at uint32, level string) uint32 {
	var next uint32
	if last := len(t.free) - 1; last >= 0 {
		next = t.free[last]
		t.free = t.free[:last]
	} else {
		next = uint32(len(t.nodes))
		t.nodes = append(t.nodes, node[V]{})
	}
	n := &t.nodes[at]
	n.children++
	switch level {
	case "+":
		n.plus = next
	case "#":
		n.hash = next
	default:
		t.edges[edge{at, strings.Clone(level)}] = next // the filter may be long and go first
	}
	return next
}

// find walks to the node of a filter. The nodes on the way, root first, are
// appended to path if it is not nil.
func (t *Tree[V]) find(filter string, path *[]uint32) (at uint32, ok bool) {
	if len(t.nodes) == 0 {
		return 0, false
	}
	for rest, more := filter, true; more; {
		if path != nil {
			*path = append(*path, at)
		}
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if at = t.child(at, level); at == 0 {
			return 0, false
		}
	}
	return at, true
}

// prune frees the node of a filter and those on its path that nothing needs any
// more.
func (t *Tree[V]) prune(filter string, path []uint32) {
	for i := len(path) - 1; i >= 0; i-- {
		cut := strings.LastIndexByte(filter, '/')
		level := filter[cut+1:]
		filter = filter[:max(cut, 0)]
		parent := path[i]
		at := t.child(parent, level)
		if n := &t.nodes[at]; n.set || n.children > 0 {
			return
		}
		t.nodes[at] = node[V]{}
		t.free = append(t.free, at)
		n := &t.nodes[parent]
		n.children--
		switch level {
		case "+":
			n.plus = 0
		case "#":
			n.hash = 0
		default:
			delete(t.edges, edge{parent, level})
		}
	}
}
