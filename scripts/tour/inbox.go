package main

import (
	"fmt"
	"strconv"
	"sync"
)

// inbox collects what the subscriber receives.
type inbox struct {
	mu         sync.Mutex
	want       map[string]bool // "topic number" -> acknowledged
	missing    int             // acknowledged, and not here yet
	seen       map[string]int
	last       map[string]int // by topic: the number of the latest first delivery
	byQoS      [3]int
	duplicates [3]int
	unmarked   int // QoS 1 duplicates without DUP
	disorder   int
	unknown    int // not acknowledged, and here
	strange    int // never published

	complete chan struct{} // closed when nothing is missing
}

func newInbox(want map[string]bool) *inbox {
	in := &inbox{want: want, seen: map[string]int{}, last: map[string]int{}, complete: make(chan struct{})}
	for _, acked := range want {
		if acked {
			in.missing++
		}
	}
	return in
}

// add takes one message.
func (in *inbox) add(topic, payload string, qos byte, dup bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	key := topic + " " + payload
	acked, published := in.want[key]
	n, err := strconv.Atoi(payload)
	if !published || err != nil {
		in.strange++
		return
	}
	in.seen[key]++
	if in.seen[key] > 1 {
		in.duplicates[qos]++
		if !dup {
			in.unmarked++
		}
		return
	}
	in.byQoS[qos]++
	if last, ok := in.last[topic]; ok && n < last {
		in.disorder++
	}
	in.last[topic] = n
	if !acked {
		in.unknown++
		return
	}
	if in.missing--; in.missing == 0 {
		close(in.complete)
	}
}

// verdict prints what came and returns an error for what must not be.
func (in *inbox) verdict() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	fmt.Printf("received: QoS 1 %d, QoS 2 %d; acknowledged but lost %d; QoS 2 twice %d; QoS 1 repeated %d (without DUP %d); out of order %d; unknown outcome but here %d\n",
		in.byQoS[1], in.byQoS[2], in.missing, in.duplicates[2], in.duplicates[1], in.unmarked, in.disorder, in.unknown)
	switch {
	case len(in.want) == 0:
		return fmt.Errorf("nothing was published: nothing is proven")
	case in.missing > 0:
		return fmt.Errorf("%d acknowledged messages are lost", in.missing)
	case in.duplicates[2] > 0:
		return fmt.Errorf("%d QoS 2 messages came more than once", in.duplicates[2])
	case in.disorder > 0:
		return fmt.Errorf("%d messages came out of order", in.disorder)
	case in.strange > 0:
		return fmt.Errorf("%d messages came that nobody published", in.strange)
	}
	return nil
}
