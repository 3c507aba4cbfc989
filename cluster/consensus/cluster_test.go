package consensus

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"quorate/fsm"
	"quorate/fsm/command"
)

// lan is a network in memory: raft.InmemTransport for Raft, queues for frames, cuts for both.
type lan struct {
	t     testing.TB
	delay time.Duration // of frames

	mu    sync.Mutex
	hosts map[command.NodeID]*host
	order []*host
	cut   map[[2]command.NodeID]bool
	drop  func(from, to command.NodeID, kind byte, payload []byte) bool
	links map[[2]command.NodeID]chan lanFrame
	stop  chan struct{}
	wg    sync.WaitGroup
}

type lanFrame struct {
	kind    byte
	payload []byte
	due     time.Time
}

// host is a machine that a node runs on.
type host struct {
	lan     *lan
	name    string
	disk    *MemoryStorage
	id      command.NodeID
	node    *Node
	machine *fakeMachine
	trans   *raft.InmemTransport
	fatals  []error
	tune    func(*Config)
	skew    time.Duration // of the wall clock
	reborn  []uint64
}

func newLan(t testing.TB, names ...string) *lan {
	l := &lan{
		t: t, hosts: make(map[command.NodeID]*host), cut: make(map[[2]command.NodeID]bool),
		links: make(map[[2]command.NodeID]chan lanFrame), stop: make(chan struct{}),
	}
	for _, name := range names {
		l.add(name)
	}
	return l
}

func (l *lan) add(name string) *host {
	h := &host{lan: l, name: name, disk: NewMemoryStorage()}
	l.order = append(l.order, h)
	return h
}

// start opens the disk and starts the node.
func (h *host) start() {
	h.lan.t.Helper()
	st, err := h.disk.Open(StorageOptions{Name: h.name, CriticalBytes: 1, LowBytes: 1000, Fatal: h.fatal})
	if err != nil {
		h.lan.t.Fatalf("open disk of %s: %v", h.name, err)
	}
	h.startOn(st)
}

func (h *host) startOn(st *Storage) {
	h.lan.t.Helper()
	l := h.lan
	h.id = st.Identity().ServerID
	_, h.trans = raft.NewInmemTransportWithTimeout(raft.ServerAddress(h.id), 300*time.Millisecond)
	cfg := Default()
	cfg.Observer = NewObserver()
	h.machine = newFakeMachine(h.id, cfg.Observer)
	cfg.Storage, cfg.Machine, cfg.Transport, cfg.Peers = st, h.machine, h.trans, h
	boot := time.Now()
	cfg.Clock = Clock{Wall: func() time.Time { return time.Now().Add(h.skew) }, Boot: func() time.Duration { return time.Since(boot) }}
	cfg.Fatal = h.fatal
	cfg.Removed = func() {}
	cfg.Reincarnated = func(inc uint64) { l.mu.Lock(); h.reborn = append(h.reborn, inc); l.mu.Unlock() }
	if os.Getenv("CONSENSUS_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", h.name)
	}
	if h.tune != nil {
		h.tune(&cfg)
	}
	node, err := Start(cfg)
	if err != nil {
		l.t.Fatalf("start %s: %v", h.name, err)
	}
	l.mu.Lock()
	h.node = node
	l.hosts[h.id] = h
	l.mu.Unlock()
	l.wire(h)
}

// current returns the running node, nil while the host is down.
func (h *host) current() *Node {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	return h.node
}

// fatal ends the goroutine, as the process would end.
func (h *host) fatal(err error) {
	h.lan.mu.Lock()
	h.fatals = append(h.fatals, err)
	h.lan.mu.Unlock()
	runtime.Goexit()
}

// wire connects a host with all others it is not cut from.
func (l *lan) wire(h *host) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.hosts {
		if o == h || o.node == nil {
			continue
		}
		if !l.cut[[2]command.NodeID{h.id, o.id}] {
			h.trans.Connect(o.trans.LocalAddr(), o.trans)
		}
		if !l.cut[[2]command.NodeID{o.id, h.id}] {
			o.trans.Connect(h.trans.LocalAddr(), h.trans)
		}
	}
}

// setCut cuts or joins the direction from a to b.
func (l *lan) setCut(a, b *host, cut bool) {
	l.mu.Lock()
	l.cut[[2]command.NodeID{a.id, b.id}] = cut
	l.mu.Unlock()
	if a.node == nil || b.node == nil {
		return
	}
	if cut {
		a.trans.Disconnect(b.trans.LocalAddr())
		return
	}
	a.trans.Connect(b.trans.LocalAddr(), b.trans)
	a.node.PeerUp(b.id)
}

