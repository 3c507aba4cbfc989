package mesh

import (
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// answerFuture is an AppendFuture with a number.
type answerFuture struct {
	raft.AppendFuture
	n int
}

// stiffPipeline is the library's at its default of two requests in flight: its reader must hand an answer over before
// it takes the next request.
type stiffPipeline struct {
	requests chan int
	answers  chan raft.AppendFuture
	closed   chan struct{}
}

func newStiffPipeline() *stiffPipeline {
	p := &stiffPipeline{requests: make(chan int), answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go func() {
		for n := 0; ; n++ {
			select {
			case <-p.requests:
			case <-p.closed:
				return
			}
			select {
			case p.answers <- answerFuture{n: n}:
			case <-p.closed:
				return
			}
		}
	}()
	return p
}

func (p *stiffPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	select {
	case p.requests <- 1:
		return nil, nil
	case <-p.closed:
		return nil, raft.ErrPipelineShutdown
	}
}

func (p *stiffPipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *stiffPipeline) Close() error {
	close(p.closed)
	return nil
}

func TestASenderWhoseDecoderHasEndedIsNotStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(newStiffPipeline())
		for range 100 { // blocks for ever, and so fails the bubble, without the wrapper
			if _, err := p.AppendEntries(nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 100 {
			if got := (<-p.Consumer()).(answerFuture).n; got != n {
				t.Fatalf("answer %d came as number %d", got, n)
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
