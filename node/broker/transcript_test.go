package broker

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/node/listener"
	"quorate/protocol/packet"
)

var update = flag.Bool("update", false, "write what the broker does into the transcripts")

func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

// TestTranscripts plays the conversations of testdata. A line "name> PACKET fields" is sent by the client of that name,
// "name< PACKET fields" is what it receives; the others are commands:
//
//	drop NAME            its network connection breaks
//	wait DURATION        time passes
//	leader gone|back     the log stops or goes on
//	log refuses|accepts  proposals fail or succeed
//	nodes N              before the first packet: how many nodes there are; "name@n2" is a client of the second
//	down n2              the leader declares a node dead
//	limit NAME VALUE     before the first packet: a limit of the broker
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			synctest.Test(t, func(t *testing.T) { got = play(t, string(want)) })
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("the conversation differs (-update writes it):\n%s", difference(string(want), string(got)))
			}
		})
	}
}

// difference shows the first lines that differ.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		if i >= len(w) || i >= len(g) || w[i] != g[i] {
			return fmt.Sprintf("line %d\nwant:\n%s\ngot:\n%s", i+1,
				strings.Join(w[min(i, len(w)):min(i+8, len(w))], "\n"), strings.Join(g[min(i, len(g)):min(i+8, len(g))], "\n"))
		}
	}
	return "no difference"
}

type player struct {
	t       *testing.T
	cluster *fakeCluster
	nodes   int
	limits  []func(*Config)
	clients []*testClient
	out     bytes.Buffer
}

func play(t *testing.T, script string) []byte {
	p := &player{t: t}
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		if _, _, answer := strings.Cut(line, "< "); answer && !strings.HasPrefix(line, "#") {
			continue
		}
		fmt.Fprintln(&p.out, line)
		if line != "" && !strings.HasPrefix(line, "#") {
			p.do(line)
			synctest.Wait()
			p.collect()
		}
	}
	for _, c := range p.clients {
		_ = c.nc.Close()
		close(c.out)
	}
	if p.cluster != nil {
		p.cluster.close(t)
	}
	return p.out.Bytes()
}

func (p *player) do(line string) {
	if name, rest, packet := strings.Cut(line, "> "); packet {
		p.client(name, strings.HasPrefix(rest, "CONNECT") || strings.HasPrefix(rest, "RAW new")).send(p.t, rest)
		return
	}
	words := strings.Fields(line)
	switch words[0] {
	case "drop":
		_ = p.client(words[1], false).nc.Close()
	case "wait":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			p.t.Fatal(err)
		}
		time.Sleep(d)
	case "leader":
		p.start().setLeader(words[1] == "back")
	case "log":
		var err error
		if words[1] == "refuses" {
			err = errors.New("full")
		}
		p.start().setRefuse(err)
	case "nodes":
		n, err := strconv.Atoi(words[1])
		if err != nil {
			p.t.Fatal(err)
		}
		p.nodes = n
	case "down":
		n, err := strconv.Atoi(strings.TrimPrefix(words[1], "n"))
		if err != nil {
			p.t.Fatal(err)
		}
		p.start().down(p.start().nodes[n-1])
	case "limit":
		n, err := strconv.Atoi(words[2])
		if err != nil {
			p.t.Fatal(err)
		}
		p.limits = append(p.limits, func(c *Config) { setLimit(p.t, c, words[1], n) })
	default:
		p.t.Fatalf("what is %q?", line)
	}
}

func setLimit(t *testing.T, c *Config, name string, n int) {
	switch name {
	case "receive_maximum":
		c.ReceiveMaximum = n
	case "queue":
		c.QueueMessagesMax = n
	case "subscriptions":
		c.SubscriptionsMax = n
	case "keepalive":
		c.KeepAliveMax = time.Duration(n) * time.Second
	case "packet":
		c.Client.Reader.MaxPacketBytes = n
	case "topic_alias":
		c.TopicAliasMaximum = n
	default:
		t.Fatalf("what is limit %q?", name)
	}
}