// isolate cuts or joins a host from all others, both ways.
func (l *lan) isolate(h *host, cut bool) {
	for _, o := range l.order {
		if o != h {
			l.setCut(h, o, cut)
			l.setCut(o, h, cut)
		}
	}
}

// crash ends a node as a power cut does: what is not synced is gone.
func (h *host) crash() {
	h.disk.Crash()
	h.lan.mu.Lock()
	node := h.node
	h.node = nil
	others := append([]*host(nil), h.lan.order...)
	h.lan.mu.Unlock()
	for _, o := range others {
		if o != h && o.trans != nil {
			o.trans.Disconnect(h.trans.LocalAddr())
		}
	}
	_ = node.Close()
}

// Send implements Peers.
func (h *host) Send(to command.NodeID, kind byte, payload []byte) bool {
	l := h.lan
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.hosts[to]
	if o == nil || o.node == nil || l.cut[[2]command.NodeID{h.id, to}] {
		return false
	}
	if l.drop != nil && l.drop(h.id, to, kind, payload) {
		return true
	}
	key := [2]command.NodeID{h.id, to}
	link := l.links[key]
	if link == nil {
		link = make(chan lanFrame, 4096)
		l.links[key] = link
		l.wg.Go(func() { l.carry(h.id, to, link) })
	}
	select {
	case link <- lanFrame{kind, append([]byte(nil), payload...), time.Now().Add(l.delay)}:
		return true
	default:
		return false
	}
}

func (l *lan) carry(from, to command.NodeID, link chan lanFrame) {
	for {
		select {
		case <-l.stop:
			return
		case f := <-link:
			if d := time.Until(f.due); d > 0 {
				time.Sleep(d)
			}
			l.mu.Lock()
			o := l.hosts[to]
			var node *Node
			if o != nil && !l.cut[[2]command.NodeID{from, to}] {
				node = o.node
			}
			l.mu.Unlock()
			if node != nil {
				node.Handlers()[f.kind](from, f.payload)
			}
		}
	}
}

// close stops everything.
func (l *lan) close() {
	for _, h := range l.order {
		if node := h.current(); node != nil {
			if err := node.Close(); err != nil && len(h.fatals) == 0 {
				l.t.Errorf("close %s: %v", h.name, err)
			}
		}
	}
	close(l.stop)
	l.wg.Wait()
}

// found starts all hosts as one cluster and waits for its leader.
func (l *lan) found() *host {
	l.t.Helper()
	var servers []raft.Server
	for _, h := range l.order {
		h.start()
		servers = append(servers, raft.Server{ID: raft.ServerID(h.id), Address: raft.ServerAddress(h.id)})
	}
	if err := l.order[0].node.Bootstrap(servers); err != nil {
		l.t.Fatalf("bootstrap: %v", err)
	}
	return l.leader()
}

// leader waits for an established leader.
func (l *lan) leader() *host {
	l.t.Helper()
	var found *host
	l.until("a leader", func() bool {
		for _, h := range l.order {
			if h.node != nil && h.node.IsLeader() && h.proven() {
				found = h
				return true
			}
		}
		return false
	})
	return found
}

// proven asks a leader for the proof that it is one.
func (h *host) proven() bool {
	s := h.node.session.Load()
	if s == nil {
		return false
	}
	proof := make(chan verdict, 1)
	if !s.verifier.ask(question{done: func(v verdict) { proof <- v }}) {
		return false
	}
	return (<-proof).ok
}

// until waits for a condition; in a bubble the wait costs nothing.
func (l *lan) until(what string, ok func() bool) {
	l.t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.t.Fatalf("waited in vain for %s", what)
}

func (l *lan) noFatals() {
	l.t.Helper()
	for _, h := range l.order {
		if len(h.fatals) > 0 {
			l.t.Errorf("%s: fatal: %v", h.name, h.fatals)
		}
	}
}

func publish(format string, args ...any) *command.Publish {
	return &command.Publish{Message: command.Message{Topic: fmt.Sprintf(format, args...), QoS: 1}}
}

// propose waits for the outcome of one command.
func (h *host) propose(c command.Command) (fsm.Result, error) {
	type outcome struct {
		r   fsm.Result
		err error
	}
	got := make(chan outcome, 1)
	if err := h.node.Propose(c, func(r fsm.Result, err error) { got <- outcome{r, err} }); err != nil {
		return fsm.Result{}, err
	}
	o := <-got
	return o.r, o.err
}

func (h *host) readIndex() error {
	got := make(chan error, 1)
	h.node.ReadIndex(func(err error) { got <- err })
	return <-got
}

// has reports whether h has applied a topic.
func (h *host) has(topic string) bool {
	for _, t := range h.machine.topics() {
		if t == topic {
			return true
		}
	}
	return false
}
