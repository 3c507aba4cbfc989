// Package clustertest is a network in memory for many hosts, with cuts, delays and crashes, made for testing/synctest
// bubbles: whole clusters with their clients run on it in virtual time.
//
//	n := clustertest.NewNetwork(clustertest.Options{Seed: seed})
//	a, b := n.Host("10.0.0.1"), n.Host("10.0.0.2")   // each is a mesh.Network
//	l, err := a.Listen("10.0.0.1:7946")
//	conn, err := b.Dial(ctx, "10.0.0.1:7946")
//	n.Partition([]string{"10.0.0.1"}, []string{"10.0.0.2"})
//	n.Heal()
//	n.Kill("10.0.0.1")                               // kill -9: peers see the end of the stream
//	a = n.Restart("10.0.0.1")                        // the old handle stays dead for ever
//
// # What it does
//
// A host is named by its IP. Each ordered pair of hosts is a link that can be cut and delayed by itself. A cut does to a
// stream what it does to TCP: bytes, and the end of the stream, stall and arrive after the heal; with Options.ResetAfter
// a connection whose link stays cut that long is reset on both sides, as TCP gives up some day. A dial needs both
// directions and waits until its context ends. Datagrams over a cut link, to a full queue or to nobody are dropped.
//
// # Rules of the bubble
//
// Whatever waits here waits on a sync.Cond, a channel or a timer, never on a mutex that somebody holds while waiting: a
// goroutine blocked on a mutex does not count as idle, and would freeze virtual time. Nothing of the network blocks on a
// reader that went away: datagrams are dropped, and streams have deadlines. Make the network inside the bubble, and
// Close it at the end.
//
// # What it is not
//
// It loses, duplicates and reorders no stream bytes, has no bandwidth, and does not model acknowledgements: with the way
// back cut, bytes still arrive until the writer's buffer is full.
package clustertest

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Options of a network. The zero value is a network without delay, loss or resets.
type Options struct {
	// Seed makes delays and losses repeatable, as far as the order of goroutines is.
	Seed uint64
	// DelayMin and DelayMax bound the one-way delay of each write and datagram. Bytes of one stream keep their order.
	DelayMin, DelayMax time.Duration
	// PacketLoss is the share of datagrams lost, 0 to 1.
	PacketLoss float64
	// ResetAfter is how long a link may stay cut until its connections are reset. 0 means for ever.
	ResetAfter time.Duration
	// BufferBytes is what a stream holds per direction before a writer waits; 0 means 256 KiB.
	BufferBytes int
}

const (
	defaultBufferBytes = 256 << 10
	backlogMax         = 128  // streams not yet accepted
	packetQueueMax     = 1024 // datagrams not yet read
)

// Network is a set of hosts. All methods are safe for concurrent use.
type Network struct {
	opt Options

	mu      sync.Mutex // leaf: never held while waiting, nor while a connection's lock is taken
	hosts   map[string]*Host
	links   map[[2]string]*link
	conns   map[*pair]struct{}
	changed chan struct{} // closed and replaced when links, listeners or hosts change
	closed  bool
}

// NewNetwork returns a network without hosts.
func NewNetwork(opt Options) *Network {
	if opt.BufferBytes == 0 {
		opt.BufferBytes = defaultBufferBytes
	}
	return &Network{
		opt: opt, hosts: make(map[string]*Host), links: make(map[[2]string]*link),
		conns: make(map[*pair]struct{}), changed: make(chan struct{}),
	}
}

// link is one direction between two hosts.
type link struct {
	from, to string

	mu       sync.Mutex // leaf
	rng      *rand.Rand
	cut      bool
	cuts     uint64 // counts cuts, so that a reset is for the cut it was armed by
	min, max time.Duration
	loss     float64
}

// delay draws the delay of one write.
func (l *link) delay() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.max <= l.min {
		return l.min
	}
	return l.min + time.Duration(l.rng.Int64N(int64(l.max-l.min)+1))
}

func (l *link) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// loses draws whether a datagram is lost.
func (l *link) loses() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut || l.loss > 0 && l.rng.Float64() < l.loss
}

// link returns the link from one host to another.
func (n *Network) link(from, to string) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.linkLocked(from, to)
}

func (n *Network) linkLocked(from, to string) *link {
	key := [2]string{from, to}
	l := n.links[key]
	if l == nil {
		h := fnv.New64a()
		fmt.Fprint(h, from, ">", to)
		l = &link{
			from: from, to: to, rng: rand.New(rand.NewPCG(n.opt.Seed, h.Sum64())),
			min: n.opt.DelayMin, max: n.opt.DelayMax, loss: n.opt.PacketLoss,
		}
		if from == to {
			l.min, l.max, l.loss = 0, 0, 0
		}
		n.links[key] = l
	}
	return l
}

// announceLocked wakes everybody who waits for the network to change. The caller holds n.mu.
func (n *Network) announceLocked() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Cut cuts the way from one host to another, in this direction only.
func (n *Network) Cut(from, to string) { n.set(from, to, true) }

// Mend undoes Cut.
func (n *Network) Mend(from, to string) { n.set(from, to, false) }

