package broker

import (
	"strings"
	"time"

	"quorate/protocol/packet"
)

// watchInterval is how often the broker looks at the contact with the leader and at what the log did not take.
const watchInterval = 500 * time.Millisecond

func (b *Broker) watch() {
	t := time.NewTicker(watchInterval)
	defer t.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-t.C:
			b.now()
			b.checkContact()
			b.routes.retry()
			b.enders.retry()
		}
	}
}

// checkContact sends the clients away when the node has lost the leader for too long: the cluster may be about to declare
// it dead, and no client should wait on a node that cannot acknowledge (P9).
func (b *Broker) checkContact() {
	lost := b.log.ContactAge() > b.cfg.ContactTimeout
	if !lost {
		b.cutOff.Store(false)
		return
	}
	if !b.cutOff.Swap(true) {
		b.metrics.CutOffs.Add(1)
		b.logger.Warn("no contact with a leader, sending clients away", "connections", b.links.connected())
	}
	reference := b.serverReference()
	b.links.each(func(l *link) {
		if l.conn.Open() {
			l.conn.Close(packet.UseAnotherServer, reference)
		}
	})
}

// serverReference names the other nodes, as Server Reference has it: separated by spaces.
func (b *Broker) serverReference() string {
	var list []string
	for _, n := range b.machine.Nodes() {
		if n.ID != b.cfg.Node && n.Up && n.ClientAddr != "" {
			list = append(list, n.ClientAddr)
		}
	}
	return strings.Join(list, " ")
}
