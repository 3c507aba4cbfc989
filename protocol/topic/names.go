package topic

import (
	"slices"
	"sort"
	"strings"
)

// Names holds a value for each of a set of Topic Names and finds those that match
// a Topic Filter, in order and from any place on. The zero Names is empty and
// ready. It is not safe for concurrent changes; any number of readers may run
// while nobody changes it.
//
// The order is that of Compare: level by level, so that a level and all below it
// stand together. The names are in a sorted list of sorted chunks; a match jumps
// over what cannot match. (A trie would need its children sorted for the order,
// which a flat million under one level makes expensive, and costs more memory.)
type Names[V any] struct {
	// Invariant: no chunk is empty, all names are in strictly rising order.
	chunks []*chunk[V]
	len    int
}

// chunkMax is how many names a chunk holds at most: an insertion moves at most
// that many (BenchmarkNamesSet).
const chunkMax = 256

type chunk[V any] struct{ items []item[V] }

type item[V any] struct {
	name  string
	value V
}

// position is a place in the list: an item, or the end.
type position struct{ chunk, item int }

// Compare orders Topic Names level by level: it is the order of their bytes with
// "/" before every other byte. It returns a negative number, 0 or a positive one.
func Compare(a, b string) int { return compare(a, b) }

func compare[T string | []byte](a string, b T) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return rank(a[i]) - rank(b[i])
		}
	}
	return len(a) - len(b)
}

func rank(b byte) int {
	if b == '/' {
		return -1
	}
	return int(b)
}

// Set puts v in for name, in place of what was there.
func (t *Names[V]) Set(name string, v V) {
	at, found := t.seek(name)
	if found {
		t.chunks[at.chunk].items[at.item].value = v
		return
	}
	t.len++
	if len(t.chunks) == 0 {
		t.chunks = append(t.chunks, &chunk[V]{})
	}
	if at.chunk == len(t.chunks) { // behind all: into the last one
		at.chunk--
		at.item = len(t.chunks[at.chunk].items)
	}
	c := t.chunks[at.chunk]
	if len(c.items) == chunkMax {
		half := &chunk[V]{items: append(make([]item[V], 0, chunkMax), c.items[chunkMax/2:]...)}
		clear(c.items[chunkMax/2:])
		c.items = c.items[:chunkMax/2]
		t.chunks = slices.Insert(t.chunks, at.chunk+1, half)
		if at.item > chunkMax/2 {
			c, at.item = half, at.item-chunkMax/2
		}
	}
	c.items = slices.Insert(c.items, at.item, item[V]{name, v})
}

// Get returns the value of name.
func (t *Names[V]) Get(name string) (v V, ok bool) {
	at, found := t.seek(name)
	if !found {
		return v, false
	}
	return t.chunks[at.chunk].items[at.item].value, true
}

// Delete takes name out and reports whether it was there.
func (t *Names[V]) Delete(name string) bool {
	at, found := t.seek(name)
	if !found {
		return false
	}
	t.len--
	c := t.chunks[at.chunk]
	c.items = slices.Delete(c.items, at.item, at.item+1)
	switch next := at.chunk + 1; {
	case len(c.items) == 0:
		t.chunks = slices.Delete(t.chunks, at.chunk, next)
	case next < len(t.chunks) && len(c.items)+len(t.chunks[next].items) < chunkMax/2:
		c.items = append(c.items, t.chunks[next].items...)
		t.chunks = slices.Delete(t.chunks, next, next+1)
	}
	return true
}

// Len returns how many names there are.
func (t *Names[V]) Len() int { return t.len }

// All calls visit for each name in order. visit does not change the Names.
func (t *Names[V]) All(visit func(name string, v V)) {
	for _, c := range t.chunks {
		for i := range c.items {
			visit(c.items[i].name, c.items[i].value)
		}
	}
}

// Match calls visit for the names that match the valid, plain filter and stand
// after the name `after` ("" is before all), in order, until visit returns false.
// visit does not change the Names.
func (t *Names[V]) Match(filter, after string, visit func(name string, v V) bool) {
	at, found := t.seek(after)
	if found {
		at = t.next(at)
	}
	var room [128]byte
	w := walk{filter: filter, jump: room[:0]}
	for at.chunk < len(t.chunks) {
		it := &t.chunks[at.chunk].items[at.item]
		switch w.judge(it.name) {
		case matches:
			if !visit(it.name, it.value) {
				return
			}
			at = t.next(at)
		case skip:
			at = t.next(at)
		case jumpTo:
			at = t.search(at, func(name string) bool { return compare(name, w.jump) >= 0 })
		case jumpOver:
			at = t.search(at, func(name string) bool { return behind(name, it.name[:w.prefix]) })
		case over:
			return
		}
	}
}

