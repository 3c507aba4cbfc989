package broker

import "time"

// clockPoint is when this node first saw a stamp of the log.
type clockPoint struct {
	stamp uint64
	at    time.Time
}

// now is the cluster's time in milliseconds, for the Message Expiry of what is sent to clients. The stamps of the log stand
// still while nothing is proposed; in between the node's own clock goes on. Nothing the nodes have to agree on hangs on it.
func (b *Broker) now() uint64 {
	stamp := b.machine.Now()
	p := b.clock.Load()
	if p == nil || p.stamp != stamp {
		p = &clockPoint{stamp: stamp, at: time.Now()}
		b.clock.Store(p)
	}
	return stamp + uint64(time.Since(p.at)/time.Millisecond)
}
