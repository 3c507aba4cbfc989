package broker

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"quorate/fsm"
	"quorate/fsm/command"
)

// recordingLog keeps the route commands that are proposed to it.
type recordingLog struct {
	refuse   error
	proposed []command.Routes
}

func (l *recordingLog) Propose(c command.Command, _ func(fsm.Result, error)) error {
	if l.refuse != nil {
		return l.refuse
	}
	l.proposed = append(l.proposed, *c.(*command.Routes))
	return nil
}

func (l *recordingLog) ReadIndex(func(error))     {}
func (l *recordingLog) ContactAge() time.Duration { return 0 }

func (l *recordingLog) added() []string {
	var all []string
	for i := range l.proposed {
		all = append(all, l.proposed[i].Add...)
	}
	l.proposed = nil
	return all
}

// A node that was declared dead while it lived goes on with the routes that others count on: a SUBSCRIBE that finds its
// filter counted proposes none (P2).
func TestRoutesComeAgainWithANewIncarnation(t *testing.T) {
	log := &recordingLog{}
	r := &routes{broker: &Broker{log: log}}
	var want []string
	for i := range againMax + 10 {
		want = append(want, fmt.Sprintf("a/%06d", i))
	}
	if err := r.acquire(want); err != nil {
		t.Fatal(err)
	}
	log.added()

	r.again()
	if got := log.added(); !slices.Equal(got, want) {
		t.Errorf("%d routes came again, want %d", len(got), len(want))
	}

	// While the log does not take them nobody may count on them.
	log.refuse = errors.New("full")
	r.again()
	if err := r.acquire([]string{want[0]}); err == nil {
		t.Error("a subscriber counts on a route that the log does not have")
	}
	log.refuse = nil
	r.retry()
	if got := log.added(); !slices.Equal(got, want) {
		t.Errorf("%d routes came with the retry, want %d", len(got), len(want))
	}
	if err := r.acquire([]string{want[0]}); err != nil || len(log.added()) != 0 {
		t.Errorf("a second subscriber: %v, and a route of its own", err)
	}
}
