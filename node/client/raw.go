package client

import (
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"

	"quorate/protocol/packet"
)

// A plain socket can be asked to take or give what it can without waiting. So a connection that waits for its client has
// no read buffer, and one goroutine writes to many connections, one after the other, without being held up by any: only
// what a client does not take at once gets a goroutine of its own. TLS, WebSockets and the pipes of tests cannot do that
// and are read with a buffer and written by a goroutine each.
//
// bench qos0-full (10 publishers to 10 subscribers, closed loop, 256 B), CPU of the node for a message: 2.0 to 2.3 us with
// a buffer and a goroutine for each write, 0.5 to 0.6 us so.

// rawOf returns what reads and writes without waiting; nil if nc cannot.
func rawOf(nc net.Conn) syscall.RawConn {
	switch nc := nc.(type) {
	case *net.TCPConn:
		raw, _ := nc.SyscallConn()
		return raw
	case *net.UnixConn:
		raw, _ := nc.SyscallConn()
		return raw
	}
	return nil
}

// lazyReader is a deadlineReader that waits without a buffer. It implements packet.Lazy.
type lazyReader Conn

// Read implements io.Reader.
func (d *lazyReader) Read(p []byte) (int, error) { return (*deadlineReader)(d).Read(p) }

// rawRead is the result of one attempt.
type rawRead struct {
	try func(fd uintptr) bool
	n   int
	err error
}

// ReadLazily implements packet.Lazy.
func (d *lazyReader) ReadLazily(*packet.Reader) (int, error) {
	c := (*Conn)(d)
	for {
		err := c.raw.Read(c.reading.try)
		if err == nil {
			err = c.reading.err
		}
		if n := c.reading.n; err == nil && n > 0 {
			c.bytesIn += uint64(n)
			return n, nil
		}
		if err := c.awake(err); err != nil {
			return 0, err
		}
	}
}

// tryRead reads once; false when nothing is there.
func (c *Conn) tryRead(fd uintptr) bool {
	buf := c.reader.Borrow()
	for {
		n, err := syscall.Read(int(fd), buf)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			c.reader.Return()
			return false
		case err == nil && n == 0:
			err = io.EOF
		}
		c.reading.n, c.reading.err = max(n, 0), err
		return true
	}
}

// rawWrite is one attempt to write. Pooled, because what a callback writes to is on the heap: itself, its callback and its
// vector would be three allocations a write.
type rawWrite struct {
	vec  net.Buffers // what is left
	keep net.Buffers // the same memory from its start
	n    int
	err  error
	try  func(fd uintptr) bool
}

var rawWrites = sync.Pool{New: func() any {
	w := new(rawWrite)
	w.try = w.write
	return w
}}

// write writes until nothing is left or the client takes no more. It never asks to wait.
func (w *rawWrite) write(fd uintptr) bool {
	for len(w.vec) > 0 {
		n, err := syscall.Write(int(fd), w.vec[0])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return true
		case err != nil:
			w.err = err
			return true
		}
		w.n += n
		if n < len(w.vec[0]) {
			w.vec[0] = w.vec[0][n:]
			return true
		}
		w.vec = w.vec[1:]
	}
	return true
}

func (w *rawWrite) reset() {
	clear(w.keep)
	w.vec, w.keep, w.n, w.err = w.keep[:0], w.keep[:0], 0, nil
}

// Writers write for connections that are not written by who queued something: few goroutines for all of them, which end
// when nothing is left. While they are busy, what is queued for a connection that waits its turn gathers.
type Writers struct {
	mu      sync.Mutex
	queue   []*Conn // Invariant: every one is claimed, and so in it once.
	running int     // Invariant: at most GOMAXPROCS.
}

func (w *Writers) add(conns ...*Conn) {
	w.mu.Lock()
	w.queue = append(w.queue, conns...)
	start := min(len(w.queue), runtime.GOMAXPROCS(0)-w.running)
	w.running += max(start, 0)
	w.mu.Unlock()
	for range start {
		go w.run()
	}
}

func (w *Writers) run() {
	var mine []*Conn
	for {
		w.mu.Lock()
		if len(w.queue) == 0 {
			w.queue = nil
			w.running--
			w.mu.Unlock()
			return
		}
		// A share, so that the others have something to do, too.
		n := (len(w.queue) + w.running - 1) / w.running
		mine = append(mine[:0], w.queue[:n]...)
		rest := copy(w.queue, w.queue[n:])
		clear(w.queue[rest:])
		w.queue = w.queue[:rest]
		w.mu.Unlock()
		for _, c := range mine {
			c.writeWithout()
		}
		clear(mine)
	}
}

// writeWithout writes without waiting for the client. What that leaves gets a goroutine.
func (c *Conn) writeWithout() {
	if c.raw == nil {
		go c.write()
		return
	}
	done := true
	if err := c.protect(func() { done = c.writeSome() }); err != nil {
		c.writerFailed(err)
		return
	}
	if !done {
		go c.write()
	}
}

// writeSome is writeAll without waiting; false when something is left.
func (c *Conn) writeSome() bool {
	w := rawWrites.Get().(*rawWrite)
	defer rawWrites.Put(w)
	for {
		last, counts, done := c.take(&w.keep)
		if done {
			return true
		}
		w.vec = w.keep
		err := c.raw.Write(w.try)
		if err == nil {
			err = w.err
		}
		c.metrics.Writes.Add(1)
		c.countWritten(&counts, w.n)
		left := len(w.vec) > 0
		c.out.mu.Lock()
		c.out.pending -= w.n
		switch {
		case err != nil:
			c.fail()
		case left && !c.out.failed:
			c.out.sealed = append(append(net.Buffers(nil), w.vec...), c.out.sealed...)
		}
		c.out.mu.Unlock()
		if !left {
			release(last)
		}
		w.reset()
		if left && err == nil {
			return false
		}
	}
}
