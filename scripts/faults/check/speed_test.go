package check

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkAllCheckers is the whole report over 30,000 messages to 10
// subscribers: what a run of some minutes leaves behind.
func BenchmarkAllCheckers(b *testing.B) {
	events := longRun(30000, 10)
	b.ReportAllocs()
	for b.Loop() {
		if r := All(events, Default()); r.Verdict() == Invalid {
			b.Fatal(r)
		}
	}
}

func TestAllCheckersAreFastEnoughToRunAfterEveryRun(t *testing.T) {
	events := longRun(30000, 3)
	start := time.Now()
	r := All(events, Default())
	if r.Verdict() == Invalid {
		t.Fatal(r)
	}
	// About 0.2 s here; the bound only catches what is quadratic.
	if d := time.Since(start); d > 5*time.Second {
		t.Fatalf("took %v", d)
	}
}

func longRun(messages, subscribers int) []Event {
	s := newStory()
	var subs []Event
	for i := range subscribers {
		c := s.connect(fmt.Sprintf("sub%d", i), "n1", false)
		s.subscribe(c, "a/+", 2)
		subs = append(subs, c)
	}
	var pubs []Event
	for i := range 10 {
		pubs = append(pubs, s.connect(fmt.Sprintf("pub%d", i), "n2", false))
	}
	for i := range messages {
		p := s.publish(pubs[i%10], fmt.Sprintf("a/%d", i%7), fmt.Sprint(i), byte(1+i%2))
		for _, c := range subs {
			s.deliver(c, p)
		}
	}
	return s.events
}
