package check

import (
	"slices"
	"time"
)

// clientErrors are the CONNACK Reason Codes that prove that a CONNECT did
// nothing: the broker refused the packet or the user. After any other failure
// the CONNECT may still take effect later.
var clientErrors = []byte{0x81, 0x82, 0x84, 0x85, 0x86, 0x87, 0x8a, 0x8c, 0x95}

// maybeOwner reports whether the CONNECT may have made its connection the
// owner of the Client Identifier, now or later.
func (c *connection) maybeOwner() bool {
	return c.phase != Fail || !slices.Contains(clientErrors, c.done.Reason)
}

// owner is P4: one connection per Client Identifier whose packets are
// acknowledged. Each identifier is a fenced lock: CONNECT takes it for its
// connection, and an acknowledged use needs it. A lock whose holders are all
// different is a register whose values are all different: taking it is
// writing, using it is reading.
func owner(x *index, closeWithin time.Duration) *Result {
	r := newResult("owner", "P4")
	locks := map[string][]registerOp{}
	byClient := map[string][]*connection{}
	for _, c := range x.connOrder {
		if !c.maybeOwner() {
			continue
		}
		end := c.end
		if c.phase == Fail {
			end = never
		}
		locks[c.Client] = append(locks[c.Client], registerOp{value: connName(c.Conn), write: true, from: c.At, to: end, who: c.Node})
		byClient[c.Client] = append(byClient[c.Client], c)
	}
	r.count("uses", 0)
	for _, u := range x.uses() {
		r.count("uses", 1)
		locks[u.client] = append(locks[u.client], registerOp{value: connName(u.conn), from: u.from, to: u.to, who: u.client})
	}
	for client, ops := range locks {
		if why := linearizable(ops); why != "" {
			r.problem("two-owners", "client %s (values are connections): %s", client, why)
		}
	}
	r.count("takeovers", 0)
	for client, conns := range byClient {
		x.oldClosed(r, client, conns, closeWithin)
	}
	r.need("uses", 1)
	return r
}

// use is an acknowledgement that connection conn got for what it sent.
type use struct {
	client   string
	conn     uint64
	from, to time.Duration
}

// uses lists every acknowledged use: CONNACK apart, PUBACK, PUBREC, SUBACK
// and UNSUBACK, from the time the packet was sent on that connection.
func (x *index) uses() []use {
	var all []use
	for _, p := range x.publishes {
		if p.phase != OK || p.QoS == 0 {
			continue
		}
		for _, s := range slices.Backward(p.sends) {
			if s.Conn == p.done.Conn && s.At <= p.end {
				all = append(all, use{p.Client, s.Conn, s.At, p.end})
				break
			}
		}
	}
	for _, s := range x.subs {
		if s.phase == OK {
			all = append(all, use{s.Client, s.Conn, s.At, s.end})
		}
		if s.unsub != nil && s.unsub.phase == OK {
			all = append(all, use{s.Client, s.unsub.Conn, s.unsub.At, s.unsub.end})
		}
	}
	return all
}

// oldClosed demands that an old connection is closed soon after a new one of
// the same client was acknowledged.
func (x *index) oldClosed(r *Result, client string, conns []*connection, within time.Duration) {
	for i, old := range conns {
		if old.phase != OK {
			continue
		}
		for _, later := range conns[i+1:] {
			if later.phase != OK || old.closed <= later.At || later.At < old.end {
				continue
			}
			r.count("takeovers", 1)
			if gone := min(old.closed, x.end); gone > later.end+within {
				r.problem("still-open", "client %s: connection %d at %s was open at %v, %v after connection %d at %s was accepted",
					client, old.Conn, old.Node, gone, gone-later.end, later.Conn, later.Node)
			}
			break
		}
	}
}
