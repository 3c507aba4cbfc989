package fsm

import (
	"iter"
	"math/bits"
)

const indexLevels = 4

// indexSet hands out the lowest free index. Level 0 has a bit per index that is in use; a bit of a higher level says
// that the word below it is full. Which index comes next follows from which are in use, and from nothing else.
type indexSet struct{ levels [indexLevels][]uint64 }

// take marks the lowest free index as used and returns it.
func (x *indexSet) take() uint32 {
	i := 0
	for i < len(x.levels[indexLevels-1]) && x.levels[indexLevels-1][i] == ^uint64(0) {
		i++
	}
	for l := indexLevels - 1; l >= 0; l-- {
		if i == len(x.levels[l]) {
			x.levels[l] = append(x.levels[l], 0)
		}
		i = i*64 + bits.TrailingZeros64(^x.levels[l][i])
	}
	x.use(uint32(i))
	return uint32(i)
}

// use marks index i as used.
func (x *indexSet) use(i uint32) {
	for l := range x.levels {
		word := int(i / 64)
		for word >= len(x.levels[l]) {
			x.levels[l] = append(x.levels[l], 0)
		}
		x.levels[l][word] |= 1 << (i % 64)
		if x.levels[l][word] != ^uint64(0) {
			return
		}
		i /= 64
	}
}

// free gives index i back.
func (x *indexSet) free(i uint32) {
	for l := range x.levels {
		word := &x.levels[l][i/64]
		full := *word == ^uint64(0)
		*word &^= 1 << (i % 64)
		if !full {
			return
		}
		i /= 64
	}
}

// table keeps objects under small indexes, the lowest free one first.
type table[T any] struct {
	cells []*T
	index indexSet
	used  int
}

// add places v and returns its index.
func (t *table[T]) add(v *T) uint32 {
	i := t.index.take()
	t.place(i, v)
	return i
}

// put places v at index i, which must be free: for Restore.
func (t *table[T]) put(i uint32, v *T) {
	t.index.use(i)
	t.place(i, v)
}

func (t *table[T]) place(i uint32, v *T) {
	for int(i) >= len(t.cells) {
		t.cells = append(t.cells, nil)
	}
	t.cells[i] = v
	t.used++
}

// at returns what index i holds, nil for nothing.
func (t *table[T]) at(i uint32) *T {
	if int(i) >= len(t.cells) {
		return nil
	}
	return t.cells[i]
}

// remove frees index i, which must be in use.
func (t *table[T]) remove(i uint32) {
	if t.at(i) == nil {
		panic("fsm: remove of an index that is not in use")
	}
	t.cells[i] = nil
	t.index.free(i)
	t.used--
}

// all visits the indexes in use, in order.
func (x *indexSet) all() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for word, w := range x.levels[0] {
			for ; w != 0; w &= w - 1 {
				if !yield(uint32(word*64 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}
