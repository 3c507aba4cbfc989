package storage

import "sync"

// sizes knows the bytes of each entry in the log, so that snapshots and compaction go by bytes. Safe for concurrent use.
type sizes struct {
	mu    sync.Mutex
	first uint64   // index of list[0]
	list  []uint32 // a gap in the log counts as zeros
}

// gapMax bounds the zeros that stand for a gap; beyond it the older entries are forgotten, which only makes a snapshot
// come a little later.
const gapMax = 1 << 20

func (s *sizes) add(index uint64, bytes uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.first + uint64(len(s.list))
	if len(s.list) == 0 || index < s.first || index > next+gapMax {
		s.first, s.list = index, append(s.list[:0], bytes)
		return
	}
	for ; next < index; next++ {
		s.list = append(s.list, 0)
	}
	s.list = append(s.list[:index-s.first], bytes)
}

func (s *sizes) dropUpTo(index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index < s.first {
		return
	}
	n := min(index-s.first+1, uint64(len(s.list)))
	s.list = s.list[n:] // append moves it to a new array when this one is used up
	s.first = index + 1
}

func (s *sizes) dropFrom(index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index < s.first+uint64(len(s.list)) {
		s.list = s.list[:max(index, s.first)-s.first]
	}
}

func (s *sizes) bytesAfter(index uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum uint64
	for i := len(s.list) - 1; i >= 0 && s.first+uint64(i) > index; i-- {
		sum += uint64(s.list[i])
	}
	return sum
}

func (s *sizes) trailing(bytes uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum, n uint64
	for i := len(s.list) - 1; i >= 0; i-- {
		sum += uint64(s.list[i])
		if sum > bytes {
			break
		}
		n++
	}
	return n
}
