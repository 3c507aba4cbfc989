package consensus

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// stubPipeline hands answers over as the network transport does: unbuffered, one reader, which waits for a taker.
type stubPipeline struct {
	requests chan raft.AppendFuture
	answers  chan raft.AppendFuture
	stop     chan struct{}
}

func (s *stubPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	select {
	case s.requests <- nil:
		return nil, nil
	case <-s.stop:
		return nil, raft.ErrPipelineShutdown
	case <-time.After(time.Hour):
		return nil, errors.New("the sender is stuck")
	}
}

func (s *stubPipeline) Consumer() <-chan raft.AppendFuture { return s.answers }
func (s *stubPipeline) Close() error                       { close(s.stop); return nil }

func (s *stubPipeline) read() {
	for {
		select {
		case f := <-s.requests:
			select {
			case s.answers <- f:
			case <-s.stop:
				return
			}
		case <-s.stop:
			return
		}
	}
}

type stubTransport struct {
	raft.Transport
	pipeline *stubPipeline
}

func (s stubTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return s.pipeline, nil
}

// A decoder that has left at a failed answer does not stop the sender, which would never look again.
func TestAPipelineWithoutADecoderStillTakesRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stub := &stubPipeline{
			requests: make(chan raft.AppendFuture), answers: make(chan raft.AppendFuture), stop: make(chan struct{}),
		}
		go stub.read()
		guarded := &guardedTransport{Transport: stubTransport{pipeline: stub}}
		p, err := guarded.AppendEntriesPipeline("a", "a")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			if _, err := p.AppendEntries(nil, nil); err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
		}
		for i := range 10 {
			select {
			case <-p.Consumer():
			case <-time.After(time.Minute):
				t.Fatalf("answer %d did not come", i)
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
