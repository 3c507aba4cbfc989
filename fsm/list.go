package fsm

import "slices"

const listChunk = 1024

// list is a queue of message slots in chunks. What has been appended is never overwritten, so that a copy of the chunk
// headers (view) is an immutable picture of the queue.
//
// Invariant: every chunk but the first and the last is full; the first begins at head; without pushFront the first is
// full too, unless it is the only one.
type list struct {
	chunks [][]uint32
	head   int
	count  int
}

// push appends slot.
func (l *list) push(slot uint32) {
	last := len(l.chunks) - 1
	if last < 0 || len(l.chunks[last]) >= listChunk {
		var chunk []uint32
		if last >= 0 {
			chunk = make([]uint32, 0, listChunk)
		}
		l.chunks = append(l.chunks, chunk)
		last++
	}
	l.chunks[last] = append(l.chunks[last], slot)
	l.count++
}

// pushFront puts slots before the others. at must not be used on a list after that.
func (l *list) pushFront(slots []uint32) {
	if len(slots) == 0 {
		return
	}
	chunks := make([][]uint32, 0, len(l.chunks)+1)
	chunks = append(chunks, slices.Clone(slots))
	if l.count > 0 {
		// The head chunk loses what was popped; its remaining entries are shared with any view.
		chunks = append(chunks, l.chunks[0][l.head:])
		chunks = append(chunks, l.chunks[1:]...)
	}
	l.chunks, l.head = chunks, 0
	l.count += len(slots)
}

// front is the oldest slot of a list that is not empty.
func (l *list) front() uint32 { return l.chunks[0][l.head] }

// pop removes the oldest slot.
func (l *list) pop() {
	l.head++
	l.count--
	if l.count == 0 {
		// An empty list holds no memory: most streams are empty most of the time.
		l.chunks, l.head = nil, 0
		return
	}
	if l.head < len(l.chunks[0]) {
		return
	}
	l.head = 0
	l.chunks[0] = nil
	l.chunks = l.chunks[1:]
}

// at is the i-th slot from the front.
func (l *list) at(i int) uint32 {
	i += l.head
	return l.chunks[i/listChunk][i%listChunk]
}

// view is the list as it is now, not changed by later pushes and pops.
func (l *list) view() list {
	return list{chunks: slices.Clone(l.chunks), head: l.head, count: l.count}
}

// all visits the slots from the front.
func (l *list) all(visit func(slot uint32)) {
	head := l.head
	for _, chunk := range l.chunks {
		for _, slot := range chunk[head:] {
			visit(slot)
		}
		head = 0
	}
}
