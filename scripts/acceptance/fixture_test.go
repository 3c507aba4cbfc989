package acceptance

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/node/admin"
	"quorate/protocol/packet"
	"quorate/scripts/acceptance/processes"
	"quorate/scripts/faults/check"
	"quorate/scripts/faults/client"
)

// binary is the program under test; TestMain sets it once.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "quorate-acceptance.")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if binary, err = processes.Build(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// testTime bounds one test.
const testTime = 100 * time.Second

// fixture is a cluster with its clients' history.
type fixture struct {
	*processes.Cluster
	t       *testing.T
	ctx     context.Context
	history *check.History
	began   time.Time
}

// found makes a cluster of three real nodes, which ends with the test.
func found(t *testing.T, flags ...string) *fixture {
	t.Helper()
	if testing.Short() {
		t.Skip("runs real processes")
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	f := &fixture{Cluster: processes.New(binary, t.TempDir(), flags...), t: t, ctx: ctx, history: check.NewHistory(), began: time.Now()}
	t.Cleanup(func() {
		f.Close()
		if t.Failed() {
			t.Log(f.Tails(25))
		}
	})
	f.must(f.Found(ctx, 3))
	f.note("three nodes are ready")
	return f
}

// must ends the test at an error.
func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// note tells when something was reached.
func (f *fixture) note(format string, args ...any) {
	f.t.Helper()
	f.t.Logf("%6.2fs %s", time.Since(f.began).Seconds(), fmt.Sprintf(format, args...))
}

func (f *fixture) leader() *processes.Node {
	f.t.Helper()
	n, err := f.Leader(f.ctx)
	f.must(err)
	return n
}

// follower is a node that does not lead, and the two others.
func (f *fixture) follower() (n *processes.Node, others []*processes.Node) {
	n = f.Others(f.leader())[0]
	return n, f.Others(n)
}

func names(nodes []*processes.Node) []string {
	var list []string
	for _, n := range nodes {
		list = append(list, n.Name)
	}
	return list
}

// until waits for a condition.
func (f *fixture) until(what string, try func() error) {
	f.t.Helper()
	if err := processes.Poll(f.ctx, try); err != nil {
		f.t.Fatalf("%s: %v", what, err)
	}
	f.note("%s", what)
}

// status is the cluster as n sees it.
func (f *fixture) status(n *processes.Node) admin.Status {
	f.t.Helper()
	s, err := n.Status(f.ctx)
	f.must(err)
	return s
}

// members is the cluster in one line: "n1:voter n2:voter n4:nonvoter".
func members(s admin.Status) string {
	var list []string
	for _, m := range s.Nodes {
		kind := "nonvoter"
		switch {
		case m.State == admin.StateUnreachable:
			kind = m.State
		case m.Voter:
			kind = "voter"
		}
		list = append(list, m.Name+":"+kind)
	}
	return strings.Join(list, " ")
}

// awaitMembers waits until n sees exactly this cluster.
func (f *fixture) awaitMembers(n *processes.Node, want string) {
	f.t.Helper()
	f.until("the cluster is "+want, func() error {
		s, err := n.Status(f.ctx)
		if err == nil && members(s) != want {
			err = errors.New(members(s))
		}
		return err
	})
}

// awaitSameState waits until all nodes are at one log index, and demands the same digest there.
func (f *fixture) awaitSameState() {
	f.t.Helper()
	var all []processes.Digest
	f.until("all nodes are at the same index", func() error {
		all = all[:0]
		for _, n := range f.Nodes() {
			d, err := n.Digest(f.ctx)
			if err != nil {
				return err
			}
			all = append(all, d)
		}
		for _, d := range all {
			if d.Index != all[0].Index {
				return fmt.Errorf("digests %v", all)
			}
		}
		return nil
	})
	for _, d := range all {
		if d.Digest != all[0].Digest {
			f.t.Fatalf("the nodes have different states at the same index: %v", all)
		}
	}
}

// catchUp starts n and waits until it is ready.
func (f *fixture) catchUp(n *processes.Node, index uint64) {
	f.t.Helper()
	f.must(n.Start())
	f.ready(n, index)
}

// ready follows /readyz of n, which has just started. Until n has applied the log up to index, it must not be ready.
func (f *fixture) ready(n *processes.Node, index uint64) {
	f.t.Helper()
	began, refused, behind := time.Now(), 0, uint64(0)
	f.until(n.Name+" is ready", func() error {
		if !n.Running() {
			f.t.Fatalf("%s has ended by itself", n.Name)
		}
		before, digestErr := n.Digest(f.ctx)
		err := n.Ready(f.ctx)
		if notReady := new(processes.NotReady); errors.As(err, &notReady) {
			refused++
			if notReady.Code != 503 {
				f.t.Errorf("/readyz says %v, want 503", err)
			}
			if digestErr == nil && before.Index < index {
				behind = before.Index
			}
		}
		return err
	})
	after, err := n.Digest(f.ctx)
	f.must(err)
	if after.Index < index {
		f.t.Errorf("%s says it is ready at index %d, and %d was committed before it came back", n.Name, after.Index, index)
	}
	if refused == 0 {
		f.t.Errorf("%s never answered 503 on its way", n.Name)
	}
	f.note("%s took %d ms, answered 503 %d times, last seen behind at index %d of %d", n.Name, time.Since(began).Milliseconds(), refused, behind, index)
}

// options are those of a client whose session stays.
func (f *fixture) options(id string) client.Options {
	return client.Options{ID: id, Version: packet.V5, Dial: f.Dial, KeepAlive: 30}
}

// connect connects c to n, trying again until the test ends.
func (f *fixture) connect(c *client.Client, n *processes.Node) (present bool) {
	f.t.Helper()
	f.must(processes.Poll(f.ctx, func() (err error) {
		present, err = c.Connect(f.ctx, n.Name)
		return err
	}))
	return present
}

// subscribe makes a persistent session with one subscription on n, and leaves.
func (f *fixture) subscribe(opt client.Options, n *processes.Node, filter string) *client.Client {
	f.t.Helper()
	c := client.New(opt)
	f.connect(c, n)
	f.must(c.Subscribe(f.ctx, packet.Subscription{Filter: filter, QoS: 2}))
	c.Disconnect(packet.NormalDisconnection)
	return c
}

// floodWindow is below the Receive Maximum of the broker.
const floodWindow = 100

// flood publishes count QoS 1 messages "0", "1"... on topic/0 to topic/(clients-1), each followed by padding bytes, and
// returns when all are acknowledged.
func (f *fixture) flood(nodes []*processes.Node, topic string, clients, count, padding int) {
	f.t.Helper()
	began, pad := time.Now(), strings.Repeat(" ", padding)
	var wait sync.WaitGroup
	failed := make(chan error, clients)
	for i := range clients {
		name := topic + "/" + strconv.Itoa(i)
		c := client.New(f.options("pub-" + strings.ReplaceAll(name, "/", "-")))
		f.connect(c, nodes[i%len(nodes)])
		wait.Go(func() {
			defer c.Disconnect(packet.NormalDisconnection)
			for n := range count / clients {
				if err := publishWithin(f.ctx, c, name, strconv.Itoa(n)+pad); err != nil {
					failed <- err
					return
				}
			}
			if err := drained(f.ctx, c, 0); err != nil {
				failed <- err
			}
		})
	}
	wait.Wait()
	select {
	case err := <-failed:
		f.t.Fatal(err)
	default:
	}
	f.note("%d messages acknowledged in %d ms", count, time.Since(began).Milliseconds())
}

func publishWithin(ctx context.Context, c *client.Client, topic, value string) error {
	if err := drained(ctx, c, floodWindow-1); err != nil {
		return err
	}
	if _, err := c.Publish(topic, value, 1, false); err != nil {
		return fmt.Errorf("%s publishes: %w", c.ID(), err)
	}
	return nil
}

// drained waits until at most left publishes of c are not acknowledged.
func drained(ctx context.Context, c *client.Client, left int) error {
	for c.Unacked() > left {
		select {
		case <-c.Progress():
		case <-ctx.Done():
			return fmt.Errorf("%s waits for %d acknowledgements: %w", c.ID(), c.Unacked(), ctx.Err())
		}
		if _, ok := c.Connected(); !ok && c.Unacked() > left {
			return fmt.Errorf("%s lost its connection", c.ID())
		}
	}
	return nil
}

// inbox takes what flood has published, and knows when it is whole.
type inbox struct {
	mu    sync.Mutex
	next  map[string]int // by topic
	left  int
	wrong string // the first message out of place
	whole chan struct{}
}

func newInbox(count int) *inbox {
	return &inbox{next: map[string]int{}, left: count, whole: make(chan struct{})}
}

// take is a client.Options.OnMessage.
func (b *inbox) take(m client.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := strconv.Atoi(strings.TrimSpace(m.Payload))
	next := b.next[m.Topic]
	switch {
	case err == nil && n == next:
		b.next[m.Topic]++
		if b.left--; b.left == 0 {
			close(b.whole)
		}
	case err == nil && n < next && m.Dup: // QoS 1 may come again
	case b.wrong == "":
		b.wrong = fmt.Sprintf("got %q of %s (DUP %v) where %d is next", m.Payload, m.Topic, m.Dup, next)
	}
}

// await waits for all messages and demands that they came in order.
func (b *inbox) await(f *fixture) {
	f.t.Helper()
	select {
	case <-b.whole:
	case <-f.ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left != 0 || b.wrong != "" {
		f.t.Fatalf("%d messages are missing; %s", b.left, b.wrong)
	}
	f.note("every message has come, in order")
}

// verdict checks the history of the test; the named checkers must have had something to do.
func (f *fixture) verdict(needed ...string) {
	f.t.Helper()
	report := check.All(f.history.Events(), check.Default())
	for _, r := range report {
		if r.Verdict == check.Invalid {
			f.t.Errorf("%v", r)
		}
	}
	for _, name := range needed {
		if r := report.Find(name); r == nil || r.Verdict != check.Valid {
			f.t.Errorf("%s: %v", name, r)
		} else {
			f.note("%v", r)
		}
	}
}
