package mesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

const (
	// writeSliceBytes is written under one deadline: a slow link that moves this much in DeadAfter is alive.
	writeSliceBytes = 256 << 10
	// busyBufferBytes is the largest send buffer kept between two writes, keepBufferBytes the largest kept by an idle peer.
	busyBufferBytes = 4 << 20
	keepBufferBytes = 64 << 10
)

var errPeerDead = errors.New("no answer to liveness probes")

// peer is one entry of the address book and the connection this node dialled to it.
type peer struct {
	m      *Mesh
	id     nodeID
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{} // a frame was queued
	retry  chan struct{} // dial now rather than after the pause

	mu        sync.Mutex
	addr      string
	name      string
	up        bool
	fresh     bool // proven without a cluster id: only membership frames pass
	since     time.Time
	buf       []byte // Invariant: whole frames, at most QueueBytesMax plus one frame; empty while down.
	writing   int    // bytes taken from buf and not yet written
	heardAt   time.Time
	dropped   uint64
	framesOut uint64
	bytesOut  uint64
	lastErr   string
}

func newPeer(m *Mesh, id nodeID, addr string) *peer {
	p := &peer{m: m, id: id, addr: addr, since: time.Now(), wake: make(chan struct{}, 1), retry: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(m.ctx)
	return p
}

// send queues a frame. See Mesh.Send.
func (p *peer) send(kind, group byte, payload []byte) bool {
	if len(payload) > PayloadBytesMax {
		return false
	}
	p.mu.Lock()
	if !p.up || p.fresh && !freshKind(kind) {
		p.mu.Unlock()
		return false
	}
	// A single frame may exceed what is left: else one larger than the whole queue could never be sent.
	if waiting := len(p.buf) + p.writing; waiting > 0 && waiting+len(payload)+frameHeaderBytes > p.m.cfg.QueueBytesMax {
		p.dropped++
		p.mu.Unlock()
		return false
	}
	first := len(p.buf) == 0
	p.buf = appendFrame(p.buf, kind, group, payload)
	p.framesOut++
	p.mu.Unlock()
	if first {
		signal(p.wake)
	}
	return true
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// move sets another address and retries at once.
func (p *peer) move(addr string) {
	p.mu.Lock()
	changed := p.addr != addr
	p.addr = addr
	p.mu.Unlock()
	if changed {
		p.kick()
	}
}

func (p *peer) kick() { signal(p.retry) }

func (p *peer) address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// run dials for as long as the peer is in the address book.
func (p *peer) run() {
	pause := p.m.cfg.BackoffMin
	for p.ctx.Err() == nil {
		began := time.Now()
		err := p.connect()
		if p.ctx.Err() != nil {
			return
		}
		p.fail(err)
		if time.Since(began) > 2*p.m.cfg.BackoffMax && !isRefusal(err) {
			pause = p.m.cfg.BackoffMin // it was up, or the network swallowed the attempt: either way no hurry is needed
		}
		if !p.rest(pause) {
			return
		}
		pause = min(2*pause, p.m.cfg.BackoffMax)
	}
}

func isRefusal(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused)
}

// rest pauses for d with jitter, less when kicked; false means the end.
func (p *peer) rest(d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.retry:
	case <-p.ctx.Done():
		return false
	}
	return true
}

func (p *peer) fail(err error) {
	var refused *RefusedError
	if errors.As(err, &refused) {
		p.m.refused.note(refused, string(p.id))
		if p.m.cfg.OnRefused != nil {
			p.m.cfg.OnRefused(p.id, refused)
		}
	}
	p.mu.Lock()
	if err != nil {
		p.lastErr = err.Error()
	}
	p.mu.Unlock()
}

// connect dials, proves the hello and serves the connection until it ends. It returns why.
func (p *peer) connect() error {
	conn, h, err := p.m.dial(p.ctx, p.id, p.address(), protocolMesh)
	if err != nil {
		return err
	}
	defer conn.Close()
	p.raise(h)
	err = p.serve(conn)
	_ = conn.Close()
	p.lower(err)
	return err
}

