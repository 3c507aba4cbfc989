package processes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"quorate/node/admin"
)

// Node is one process at a time, on one data directory. MQTT and Admin are its addresses.
type Node struct {
	Name, MQTT, Admin string

	cluster         *Cluster
	flags           []string
	port, data, log string // cluster port, data directory, log file

	mu   sync.Mutex
	run  *exec.Cmd
	done chan struct{} // closed when run has ended
}

// Start starts the process; Ready says when it serves.
func (n *Node) Start() error {
	var join []string
	for _, other := range n.cluster.Others(n) {
		join = append(join, other.port)
	}
	args := []string{"serve", "--name", n.Name, "--data", n.data, "--mqtt", n.MQTT, "--cluster", n.port, "--admin", n.Admin,
		"--join", strings.Join(join, ",")}
	args = append(append(args, n.cluster.flags...), n.flags...)
	out, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", n.Name, err)
	}
	defer out.Close() // the process has its own
	cmd := exec.Command(n.cluster.binary, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended does not matter here
		close(done)
	}()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.run, n.done = cmd, done
	return nil
}

func (n *Node) process() (*exec.Cmd, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.run, n.done
}

// Running reports whether there is a process.
func (n *Node) Running() bool {
	cmd, done := n.process()
	if cmd == nil {
		return false
	}
	select {
	case <-done:
		return false
	default:
		return true
	}
}

// Signal sends a signal, if there is a process.
func (n *Node) Signal(s syscall.Signal) {
	if cmd, _ := n.process(); cmd != nil {
		_ = cmd.Process.Signal(s) // it has ended: nothing to do
	}
}

// Ended is closed when the process that runs now has ended. Start comes first.
func (n *Node) Ended() <-chan struct{} {
	_, done := n.process()
	return done
}

// Kill ends the process with SIGKILL and waits for that.
func (n *Node) Kill() {
	if cmd, done := n.process(); cmd != nil {
		n.Signal(syscall.SIGKILL)
		<-done
	}
}

// Pause sends SIGSTOP and waits until every thread stands still.
func (n *Node) Pause(ctx context.Context) error {
	cmd, _ := n.process()
	n.Signal(syscall.SIGSTOP)
	return Poll(ctx, func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", cmd.Process.Pid))
		if err != nil {
			return err
		}
		for _, name := range threads {
			stat, err := os.ReadFile(name)
			// "pid (name) state ...", and the name may hold anything.
			if i := bytes.LastIndexByte(stat, ')'); err == nil && (i < 0 || !bytes.HasPrefix(stat[i:], []byte(") T"))) {
				return fmt.Errorf("%s runs on", n.Name)
			}
		}
		return nil
	})
}

// ExitCode is how the last process ended, -1 by a signal.
func (n *Node) ExitCode() int {
	cmd, done := n.process()
	<-done
	return cmd.ProcessState.ExitCode()
}

// Wipe deletes the data directory.
func (n *Node) Wipe() error { return os.RemoveAll(n.data) }

// Logged reports whether the log of any of its processes has a text.
func (n *Node) Logged(text string) bool {
	b, err := os.ReadFile(n.log)
	return err == nil && bytes.Contains(b, []byte(text))
}

// NotReady is an answer of /readyz other than 200.
type NotReady struct {
	Code   int
	Reason string
}

// Error implements error.
func (e *NotReady) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Reason) }

// Ready is nil when /readyz says so; *NotReady when it says otherwise; another error when there was no answer.
func (n *Node) Ready(ctx context.Context) error {
	code, body, err := n.get(ctx, "/readyz")
	if err != nil || code == http.StatusOK {
		return err
	}
	return &NotReady{code, strings.TrimSpace(string(body))}
}

// Status is the cluster as this node sees it.
func (n *Node) Status(ctx context.Context) (admin.Status, error) {
	var status admin.Status
	return status, n.getJSON(ctx, "/status", &status)
}

// Digest is what /digest answers: a digest of the state that is right at one log index.
type Digest struct {
	Index  uint64 `json:"index"`
	Digest string `json:"digest"`
}

// Digest asks for the node's state.
func (n *Node) Digest(ctx context.Context) (Digest, error) {
	var d Digest
	return d, n.getJSON(ctx, "/digest", &d)
}

func (n *Node) getJSON(ctx context.Context, path string, to any) error {
	code, body, err := n.get(ctx, path)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("%s of %s: %d %s", path, n.Name, code, body)
	}
	if err := json.Unmarshal(body, to); err != nil {
		return fmt.Errorf("%s of %s: %w", path, n.Name, err)
	}
	return nil
}

// Bounds of one HTTP request.
const (
	requestTime     = 4 * time.Second
	answerBytesMax  = 1 << 20
	idleConnections = 4
)

// web is a client of its own: a test that ends must not wait for connections of others.
var web = &http.Client{Timeout: requestTime, Transport: &http.Transport{MaxIdleConnsPerHost: idleConnections, IdleConnTimeout: time.Second}}

func (n *Node) get(ctx context.Context, path string) (code int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Admin+path, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := web.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	return resp.StatusCode, body, err
}