func (n *Network) set(from, to string, cut bool) {
	l := n.link(from, to)
	l.mu.Lock()
	changed := l.cut != cut
	l.cut = cut
	if changed && cut {
		l.cuts++
	}
	armed := l.cuts
	l.mu.Unlock()
	if !changed {
		return
	}
	n.mu.Lock()
	n.announceLocked()
	n.mu.Unlock()
	if !cut {
		for _, p := range n.pairsOn(l) {
			p.mended(l)
		}
	} else if n.opt.ResetAfter > 0 {
		time.AfterFunc(n.opt.ResetAfter, func() { n.giveUp(l, armed) })
	}
}

// giveUp resets what uses l, if l has been cut all the time since.
func (n *Network) giveUp(l *link, armed uint64) {
	l.mu.Lock()
	still := l.cut && l.cuts == armed
	l.mu.Unlock()
	if !still {
		return
	}
	for _, p := range n.pairsOn(l) {
		p.reset(errTimedOut)
	}
}

// pairsOn returns the connections that use l in either direction.
func (n *Network) pairsOn(l *link) []*pair {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*pair
	for p := range n.conns {
		if p.ab.link == l || p.ba.link == l {
			out = append(out, p)
		}
	}
	return out
}

// Partition cuts every link between hosts of different groups, both ways. Hosts in no group, and links within a group,
// are left as they are.
func (n *Network) Partition(groups ...[]string) {
	for i, g := range groups {
		for j, other := range groups {
			if i == j {
				continue
			}
			for _, from := range g {
				for _, to := range other {
					n.Cut(from, to)
				}
			}
		}
	}
}

// Isolate cuts a host off from all hosts known now, both ways.
func (n *Network) Isolate(ip string) {
	for _, other := range n.Hosts() {
		if other != ip {
			n.Cut(ip, other)
			n.Cut(other, ip)
		}
	}
}

// Heal mends every link.
func (n *Network) Heal() {
	n.mu.Lock()
	links := make([]*link, 0, len(n.links))
	for _, l := range n.links {
		links = append(links, l)
	}
	n.mu.Unlock()
	for _, l := range links {
		n.set(l.from, l.to, false)
	}
}

// SetDelay sets the delay of one direction, for what is sent from now on.
func (n *Network) SetDelay(from, to string, lo, hi time.Duration) {
	l := n.link(from, to)
	l.mu.Lock()
	l.min, l.max = lo, hi
	l.mu.Unlock()
}

// SetLoss sets the share of datagrams lost in one direction.
func (n *Network) SetLoss(from, to string, share float64) {
	l := n.link(from, to)
	l.mu.Lock()
	l.loss = share
	l.mu.Unlock()
}

// Hosts returns the IPs of all hosts, in no particular order.
func (n *Network) Hosts() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]string, 0, len(n.hosts))
	for ip := range n.hosts {
		out = append(out, ip)
	}
	return out
}

// Host returns the running host of that IP, making it when there has been none. A host that was killed or switched off
// is returned dead until Restart.
func (n *Network) Host(ip string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[ip]
	if h == nil {
		h = newHost(n, ip)
		n.hosts[ip] = h
		n.announceLocked()
	}
	return h
}

// Kill ends a host's process as kill -9 does: its listeners are gone, peers of its connections see the end of the stream
// (as far as the links let it through), dials are refused. Everything the process still does with its handle fails.
func (n *Network) Kill(ip string) { n.stop(ip, false) }

// PowerOff takes a host away without a word: peers of its connections see nothing until they write to it after a
// restart; dials time out.
func (n *Network) PowerOff(ip string) { n.stop(ip, true) }

func (n *Network) stop(ip string, dark bool) {
	n.mu.Lock()
	h := n.hosts[ip]
	var ends []*Conn
	for p := range n.conns {
		for _, end := range []*Conn{&p.a, &p.b} {
			if end.host == h {
				ends = append(ends, end)
			}
		}
	}
	n.mu.Unlock()
	if h == nil {
		return
	}
	h.die(dark)
	for _, end := range ends {
		end.crash(dark)
	}
	n.mu.Lock()
	n.announceLocked()
	n.mu.Unlock()
}

// Restart gives the IP a new, running host. What still holds the old one gets errors for ever.
func (n *Network) Restart(ip string) *Host {
	n.Kill(ip)
	n.mu.Lock()
	h := newHost(n, ip)
	n.hosts[ip] = h
	n.announceLocked()
	var orphans []*pair
	for p := range n.conns {
		if p.ab.link.from == ip || p.ab.link.to == ip {
			orphans = append(orphans, p)
		}
	}
	n.mu.Unlock()
	for _, p := range orphans {
		p.relit() // the new kernel answers what is sent to the old connections with a reset
	}
	return h
}

// Close ends every host and connection.
func (n *Network) Close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	for _, ip := range n.Hosts() {
		n.Kill(ip)
	}
	n.mu.Lock()
	pairs := make([]*pair, 0, len(n.conns))
	for p := range n.conns {
		pairs = append(pairs, p)
	}
	n.mu.Unlock()
	for _, p := range pairs {
		p.reset(net.ErrClosed)
	}
}