// raise opens the queue and tells OnUp.
func (p *peer) raise(h Hello) {
	now := time.Now()
	p.mu.Lock()
	p.up, p.fresh, p.since, p.heardAt, p.name, p.lastErr = true, h.ClusterID == "", now, now, h.Name, ""
	p.mu.Unlock()
	p.m.logger.Info("peer connected", "peer", p.id, "peer_name", h.Name, "addr", h.Addr)
	p.m.mu.Lock()
	callbacks := p.m.onUp
	p.m.mu.Unlock()
	for _, f := range callbacks {
		f(p.id)
	}
}

// lower closes and empties the queue and tells OnDown.
func (p *peer) lower(err error) {
	p.mu.Lock()
	p.up, p.since = false, time.Now()
	p.buf, p.writing = nil, 0
	p.mu.Unlock()
	p.m.logger.Info("peer disconnected", "peer", p.id, "err", err)
	p.m.mu.Lock()
	callbacks := p.m.onDown
	p.m.mu.Unlock()
	for _, f := range callbacks {
		f(p.id)
	}
}

// serve writes queued frames and probes until the connection ends.
func (p *peer) serve(conn net.Conn) error {
	read := make(chan error, 1)
	go func() { read <- p.readAnswers(conn) }()
	probe := time.NewTicker(p.m.cfg.ProbeInterval)
	defer probe.Stop()
	var spare []byte
	for {
		var err error
		select {
		case <-p.ctx.Done():
			err = p.ctx.Err()
		case err = <-read:
			if err == nil {
				err = net.ErrClosed
			}
			return err
		case <-p.wake:
			spare, err = p.flush(conn, spare)
		case <-probe.C:
			if err = p.probe(); err == nil {
				spare, err = p.flush(conn, spare)
				spare = p.trim(spare)
			}
		}
		if err != nil {
			_ = conn.Close()
			<-read
			return err
		}
	}
}

// probe queues a liveness probe, or says that the peer has been silent for too long.
func (p *peer) probe() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if silent := time.Since(p.heardAt); silent > p.m.cfg.DeadAfter {
		return fmt.Errorf("%w for %s", errPeerDead, silent.Round(time.Millisecond))
	}
	p.buf = appendFrame(p.buf, kindProbe, 0, nil)
	return nil
}

// trim gives large buffers back once a second, if nothing waits just now.
func (p *peer) trim(spare []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.buf) == 0 && cap(p.buf) > keepBufferBytes {
		p.buf = nil
	}
	if cap(spare) > keepBufferBytes {
		return nil
	}
	return spare
}

// flush writes everything queued, many frames in one write, and returns a buffer to use next.
func (p *peer) flush(conn net.Conn, spare []byte) ([]byte, error) {
	for {
		p.mu.Lock()
		out := p.buf
		p.buf, p.writing = spare[:0], len(out)
		p.mu.Unlock()
		if len(out) == 0 {
			return out, nil
		}
		for rest := out; len(rest) > 0; {
			part := rest[:min(len(rest), writeSliceBytes)]
			_ = conn.SetWriteDeadline(time.Now().Add(p.m.cfg.DeadAfter))
			n, err := conn.Write(part)
			if err != nil {
				return nil, err
			}
			rest = rest[n:]
			p.mu.Lock()
			p.writing = len(rest)
			p.bytesOut += uint64(n)
			p.mu.Unlock()
		}
		if spare = out; cap(spare) > busyBufferBytes {
			spare = nil
		}
	}
}

// readAnswers reads the answers to probes.
func (p *peer) readAnswers(conn net.Conn) error {
	frames := newFrameReader(conn)
	for {
		if _, _, _, err := frames.next(); err != nil {
			return err
		}
		now := time.Now()
		p.mu.Lock()
		p.heardAt = now
		p.mu.Unlock()
	}
}

func (p *peer) describe() Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Peer{
		ID: p.id, Addr: p.addr, Name: p.name, Up: p.up, Since: p.since,
		QueuedBytes: len(p.buf) + p.writing, Dropped: p.dropped, FramesOut: p.framesOut, BytesOut: p.bytesOut,
		LastError: p.lastErr,
	}
}
