package session

// ring is a queue that gives its memory back when it is empty. The zero ring is empty.
type ring[T any] struct {
	buf  []T // Invariant: len(buf) is 0 or a power of two.
	head int
	n    int
}

// keepMax is the capacity an empty ring keeps.
const keepMax = 16

func (r *ring[T]) len() int { return r.n }

// at returns the i-th element from the front; it stays valid until the next push or pop.
func (r *ring[T]) at(i int) *T { return &r.buf[(r.head+i)&(len(r.buf)-1)] }

func (r *ring[T]) front() (*T, bool) {
	if r.n == 0 {
		return nil, false
	}
	return &r.buf[r.head], true
}

func (r *ring[T]) push(v T) {
	if r.n == len(r.buf) {
		grown := make([]T, max(4, 2*len(r.buf)))
		for i := range r.n {
			grown[i] = *r.at(i)
		}
		r.buf, r.head = grown, 0
	}
	*r.at(r.n) = v
	r.n++
}

func (r *ring[T]) pop() (v T, ok bool) {
	if r.n == 0 {
		return v, false
	}
	v = r.buf[r.head]
	var zero T
	r.buf[r.head] = zero
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
	if r.n == 0 && len(r.buf) > keepMax {
		r.buf, r.head = nil, 0
	}
	return v, true
}
