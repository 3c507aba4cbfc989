package bodies

import "fmt"

// write is the writer goroutine: it writes full chunks and removes empty segments, until Close.
func (s *Store) write() {
	defer close(s.done)
	for range s.work {
		for s.writeNext() || s.removeNext() {
		}
		s.mu.RLock()
		closed := s.closed
		s.mu.RUnlock()
		if closed {
			return
		}
	}
}

// writeNext writes the full chunks of one segment; false means there was nothing to do.
func (s *Store) writeNext() bool {
	s.mu.Lock()
	if len(s.queue) == 0 || s.closed {
		s.mu.Unlock()
		return false
	}
	seg := s.queue[0]
	s.queue = s.queue[1:]
	seg.queued = false
	var ready []chunk
	if !s.gone(seg) { // else it emptied before it was written
		ready = seg.ready()
	}
	s.mu.Unlock()

	if err := s.writeChunks(seg, ready); err != nil {
		s.opt.Fatal(fmt.Errorf("write message bodies in %s: %w", s.dir, err))
		return true
	}
	s.mu.Lock()
	if !s.gone(seg) && len(ready) > 0 {
		s.unwritten -= seg.wrote(ready)
		s.recycle(ready)
		s.roomy.Broadcast()
	}
	s.mu.Unlock()
	return true
}

// writeChunks writes to the segment's file, making it first. Only the writer goroutine touches files this way.
func (s *Store) writeChunks(seg *segment, ready []chunk) error {
	if len(ready) == 0 {
		return nil
	}
	if seg.file == nil {
		f, err := seg.create(s.dir)
		if err != nil {
			return err
		}
		s.mu.Lock()
		seg.file = f
		s.mu.Unlock()
	}
	for _, c := range ready {
		if _, err := seg.file.WriteAt(c.buf, int64(c.offset)); err != nil {
			return err
		}
	}
	return nil
}

// gone reports whether seg is no longer readable. The caller holds s.mu.
func (s *Store) gone(seg *segment) bool { return s.segments[seg.number] != seg }

// retire marks a segment that nothing lives in and removes it as soon as no pin protects it. The caller holds s.mu.
func (s *Store) retire(seg *segment) {
	seg.retired = true
	if s.pins.none() {
		s.doom(seg)
		return
	}
	s.zombies = append(s.zombies, zombie{seg, s.pins.newest()})
}

// doom makes seg unreadable and leaves its file to the writer. The caller holds s.mu.
func (s *Store) doom(seg *segment) {
	delete(s.segments, seg.number)
	s.unwritten -= seg.scheduled - seg.written
	seg.chunks = nil
	s.roomy.Broadcast()
	s.doomed = append(s.doomed, seg)
	s.signal()
}

// removeNext removes the file of one dead segment; false means there was none.
func (s *Store) removeNext() bool {
	s.mu.Lock()
	if len(s.doomed) == 0 {
		s.mu.Unlock()
		return false
	}
	seg := s.doomed[0]
	s.doomed = s.doomed[1:]
	s.mu.Unlock()
	if err := seg.remove(); err != nil {
		s.opt.Fatal(fmt.Errorf("remove message bodies in %s: %w", s.dir, err))
	}
	return true
}

// zombie is an empty segment that pins up to newest protect.
type zombie struct {
	seg    *segment
	newest uint64
}

// pins are the numbers of the active pins, ascending.
type pins struct {
	last   uint64
	active []uint64
}

func (p *pins) none() bool     { return len(p.active) == 0 }
func (p *pins) newest() uint64 { return p.active[len(p.active)-1] }
func (p *pins) add() uint64 {
	p.last++
	p.active = append(p.active, p.last)
	return p.last
}

func (p *pins) remove(n uint64) {
	for i, a := range p.active {
		if a == n {
			p.active = append(p.active[:i], p.active[i+1:]...)
			return
		}
	}
}

// Pin keeps everything stored now readable until unpin is called, also what is freed or Reset meanwhile. unpin may be
// called twice.
func (s *Store) Pin() (unpin func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.pins.add()
	return func() { s.unpin(n) }
}

func (s *Store) unpin(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pins.remove(n)
	kept := s.zombies[:0]
	for _, z := range s.zombies {
		if s.pins.none() || s.pins.active[0] > z.newest {
			s.doom(z.seg)
		} else {
			kept = append(kept, z)
		}
	}
	s.zombies = kept
}
