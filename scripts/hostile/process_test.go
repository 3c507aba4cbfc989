//go:build linux

package hostile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The ports of every node, on its own address. They are below the range that the system gives to outgoing connections.
const (
	mqttPort    = "1883"
	clusterPort = "7946"
	adminPort   = "18083"
)

// node is one quorate process, which may be ended and started again.
type node struct {
	t    *testing.T
	name string
	host string // of its three ports
	dir  string // the data directory
	args []string

	cmd    *exec.Cmd
	log    *output // of all its runs
	exited chan struct{}
}

// output collects what a process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (o *output) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Len()
}

// freeHost draws a loopback address that nobody listens on.
func freeHost(t *testing.T) string {
	t.Helper()
	for range 100 {
		host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
		ln, err := net.Listen("tcp", net.JoinHostPort(host, mqttPort))
		if err != nil {
			continue
		}
		_ = ln.Close()
		return host
	}
	t.Fatal("no free loopback address")
	return ""
}

// newNode makes a node that is alone until join gives it others. It is not started.
func newNode(t *testing.T, name string, args ...string) *node {
	t.Helper()
	dir, err := os.MkdirTemp(work, name+".")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, name: name, host: freeHost(t), dir: filepath.Join(dir, "data"), log: &output{}, args: args}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			t.Logf("--- %s\n%s", n.name, tail(n.log.String(), 40))
		}
	})
	return n
}

// newCluster makes count nodes that found a cluster together, n1 to n9. They are not started.
func newCluster(t *testing.T, count int, args ...string) []*node {
	t.Helper()
	nodes := make([]*node, count)
	for i := range nodes {
		nodes[i] = newNode(t, "n"+strconv.Itoa(i+1), append([]string{"--expect", strconv.Itoa(count)}, args...)...)
	}
	joinAll(nodes)
	return nodes
}

// joinAll lets every node know all of them.
func joinAll(nodes []*node) {
	for _, n := range nodes {
		n.args = append(n.args, clusterArgs(n, nodes)...)
	}
}

func clusterArgs(n *node, others []*node) []string {
	var seeds []string
	for _, o := range others {
		seeds = append(seeds, o.addr(clusterPort))
	}
	return []string{"--cluster", n.addr(clusterPort), "--join", strings.Join(seeds, ",")}
}

func (n *node) addr(port string) string { return net.JoinHostPort(n.host, port) }

// start starts the process and does not wait for anything.
func (n *node) start() *node {
	n.t.Helper()
	n.cmd = exec.Command(quorate, append([]string{
		"serve", "--name", n.name, "--data", n.dir, "--mqtt", n.addr(mqttPort), "--admin", n.addr(adminPort),
	}, n.args...)...)
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	n.launch()
	return n
}

func (n *node) launch() {
	n.t.Helper()
	started := make(chan error)
	starts <- func() { started <- n.cmd.Start() }
	if err := <-started; err != nil {
		n.t.Fatalf("start %s: %v", n.name, err)
	}
	exited, cmd := make(chan struct{}), n.cmd
	n.exited = exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
}

// up starts all of them and waits until they serve.
func up(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		n.start()
	}
	for _, n := range nodes {
		n.ready()
	}
}

func (n *node) running() bool {
	if n.exited == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// kill ends the process at once and waits for it. It may have ended.
func (n *node) kill() {
	if n.exited != nil {
		_ = n.cmd.Process.Kill()
		<-n.exited
	}
}

// stop ends the process in good order.
func (n *node) stop() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatalf("stop %s: %v", n.name, err)
	}
	if code := n.exitCode(); code != 0 {
		n.t.Fatalf("%s ended with exit code %d after SIGTERM", n.name, code)
	}
}

// exitCode waits for the process to end by itself.
func (n *node) exitCode() int {
	n.t.Helper()
	select {
	case <-n.exited:
		return n.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		n.t.Fatalf("%s still runs after %v", n.name, patience)
		return 0
	}
}

// alive fails the test when the process has ended.
func (n *node) alive() {
	n.t.Helper()
	if !n.running() {
		n.t.Fatalf("%s has ended with exit code %d", n.name, n.cmd.ProcessState.ExitCode())
	}
}

// ready waits until the node serves.
func (n *node) ready() {
	n.t.Helper()
	eventually(n.t, n.name+" to be ready", func() bool {
		n.alive()
		code, _ := n.get("/readyz")
		return code == http.StatusOK
	})
}

var httpClient = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// get asks the admin port; code 0 without an answer.
func (n *node) get(path string) (code int, body string) {
	r, err := httpClient.Get("http://" + n.addr(adminPort) + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err.Error()
	}
	return r.StatusCode, string(b)
}

// status is what the tests read of /status.
type status struct {
	Leader  string
	Cluster string
	Nodes   []struct {
		Name, ID, State string
		Voter           bool
	}
}

func (n *node) status() (s status) {
	if code, body := n.get("/status"); code == http.StatusOK {
		_ = json.Unmarshal([]byte(body), &s)
	}
	return s
}

// metric returns the sum of all samples of a metric, -1 when it cannot be asked.
func (n *node) metric(name string) float64 {
	code, body := n.get("/metrics")
	if code != http.StatusOK {
		return -1
	}
	sum := 0.0
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(?:\{[^}]*\})? (\S+)$`).FindAllStringSubmatch(body, -1) {
		v, _ := strconv.ParseFloat(m[1], 64)
		sum += v
	}
	return sum
}

// residentBytes is the memory that the process has now.
func (n *node) residentBytes() int {
	n.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		n.t.Fatalf("no VmRSS of %s", n.name)
	}
	kib, _ := strconv.Atoi(string(m[1]))
	return kib << 10
}

// says waits until the node has logged a line that matches the expression, and returns it.
func (n *node) says(expression string) string {
	n.t.Helper()
	re := regexp.MustCompile(`(?m)^.*` + expression + `.*$`)
	var line string
	eventually(n.t, n.name+" to say "+expression, func() bool {
		line = re.FindString(n.log.String())
		return line != ""
	})
	return line
}

// refuses waits until the process has ended by itself, and checks that the end is an error that says all of these.
func (n *node) refuses(texts ...string) string {
	n.t.Helper()
	if code := n.exitCode(); code == 0 {
		n.t.Fatalf("%s ended with exit code 0", n.name)
	}
	said := n.log.String()
	for _, text := range texts {
		if !strings.Contains(said, text) {
			n.t.Fatalf("%s does not say %q, but:\n%s", n.name, text, tail(said, 5))
		}
	}
	if strings.Contains(said, "panic:") || strings.Contains(said, "goroutine 1 [") {
		n.t.Fatalf("%s panics:\n%s", n.name, said)
	}
	return said
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// shell runs a command line that a node has named.
func shell(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}
