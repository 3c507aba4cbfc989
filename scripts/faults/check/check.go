package check

import "time"

// Options are the times that the promises allow, and the checkers to leave out.
type Options struct {
	// CloseWithin is how long an old connection may stay open after the
	// CONNACK of a new one with the same Client Identifier: the time after
	// which a node that was cut off lets its clients go, and some slack.
	CloseWithin time.Duration
	// WillWithin is how late a will may fire after its connection ended:
	// failure detection, and some slack.
	WillWithin time.Duration
	// DisconnectDoubt is how long before or after a fault a DISCONNECT, which
	// has no acknowledgement, may be lost.
	DisconnectDoubt time.Duration
	// InFlight is how long a packet may be under way.
	InFlight time.Duration
	// RefuseWithin is how soon a CONNECT is refused without a quorum.
	RefuseWithin time.Duration
	// RecoverWithin is how soon a majority serves again after any fault.
	RecoverWithin time.Duration
	// Skip names checkers that this run cannot exercise.
	Skip map[string]bool
}

// Default returns the times that Quorate promises with its default settings.
func Default() Options {
	return Options{
		CloseWithin:     16 * time.Second,
		WillWithin:      30 * time.Second,
		DisconnectDoubt: 20 * time.Second,
		InFlight:        2 * time.Second,
		RefuseWithin:    4 * time.Second,
		RecoverWithin:   15 * time.Second,
	}
}

// All runs every checker over events, which are in the order of time.
func All(events []Event, opt Options) Report {
	x := newIndex(events)
	results := []*Result{
		queue(x),
		visible(x),
		once(x),
		owner(x, opt.CloseWithin),
		retained(x),
		wills(x, willTimes{within: opt.WillWithin, doubt: opt.DisconnectDoubt, inFlight: opt.InFlight}),
		sessionPresent(x),
		order(x),
		refusal(x, refuseTimes{inFlight: opt.InFlight, answer: opt.RefuseWithin, close: opt.CloseWithin, recover: opt.RecoverWithin}),
		shared(x),
		digests(x),
		drain(x),
	}
	report := Report{}
	for _, r := range results {
		if !opt.Skip[r.Name] {
			report = append(report, r)
		}
	}
	return report
}
