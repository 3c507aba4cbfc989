package consensus

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestASingleNodeAppliesProposalsInOrderAndAnswersOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a")
		defer l.close()
		a := l.found()
		var want []string
		for i := range 100 {
			topic := publish("t/%d", i)
			want = append(want, topic.Topic)
			if _, err := a.propose(topic); err != nil {
				t.Fatal(err)
			}
		}
		if got := a.machine.topics(); !slices.Equal(got, want) {
			t.Errorf("applied %v", got)
		}
		if err := a.readIndex(); err != nil {
			t.Error(err)
		}
		if !a.node.Ready() {
			time.Sleep(time.Second)
			if !a.node.Ready() {
				t.Error("not ready")
			}
		}
		l.noFatals()
	})
}

func TestThreeNodesApplyTheProposalsOfAllInTheSameOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		l.delay = time.Millisecond
		defer l.close()
		l.found()
		for i := range 50 {
			for _, h := range l.order {
				if _, err := h.propose(publish("%s/%d", h.name, i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, h := range l.order {
			if err := h.readIndex(); err != nil {
				t.Fatalf("%s: %v", h.name, err)
			}
			if got, want := h.machine.topics(), l.order[0].machine.topics(); len(got) != 150 || !slices.Equal(got, want) {
				t.Errorf("%s applied %v, want %v", h.name, got, want)
			}
		}
		l.noFatals()
	})
}
