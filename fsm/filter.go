package fsm

import (
	"cmp"
	"slices"
)

// filter is a Topic Filter that somebody subscribes to: persistent sessions (stream), nodes with live subscribers
// (routes), shared groups.
type filter struct {
	index, gen uint32
	name       string
	// stream is nil while no persistent subscription with a QoS above 0 has been made, or all of it is done.
	stream *stream
	// routes are the table indexes of the node incarnations with live subscribers, in order. Some may be dead and wait
	// to be swept.
	routes []uint32
	// groups are the shared groups of this filter by share name, all with members. Derived.
	groups []*group
	// subs counts the subscriptions of sessions, whatever their QoS. Derived.
	subs int
	work queued
}

// filterFor finds or makes the filter of that name.
func (st *state) filterFor(name string) *filter {
	if f, ok := st.tree.Get(name); ok {
		return f
	}
	f := &filter{name: name, gen: st.gen}
	f.index = st.filters.add(f)
	st.tree.Set(name, f)
	st.effectString(effectFilterNew, uint64(f.index), name)
	return f
}

// dropFilter removes a filter that nothing refers to any more.
func (st *state) dropFilter(f *filter) {
	if f.subs > 0 || f.stream != nil || len(f.routes) > 0 || len(f.groups) > 0 || st.filters.at(f.index) != f {
		return
	}
	st.touchFilter(f)
	st.dropWork(&f.work)
	st.tree.Delete(f.name)
	st.filters.remove(f.index)
	st.effect(effectFilterGone, uint64(f.index), 0)
}

// match collects the filters that match a topic, in the order of their indexes: the order in which the tree finds them
// is nothing the state may depend on.
func (st *state) match(topic string) []*filter {
	st.matched = st.matched[:0]
	st.tree.Match(topic, st.collect)
	if len(st.matched) > 1 {
		slices.SortFunc(st.matched, func(a, b *filter) int { return cmp.Compare(a.index, b.index) })
	}
	return st.matched
}

// addRoute notes that a node wants live messages of the filter.
func (st *state) addRoute(name string, l *life) bool {
	if _, _, shared, err := parseFilter(name); shared || err != nil {
		return false
	}
	f := st.filterFor(name)
	i, found := slices.BinarySearch(f.routes, l.index)
	if found {
		return true
	}
	st.touchFilter(f)
	f.routes = slices.Insert(f.routes, i, l.index)
	l.routes++
	st.routes++
	st.effect(effectRouteAdd, uint64(f.index), uint64(l.index))
	return true
}

// removeRoute ends that; it tells whether there was a route.
func (st *state) removeRoute(f *filter, l *life) bool {
	i, found := slices.BinarySearch(f.routes, l.index)
	if !found {
		return false
	}
	st.touchFilter(f)
	f.routes = slices.Delete(f.routes, i, i+1)
	l.routes--
	st.routes--
	st.effect(effectRouteRemove, uint64(f.index), uint64(l.index))
	st.dropFilter(f)
	return true
}

// changeRoutes applies what a node reports.
func (st *state) changeRoutes(add, remove []string, l *life) {
	for _, name := range remove {
		if f, ok := st.tree.Get(name); ok {
			st.removeRoute(f, l)
		}
	}
	for _, name := range add {
		st.addRoute(name, l)
	}
}
