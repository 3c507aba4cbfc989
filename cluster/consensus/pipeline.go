package consensus

import (
	"sync"

	"github.com/hashicorp/raft"
)

// AppendEntriesPipeline returns a pipeline whose answers are always taken, whether Raft still listens or not.
//
// Raft's decoder of answers leaves at the first one that is a failure. The transport's own reader then waits for ever to
// hand over the next answer, and once it does, the sender waits for ever for that reader: replication to that peer has
// stopped until the process ends, and Shutdown hangs. A cut at the right moment is enough.
func (t *guardedTransport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.Transport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	p := &drainedPipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	p.relay.Go(p.run)
	return p, nil
}

// drainedPipeline takes every answer from the pipeline at once and keeps it until Raft asks for it.
type drainedPipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	closed  chan struct{}
	once    sync.Once
	relay   sync.WaitGroup
}

// Consumer implements raft.AppendPipeline.
func (p *drainedPipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close implements raft.AppendPipeline. It may be called twice.
func (p *drainedPipeline) Close() error {
	err := p.AppendPipeline.Close()
	p.once.Do(func() { close(p.closed) })
	p.relay.Wait()
	return err
}

// run keeps the answers in their order. How many there can be is bounded by what the sender sends before it looks
// whether its decoder is still there, which it does between any two requests.
func (p *drainedPipeline) run() {
	var waiting []raft.AppendFuture
	for {
		var out chan raft.AppendFuture
		var next raft.AppendFuture
		if len(waiting) > 0 {
			out, next = p.answers, waiting[0]
		}
		select {
		case f := <-p.AppendPipeline.Consumer():
			waiting = append(waiting, f)
		case out <- next:
			waiting[0] = nil
			waiting = waiting[1:]
		case <-p.closed:
			return
		}
	}
}
