package check

import (
	"fmt"
	"syscall"
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
	start := cpuTime(t)
	r := All(events, Default())
	if r.Verdict() == Invalid {
		t.Fatal(r)
	}
	// About 0.3 s; the bound only catches what is quadratic.
	if d := cpuTime(t) - start; d > 5*time.Second {
		t.Fatalf("took %v of processor time", d)
	}
}

// cpuTime is the time that this process has used: other than the time on the
// wall, it does not depend on what else the machine does.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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
