package packet

// fill reads once, behind what is in the buffer. need is the size of the packet
// there, or 0 while it is not known.
func (r *Reader) fill(need int) (int, error) {
	if r.start == r.end {
		r.giveBack()
		if r.lazy != nil {
			return r.fillLazily()
		}
	}
	r.resize(need)
	space := r.buf[r.end:]
	n, err := r.r.Read(space)
	r.end += n
	r.full = n == len(space)
	return n, err
}

// fillLazily reads when nothing is left to decode.
func (r *Reader) fillLazily() (int, error) {
	if len(r.buf) <= bulkBytes || !r.full {
		r.Return()
	}
	n, err := r.lazy.ReadLazily(r)
	r.end = n
	r.full = n > 0 && n == len(r.buf)
	if n == 0 {
		r.Return()
	}
	return n, err
}

// Borrow returns the buffer that a Lazy source reads into.
func (r *Reader) Borrow() []byte {
	r.start, r.end = 0, 0
	if r.buf == nil {
		r.bulk = bulkPool.Get().(*[bulkBytes]byte)
		r.buf = r.bulk[:]
	}
	return r.buf
}

// Return takes the buffer back in which nothing was read.
func (r *Reader) Return() {
	if r.bulk != nil {
		bulkPool.Put(r.bulk)
	}
	r.buf, r.bulk, r.start, r.end, r.full = nil, nil, 0, 0, false
}

// giveBack ends the use of the packet that Next returned last.
func (r *Reader) giveBack() {
	if r.loan == nil {
		return
	}
	*r.loan = loan{} // it points into a buffer that is somebody else's from now on
	loanPool.Put(r.loan)
	r.loan = nil
}

// resize picks the buffer for the next read and moves what is left to its front.
// A read may wait for hours, so large buffers are held only with a reason: the
// last read was full, or their bytes have arrived.
func (r *Reader) resize(need int) {
	have, size := r.end-r.start, len(r.buf)
	switch {
	case have <= idleBytes/2 && need <= idleBytes && !r.full:
		size = idleBytes
	case r.full && size < bulkBytes:
		size = bulkBytes
	case have < size && (size <= need+bulkBytes || r.full && size <= keepBytes):
		// There is room, and the buffer is not larger than it may be.
	default:
		// Twice what arrived, but little beyond the packet: just so much that a read
		// which fills it tells that there is more.
		size = min(2*max(have, idleBytes), need+bulkBytes)
	}
	old, oldBulk := r.buf[r.start:r.end], r.bulk
	changed := size != len(r.buf)
	if changed {
		r.bulk = nil
		if size == bulkBytes {
			r.bulk = bulkPool.Get().(*[bulkBytes]byte)
			r.buf = r.bulk[:]
		} else {
			r.buf = make([]byte, size)
		}
	}
	if changed || r.start > 0 {
		copy(r.buf, old)
	}
	r.start, r.end = 0, have
	if oldBulk != nil && r.bulk == nil {
		bulkPool.Put(oldBulk)
	}
}
