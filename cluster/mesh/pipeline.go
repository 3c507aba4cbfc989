package mesh

import (
	"sync"

	"github.com/hashicorp/raft"
)

// AppendEntriesPipeline implements raft.Transport. The library (v1.7.3) hands answers over a channel without buffer to a
// goroutine that ends at the first failed answer. If the sender sends once more before it notices, or as its last act
// when it is told to stop, the reader of the connection waits for ever for somebody to take the next answer, and the
// sender for the reader: the follower gets no more entries from this leader, and Raft cannot be shut down (seen in the
// simulation of package membership, about once in 200 runs). So answers are always taken, here.
func (t Transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return newPipeline(inner), nil
}

// pipeline is an AppendPipeline whose answers are always taken.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	done    chan struct{}
	once    sync.Once
}

func newPipeline(inner raft.AppendPipeline) *pipeline {
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), done: make(chan struct{})}
	go p.run()
	return p
}

// run moves answers on, in order, and never keeps the inner pipeline waiting. What piles up is bounded by what the sender
// still sends after its decoder ended: it sends at most until it next looks.
func (p *pipeline) run() {
	var waiting []raft.AppendFuture
	for {
		var out chan raft.AppendFuture
		var first raft.AppendFuture
		if len(waiting) > 0 {
			out, first = p.answers, waiting[0]
		}
		select {
		case answer := <-p.AppendPipeline.Consumer():
			waiting = append(waiting, answer)
		case out <- first:
			waiting = waiting[1:]
		case <-p.done:
			return
		}
	}
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close implements raft.AppendPipeline. It may be called twice.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.done) })
	return p.AppendPipeline.Close()
}