func (p *player) start() *fakeCluster {
	if p.cluster == nil {
		p.cluster = newFakeCluster(p.t, max(p.nodes, 1), func(c *Config) {
			c.Access = testAccess{}
			for _, f := range p.limits {
				f(c)
			}
		})
	}
	return p.cluster
}

// testAccess refuses everything under secret/.
type testAccess struct{}

func (testAccess) MayPublish(_ *Principal, topic string) bool {
	return !strings.HasPrefix(topic, "secret/")
}
func (testAccess) MaySubscribe(_ *Principal, filter string) bool {
	return !strings.HasPrefix(filter, "secret/")
}

func (p *player) client(name string, fresh bool) *testClient {
	i := slices.IndexFunc(p.clients, func(c *testClient) bool { return c.name == name })
	if i >= 0 && (!fresh || !p.clients[i].over()) {
		return p.clients[i]
	}
	node := p.start().nodes[0]
	if _, at, ok := strings.Cut(name, "@n"); ok {
		n, err := strconv.Atoi(at)
		if err != nil || n < 1 || n > p.nodes {
			p.t.Fatalf("no node for %q", name)
		}
		node = p.start().nodes[n-1]
	}
	ours, theirs := net.Pipe()
	c := &testClient{name: name, nc: ours, out: make(chan []byte, 100)}
	if i >= 0 {
		close(p.clients[i].out)
		p.clients[i] = c
	} else {
		p.clients = append(p.clients, c)
	}
	go node.Serve(theirs, listener.Info{Listener: "test", RemoteAddr: "pipe"})
	go c.write()
	return c
}

// collect writes what the clients received.
func (p *player) collect() {
	for _, c := range p.clients {
		c.mu.Lock()
		for _, line := range c.got {
			fmt.Fprintf(&p.out, "%s< %s\n", c.name, line)
		}
		c.got = nil
		c.mu.Unlock()
	}
}

// testClient is a raw client: it sends and receives packets and does nothing by itself.
type testClient struct {
	name    string
	nc      net.Conn
	version packet.Version
	out     chan []byte
	reading sync.Once

	mu     sync.Mutex
	got    []string
	closed bool
}

func (c *testClient) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// write sends what is queued: a broker that does not read holds up this client only.
func (c *testClient) write() {
	for enc := range c.out {
		_, _ = c.nc.Write(enc) // the broker may close meanwhile
	}
}

func (c *testClient) read() {
	r := packet.NewReader(c.nc, 1<<20, packet.FromServer)
	r.SetVersion(c.peekVersion())
	for {
		p, err := r.Next()
		c.mu.Lock()
		if err != nil {
			c.closed = true
			if errors.Is(err, io.EOF) {
				c.got = append(c.got, "EOF")
			} else if !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, net.ErrClosed) {
				c.got = append(c.got, "ERROR "+err.Error())
			}
			c.mu.Unlock()
			return
		}
		c.got = append(c.got, describe(p))
		c.mu.Unlock()
	}
}

func (c *testClient) peekVersion() packet.Version {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == 0 {
		return packet.V5
	}
	return c.version
}

func (c *testClient) send(t *testing.T, text string) {
	kind, rest, _ := strings.Cut(text, " ")
	var enc []byte
	if kind == "RAW" {
		rest = strings.TrimPrefix(rest, "new ")
		raw, err := hex.DecodeString(strings.ReplaceAll(rest, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		enc = raw
	} else {
		f := parseFields(t, rest)
		p := f.packet(kind)
		if connect, ok := p.(*packet.Connect); ok {
			c.mu.Lock()
			c.version = connect.Version
			c.mu.Unlock()
		}
		enc = p.Append(nil, c.peekVersion())
		for range f.number("times", 1) - 1 {
			enc = p.Append(enc, c.peekVersion())
		}
		f.done()
	}
	c.reading.Do(func() { go c.read() })
	c.out <- enc
}
