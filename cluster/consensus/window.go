package consensus

import (
	"sync"

	"quorate/fsm"
	"quorate/fsm/command"
)

type completion = func(fsm.Result, error)

// batch is a run of this node's commands.
type batch struct {
	number   uint64
	commands []byte
	dones    []completion
	frame    []byte // the encoded command.Batch, made by the sender when it first sends it
}

// window is this node's ordered stream of batches, from the command just proposed to the one just applied. It does no
// I/O and calls nobody: what is to be sent or called is returned.
type window struct {
	bounds Bounds

	mu          sync.Mutex
	incarnation uint64
	next        uint64   // number of the batch that is sealed next
	open        *batch   // fills; never nil
	sealed      []*batch // Invariant: consecutive numbers, the last is next-1
	sent        int      // how many of sealed are under way; Invariant: sent <= len(sealed)
	bytes       int      // of the commands of sealed and open
	progress    uint64   // counts what the machine took
	closed      bool
	spare       []*batch
}

func newWindow(bounds Bounds, incarnation uint64) *window {
	return &window{bounds: bounds, incarnation: incarnation, next: 1, open: new(batch)}
}

// add encodes a command into the open batch. start says that the sender has something to send.
func (w *window) add(c command.Command, done completion) (start bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return false, ErrShuttingDown
	case w.bytes >= w.bounds.WindowBytes:
		return false, ErrOverloaded
	}
	return w.encode(c, done)
}

// addLast adds a command after which nothing is taken any more.
func (w *window) addLast(c command.Command, done completion) (start bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.closed = true
	start, _ = w.encode(c, done)
	return start
}

func (w *window) encode(c command.Command, done completion) (start bool, err error) {
	b := w.open
	from := len(b.commands)
	b.commands = c.Append(b.commands)
	size := len(b.commands) - from
	if size > w.bounds.CommandBytes {
		b.commands = b.commands[:from]
		return false, ErrTooLarge
	}
	w.bytes += size
	if from > 0 && len(b.commands) > w.bounds.BatchBytes {
		// It does not fit: the batch goes without it.
		w.seal()
		w.open.commands = append(w.open.commands, b.commands[from:]...)
		b.commands = b.commands[:from]
		b = w.open
	}
	b.dones = append(b.dones, done)
	if len(b.dones) >= w.bounds.BatchCommands || len(b.commands) >= w.bounds.BatchBytes {
		w.seal()
	}
	return w.sent < w.bounds.BatchesInFlight, nil
}

func (w *window) seal() {
	w.open.number = w.next
	w.next++
	w.sealed = append(w.sealed, w.open)
	if n := len(w.spare); n > 0 {
		w.open, w.spare = w.spare[n-1], w.spare[:n-1]
		return
	}
	w.open = new(batch)
}

// outgoing is a batch as the sender sees it: a copy, because a batch that is sent again may be applied, and its memory
// used again, meanwhile.
type outgoing struct {
	batch    *batch
	number   uint64
	frame    []byte // nil: never sent, so commands may be read
	commands []byte
	count    int
}

// take returns what may be sent now, in order. Only the sender calls it.
func (w *window) take(dst []outgoing) (out []outgoing, incarnation uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.sent < w.bounds.BatchesInFlight {
		if w.sent == len(w.sealed) {
			if len(w.open.dones) == 0 {
				break
			}
			w.seal()
		}
		b := w.sealed[w.sent]
		dst = append(dst, outgoing{batch: b, number: b.number, frame: b.frame, commands: b.commands, count: len(b.dones)})
		w.sent++
	}
	return dst, w.incarnation
}

// framed keeps the frame of a batch before it is first sent.
func (w *window) framed(b *batch, frame []byte) {
	w.mu.Lock()
	b.frame = frame
	w.mu.Unlock()
}

// rewind makes take begin again with the oldest batch that was not applied.
func (w *window) rewind() {
	w.mu.Lock()
	w.sent = 0
	w.mu.Unlock()
}

// idle reports whether batches are under way, and a count that changes with progress.
func (w *window) idle() (idle bool, progress uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent == 0, w.progress
}

// pending returns the number of bytes that wait.
func (w *window) pending() (bytes int, empty bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes, len(w.sealed) == 0 && len(w.open.dones) == 0
}

// applied removes the batch that the machine has taken. skipped are batches before it whose results were not given:
// a snapshot was restored over them.
func (w *window) applied(incarnation, number uint64) (done *batch, skipped []*batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if incarnation != w.incarnation {
		return nil, nil
	}
	skipped = w.dropBefore(number)
	if len(w.sealed) > 0 && w.sealed[0].number == number {
		done = w.drop()
	}
	w.progress++
	return done, skipped
}

// restored removes the batches that a snapshot contains: their results are lost.
func (w *window) restored(incarnation, last uint64) (skipped []*batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if incarnation != w.incarnation {
		return nil
	}
	w.progress++
	return w.dropBefore(last + 1)
}

func (w *window) dropBefore(number uint64) (skipped []*batch) {
	for len(w.sealed) > 0 && w.sealed[0].number < number {
		skipped = append(skipped, w.drop())
	}
	return skipped
}

func (w *window) drop() *batch {
	b := w.sealed[0]
	w.sealed = w.sealed[1:]
	w.sent = max(w.sent-1, 0)
	w.bytes -= len(b.commands)
	return b
}

// recycle gives the memory of a batch back. The caller has run its dones.
func (w *window) recycle(b *batch) {
	if cap(b.commands) > 2*w.bounds.BatchBytes {
		return
	}
	clear(b.dones)
	*b = batch{commands: b.commands[:0], dones: b.dones[:0]}
	w.mu.Lock()
	if len(w.spare) < 4 {
		w.spare = append(w.spare, b)
	}
	w.mu.Unlock()
}

// restart empties the window for a new incarnation, of which first is the first command, and returns what was in it.
// A window that is closed stays closed.
func (w *window) restart(incarnation uint64, first command.Command, done completion) (lost []*batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lost = w.empty()
	w.incarnation, w.next = incarnation, 1
	w.progress++
	if !w.closed {
		_, _ = w.encode(first, done)
	}
	return lost
}

// close empties the window for good.
func (w *window) close() (lost []*batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return w.empty()
}

func (w *window) empty() (lost []*batch) {
	lost = w.sealed
	if len(w.open.dones) > 0 {
		lost = append(lost, w.open)
	}
	w.sealed, w.sent, w.bytes, w.open = nil, 0, 0, new(batch)
	return lost
}

// fail runs the dones of batches with an error, in order.
func fail(batches []*batch, err error) {
	for _, b := range batches {
		for _, done := range b.dones {
			if done != nil {
				done(fsm.Result{}, err)
			}
		}
	}
}
