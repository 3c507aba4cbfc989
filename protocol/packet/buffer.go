package packet

// fill reads once, behind what is in the buffer. need is the size of the packet
// there, or 0 while it is not known.
func (r *Reader) fill(need int) (int, error) {
	r.resize(need)
	space := r.buf[r.end:]
	n, err := r.r.Read(space)
	r.end += n
	r.full = n == len(space)
	return n, err
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
		switch size {
		case idleBytes:
			r.buf = r.idle[:]
		case bulkBytes:
			r.bulk = bulkPool.Get().(*[bulkBytes]byte)
			r.buf = r.bulk[:]
		default:
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
