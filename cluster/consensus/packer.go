package consensus

import (
	"bytes"
	"log/slog"
	"sync"

	"quorate/fsm"
	"quorate/fsm/command"
)

// earlyBytesMax bounds what a leader keeps while it is not yet established. What is beyond is sent again.
const earlyBytesMax = 32 << 20

// position is where a node's stream stands, as far as this leader has packed it.
type position struct{ incarnation, next uint64 }

// packer collects the batches of all nodes and makes entries of them. It takes each node's next batch only: a batch
// that comes twice is dropped, one that comes too early is nacked. A packer lives as long as one leadership, and ends
// at the first entry that Raft does not take, so that next never runs ahead of the log.
type packer struct {
	bounds Bounds
	logger *slog.Logger
	wake   chan struct{}

	mu         sync.Mutex
	open       bool // positions are known
	closed     bool
	early      []earlyFrame
	earlyBytes int
	at         map[command.NodeID]position
	queue      [][]byte // accepted batches, encoded
	bytes      int
}

type earlyFrame struct {
	from  command.NodeID
	frame []byte
}

func newPacker(bounds Bounds, logger *slog.Logger) *packer {
	return &packer{bounds: bounds, logger: logger, wake: make(chan struct{}, 1), at: make(map[command.NodeID]position)}
}

// accept takes a batch of a node. owned says that frame is never changed and need not be copied. ok false is a nack.
func (p *packer) accept(from command.NodeID, frame []byte, owned bool) (no nack, ok bool) {
	b, size, err := command.DecodeBatch(frame)
	if err != nil || size != len(frame) || b.Node != from {
		p.logger.Warn("proposal is not a batch of its sender", "peer", from, "bytes", len(frame), "err", err)
		return nack{}, true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nack{incarnation: b.Incarnation}, false
	}
	if !owned {
		frame = bytes.Clone(frame)
	}
	if !p.open {
		if p.earlyBytes += len(frame); p.earlyBytes <= earlyBytesMax {
			p.early = append(p.early, earlyFrame{from, frame})
		}
		return nack{}, true
	}
	return p.enqueue(&b, frame)
}

func (p *packer) enqueue(b *command.Batch, frame []byte) (no nack, ok bool) {
	at := p.at[b.Node]
	switch {
	case b.Incarnation > at.incarnation:
		at = position{incarnation: b.Incarnation, next: 1}
	case b.Incarnation < at.incarnation, b.Number < at.next:
		return nack{}, true // of the past: in the log already
	}
	if b.Number > at.next {
		return nack{incarnation: b.Incarnation, expected: at.next}, false
	}
	at.next++
	p.at[b.Node] = at
	p.queue = append(p.queue, frame)
	p.bytes += len(frame)
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return nack{}, true
}

// start tells where the streams stand in the machine, with everything of earlier terms applied.
func (p *packer) start(nodes []fsm.NodeInfo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, nd := range nodes {
		p.at[nd.ID] = position{incarnation: nd.Incarnation, next: nd.LastBatch + 1}
	}
	p.open = true
	for _, e := range p.early {
		if b, _, err := command.DecodeBatch(e.frame); err == nil {
			p.enqueue(&b, e.frame) // a nack is not worth sending: the origin sends again
		}
	}
	p.early = nil
}

// entry packs waiting batches, at least one if there is any; nil when nothing waits.
func (p *packer) entry(stamp func() uint64) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return nil
	}
	n, size := 0, 0
	for n < len(p.queue) && (n == 0 || size+len(p.queue[n]) <= p.bounds.BatchBytes) {
		size += len(p.queue[n])
		n++
	}
	entry := command.AppendEntryHeader(make([]byte, 0, size+16), stamp())
	for _, frame := range p.queue[:n] {
		entry = append(entry, frame...)
	}
	clear(p.queue[:n])
	p.queue = p.queue[n:]
	p.bytes -= size
	if len(p.queue) > 0 {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	return entry
}

func (p *packer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.queue, p.early = nil, nil
}