// behind reports whether name stands behind prefix and all names below it.
func behind(name, prefix string) bool {
	if len(name) > len(prefix) && name[len(prefix)] == '/' && name[:len(prefix)] == prefix {
		return false
	}
	return compare(name, prefix) > 0
}

// verdict says what a name means for a Match, and where the next one can be.
type verdict byte

const (
	matches  verdict = iota
	skip             // the next name may match
	jumpTo           // nothing matches before walk.jump
	jumpOver         // nothing matches at or below the first walk.prefix bytes of the name
	over             // nothing matches any more
)

// walk compares names with one filter.
type walk struct {
	filter string
	jump   []byte
	prefix int
}

// judge compares name with the filter, level by level. The names come in order:
// what is smaller than the filter's literal level can be jumped over to it, and
// what is larger ends this branch, back to the last "+".
func (w *walk) judge(name string) verdict {
	plusEnd := -1 // where the level of the last "+" ends in name
	for f, n := 0, 0; ; {
		level, lastLevel := cut(w.filter, f)
		if level == "#" && lastLevel {
			return w.dollar(name, n, matches)
		}
		got, lastGot := cut(name, n)
		if level == "+" {
			if v := w.dollar(name, n, matches); v != matches {
				return v
			}
			plusEnd = n + len(got)
		} else if c := compare(got, level); c < 0 {
			w.jump = append(append(w.jump[:0], name[:n]...), level...)
			return jumpTo
		} else if c > 0 {
			return w.back(plusEnd)
		}
		f, n = f+len(level)+1, n+len(got)+1
		switch {
		case lastGot && lastLevel:
			return matches
		case lastGot && w.filter[f:] == "#":
			return matches // the parent level
		case lastGot:
			return skip // a name below this one may match
		case lastLevel:
			return w.back(plusEnd)
		}
	}
}

// dollar refuses a wildcard at the first level of a name that begins with "$"
// [MQTT-4.7.2-1].
func (w *walk) dollar(name string, n int, otherwise verdict) verdict {
	if n > 0 || name == "" || name[0] != '$' {
		return otherwise
	}
	first, _ := cut(name, 0)
	w.prefix = len(first)
	return jumpOver
}

func (w *walk) back(plusEnd int) verdict {
	if plusEnd < 0 {
		return over
	}
	w.prefix = plusEnd
	return jumpOver
}

// cut returns the level of s that begins at i, and whether it is the last.
func cut(s string, i int) (level string, last bool) {
	if n := strings.IndexByte(s[i:], '/'); n >= 0 {
		return s[i : i+n], false
	}
	return s[i:], true
}

// seek returns the place of name, or where it would be.
func (t *Names[V]) seek(name string) (at position, found bool) {
	at = t.search(position{}, func(s string) bool { return compare(s, name) >= 0 })
	if at.chunk == len(t.chunks) {
		return at, false
	}
	return at, t.chunks[at.chunk].items[at.item].name == name
}

func (t *Names[V]) next(at position) position {
	if at.item++; at.item == len(t.chunks[at.chunk].items) {
		return position{at.chunk + 1, 0}
	}
	return at
}

// search returns the first place at or behind from whose name is reached; reached
// is false for some names and true for all behind them.
func (t *Names[V]) search(from position, reached func(name string) bool) position {
	inChunk := func(c, low int) position {
		items := t.chunks[c].items
		return position{c, low + sort.Search(len(items)-low, func(i int) bool { return reached(items[low+i].name) })}
	}
	last := func(c int) bool { items := t.chunks[c].items; return reached(items[len(items)-1].name) }
	if from.chunk < len(t.chunks) && last(from.chunk) {
		return inChunk(from.chunk, from.item)
	}
	low := min(from.chunk+1, len(t.chunks))
	c := low + sort.Search(len(t.chunks)-low, func(i int) bool { return last(low + i) })
	if c == len(t.chunks) {
		return position{c, 0}
	}
	return inChunk(c, 0)
}
