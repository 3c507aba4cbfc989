package broker

import (
	"sync"

	"quorate/fsm/command"
)

// links are the connections of this node: all of them, and by ownership those that the log has accepted.
type links struct {
	mu     sync.RWMutex
	all    map[*link]struct{}
	byRef  map[command.Ref]*link
	closed bool
}

// open adds a connection; false when no more are taken.
func (s *links) open(l *link) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.all == nil {
		s.all, s.byRef = make(map[*link]struct{}), make(map[command.Ref]*link)
	}
	s.all[l] = struct{}{}
	return true
}

func (s *links) close(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, l)
}

// own notes that the log gave l the ownership ref.
func (s *links) own(ref command.Ref, l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byRef[ref] = l
}

func (s *links) disown(ref command.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byRef, ref)
}

// get returns the connection that owns ref here, or nil.
func (s *links) get(ref command.Ref) *link {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byRef[ref]
}

func (s *links) connected() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.byRef)
}

// each calls f for every connection that is open now.
func (s *links) each(f func(l *link)) {
	s.mu.RLock()
	list := make([]*link, 0, len(s.all))
	for l := range s.all {
		list = append(list, l)
	}
	s.mu.RUnlock()
	for _, l := range list {
		f(l)
	}
}

// shut takes no more connections and calls f for every open one.
func (s *links) shut(f func(l *link)) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.each(f)
}
