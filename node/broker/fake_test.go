package broker

import (
	"sync"
	"testing"
	"time"

	"quorate/cluster/bodies"
	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/protocol/packet"
)

// fakeLog is a log of one node in memory: every proposal is an entry of its own, applied in order by one goroutine.
type fakeLog struct {
	machine *fsm.Machine
	node    command.NodeID
	start   time.Time

	mu      sync.Mutex
	work    []func()
	wake    chan struct{}
	done    chan struct{}
	index   uint64
	number  uint64
	pending func(fsm.Result)
	refuse  error // what Propose returns, for tests of overload
	hold    bool  // nothing is applied: there is no leader
	held    []func()
	contact time.Time
}

func newFakeLog(node command.NodeID) *fakeLog {
	return &fakeLog{node: node, start: time.Now(), contact: time.Now(), wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// observer passes what concerns the log to it and the rest to the broker.
type observer struct {
	*Broker
	log *fakeLog
}

func (o observer) BatchApplied(_, _ uint64, results []fsm.Result) { o.log.pending(results[0]) }
func (o observer) BatchGap(uint64, uint64, uint64)                { panic("gap") }

func (f *fakeLog) run() {
	defer close(f.done)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case _, ok := <-f.wake:
			if !ok {
				return
			}
		case <-tick.C:
			if at, ok := f.machine.NextDeadline(); ok && at <= f.stamp() {
				f.apply(&command.Tick{}, func(fsm.Result) {})
			}
		}
		for {
			f.mu.Lock()
			if len(f.work) == 0 {
				f.mu.Unlock()
				break
			}
			next := f.work[0]
			f.work = f.work[1:]
			f.mu.Unlock()
			next()
		}
	}
}

func (f *fakeLog) stamp() uint64 { return uint64(time.Since(f.start)/time.Millisecond) + 1_000_000 }

func (f *fakeLog) apply(c command.Command, done func(fsm.Result)) { f.applyBytes(c.Append(nil), done) }

func (f *fakeLog) applyBytes(cmd []byte, done func(fsm.Result)) {
	f.index++
	f.number++
	entry := command.AppendEntryHeader(nil, f.stamp())
	entry = command.AppendBatch(entry, &command.Batch{Node: f.node, Incarnation: 1, Number: f.number, Count: 1, Commands: cmd})
	f.pending = done
	if err := f.machine.Apply(f.index, entry); err != nil {
		panic(err)
	}
}

func (f *fakeLog) enqueue(w func()) {
	if f.hold {
		f.held = append(f.held, w)
		return
	}
	f.work = append(f.work, w)
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Propose implements Log.
func (f *fakeLog) Propose(c command.Command, done func(fsm.Result, error)) error {
	cmd := c.Append(nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return f.refuse
	}
	f.enqueue(func() { f.applyBytes(cmd, func(r fsm.Result) { done(r, nil) }) })
	return nil
}

// ReadIndex implements Log.
func (f *fakeLog) ReadIndex(done func(error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.enqueue(func() { done(nil) })
}

// ContactAge implements Log.
func (f *fakeLog) ContactAge() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hold {
		return time.Since(f.contact)
	}
	return 0
}

// setLeader takes the leader away or brings it back.
func (f *fakeLog) setLeader(there bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold, f.contact = !there, time.Now()
	if there {
		held := f.held
		f.held = nil
		for _, w := range held {
			f.enqueue(w)
		}
	}
}

func (f *fakeLog) setRefuse(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = err
}

func (f *fakeLog) close() {
	close(f.wake)
	<-f.done
}

type noPeers struct{}

func (noPeers) Send(command.NodeID, byte, []byte) bool { return false }

// testNode is a broker on a fake log.
type testNode struct {
	*Broker
	log *fakeLog
}

func newTestNode(t testing.TB, change func(*Config)) *testNode {
	t.Helper()
	const id = command.NodeID("0000000000000001")
	log := newFakeLog(id)
	log.machine = fsm.New(id, bodies.NewMemory(), nil)
	cfg := Config{
		Node: id, Machine: log.machine, Log: log, Peers: noPeers{}, Logger: testLogger(t), Auth: AllowAll{}, Access: AllowAll{},
		Limits: DefaultLimits(),
	}
	if change != nil {
		change(&cfg)
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	log.machine.SetObserver(observer{b, log})
	log.apply(&command.NodeUp{ID: id, Name: "n1", ClientAddr: "127.0.0.1:1883", Format: 1}, func(r fsm.Result) {
		if r.Code != packet.Success {
			t.Errorf("node up: %v", r.Code)
		}
	})
	go log.run()
	return &testNode{b, log}
}

func (n *testNode) close(t testing.TB) {
	n.log.setLeader(true)
	n.log.setRefuse(nil)
	if err := n.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	n.Close()
	n.log.close()
}
