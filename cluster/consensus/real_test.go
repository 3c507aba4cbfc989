package consensus

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/bodies"
	"quorate/fsm"
	"quorate/fsm/command"
	"quorate/protocol/packet"
)

// watcher is the observer of a real machine: what consensus needs, and a list of what was published.
type watcher struct {
	*Observer
	topics []string
}

func (w *watcher) ConnectionEnded(command.Ref, command.NodeID, packet.ReasonCode) {}
func (w *watcher) Published(m *fsm.Message)                                       { w.topics = append(w.topics, m.Topic) }
func (w *watcher) Wake(command.Ref)                                               {}

// TestTheRealMachineIsReplicatedRestoredAndTheSameEverywhere runs package fsm in place of the fake.
func TestTheRealMachineIsReplicatedRestoredAndTheSameEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLan(t, "a", "b", "c")
		machines := make(map[string]*fsm.Machine)
		for _, h := range l.order {
			h.tune = func(c *Config) {
				w := &watcher{Observer: c.Observer}
				m := fsm.New(h.id, bodies.NewMemory(), w)
				machines[h.name], c.Machine = m, FromFSM(m)
				c.Bounds.TrailingBytes = 0
			}
		}
		defer l.close()
		leader := l.found()
		behind := l.others(leader)[0]
		r, err := leader.propose(&command.Connect{ClientID: "alice", Version: 5, ExpirySeconds: 3600, ReceiveMaximum: 10})
		if err != nil || r.Code != packet.Success {
			t.Fatal(r, err)
		}
		sub := []command.Subscription{{Filter: "plant/#", QoS: 1}}
		if r, err = leader.propose(&command.Subscribe{Ref: r.Ref, Subscriptions: sub}); err != nil || r.Stale {
			t.Fatal(r, err)
		}
		behind.crash()
		for i := range 50 {
			if _, err := leader.propose(publish("plant/%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := leader.node.Snapshot(); err != nil {
			t.Fatal(err)
		}
		behind.start()
		l.until("it to catch up", behind.node.Ready)
		for _, h := range l.order {
			if _, err := h.propose(publish("plant/%s", h.name)); err != nil {
				t.Fatal(err)
			}
		}
		for _, h := range l.order {
			if err := h.readIndex(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		_, want := machines["a"].Digest()
		for name, m := range machines {
			if _, got := m.Digest(); got != want {
				t.Errorf("digest of %s is %x, of a %x", name, got, want)
			}
			if s := m.Stats(); s.Sessions != 1 || s.StoredMessages != 53 {
				t.Errorf("%s has %+v", name, s)
			}
			if nodes := m.Nodes(); len(nodes) != 3 || slices.ContainsFunc(nodes, func(n fsm.NodeInfo) bool { return !n.Up }) {
				t.Errorf("%s knows %+v", name, nodes)
			}
		}
	})
}
