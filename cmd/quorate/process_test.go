package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
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

	"quorate/node/admin"
)

// asQuorate makes the test binary be quorate: processes of these tests run exactly the code under test, with its race
// detector. The name does not begin with QUORATE_, which would make it a setting.
const asQuorate = "TEST_BINARY_IS_QUORATE"

func TestMain(m *testing.M) {
	if os.Getenv(asQuorate) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is a running quorate.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	lines    chan string // of standard output and error, as they come
	finished chan struct{}

	mu  sync.Mutex
	all bytes.Buffer
}

func startProcess(t *testing.T, environ []string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(self, args...), lines: make(chan string, 1000), finished: make(chan struct{})}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "QUORATE_") && !strings.HasPrefix(e, "NOTIFY_SOCKET=") {
			p.cmd.Env = append(p.cmd.Env, e)
		}
	}
	p.cmd.Env = append(p.cmd.Env, append(environ, asQuorate+"=1")...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	go p.read(r)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // most have ended
		<-p.finished
		if t.Failed() {
			p.mu.Lock()
			defer p.mu.Unlock()
			t.Logf("%v said:\n%s", args, p.all.String())
		}
	})
	return p
}

// read passes the output on, and waits for the process when there is no more.
func (p *process) read(r io.ReadCloser) {
	defer close(p.finished)
	defer r.Close()
	for lines := bufio.NewScanner(r); lines.Scan(); {
		p.mu.Lock()
		p.all.WriteString(lines.Text() + "\n")
		p.mu.Unlock()
		select {
		case p.lines <- lines.Text():
		default: // nobody looks for anything in so much output
		}
	}
	close(p.lines)
	_ = p.cmd.Wait() // the state tells
}

// line waits for a line that matches and returns its groups.
func (p *process) line(pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(patience)
	for {
		select {
		case l, ok := <-p.lines:
			if !ok {
				<-p.finished
				p.t.Fatalf("ended (%s) without a line like %s", p.cmd.ProcessState, pattern)
			}
			if m := re.FindStringSubmatch(l); m != nil {
				return m
			}
		case <-timeout:
			p.t.Fatalf("no line like %s", pattern)
		}
	}
}

// exit waits for the end and returns the exit code.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.finished:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatal("does not end")
		return -1
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// eventually waits for a condition of the world outside.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(patience)
	for !ok() {
		select {
		case <-ticker.C:
		case <-timeout:
			t.Fatalf("still not: %s", what)
		}
	}
}

// served is a node that serve runs on free ports.
type served struct {
	*process
	mqttPort, admin string
}

func startServe(t *testing.T, environ []string, args ...string) served {
	t.Helper()
	p := startProcess(t, environ, append([]string{"serve", "--mqtt", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"}, args...)...)
	var started struct {
		MQTT  []string
		Admin string
	}
	if err := json.Unmarshal([]byte(p.line(`.*"msg":"node started".*`)[0]), &started); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(started.MQTT[0])
	if err != nil {
		t.Fatal(err)
	}
	s := served{p, port, started.Admin}
	eventually(t, "/readyz is 200", s.ready)
	return s
}

func (s served) ready() bool {
	resp, err := http.Get("http://" + s.admin + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func TestServeKeepsWhatItAcknowledgedOverAnOrderlyEndAndAKill(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	s := startServe(t, nil, "--data", data, "--name", "n1")
	at := func(s served, args ...string) outcome {
		return invoke(t, "", append([]string{args[0], "-h", "127.0.0.1", "-p", s.mqttPort}, args[1:]...)...)
	}
	if got := at(s, "pub", "-q", "1", "-r", "-t", "state", "-m", "on"); got != (outcome{}) {
		t.Fatalf("pub: %+v", got)
	}
	if got := at(s, "sub", "-V", "5", "-i", "watcher", "-c", "-q", "2", "-t", "news/#", "-E"); got != (outcome{}) {
		t.Fatalf("sub -E: %+v", got)
	}
	s.signal(syscall.SIGHUP) // does not end it
	if got := at(s, "pub", "-V", "31", "-q", "2", "-t", "news/1", "-m", "one"); got != (outcome{}) {
		t.Fatalf("pub: %+v", got)
	}
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != exitOK {
		t.Errorf("exit code %d after SIGTERM", code)
	}

	s = startServe(t, nil, "--data", data, "--name", "n1")
	if got := at(s, "pub", "-q", "1", "-t", "news/2", "-m", "two"); got != (outcome{}) {
		t.Fatalf("pub: %+v", got)
	}
	s.signal(syscall.SIGKILL)
	s.exit()

	s = startServe(t, nil, "--data", data, "--name", "n1")
	if got := at(s, "sub", "-V", "5", "-i", "watcher", "-c", "-q", "2", "-t", "news/#", "-C", "2", "-v"); got != (outcome{out: "news/1 one\nnews/2 two\n"}) {
		t.Errorf("sub: %+v", got)
	}
	if got := at(s, "sub", "-t", "state", "-C", "1", "-F", "%t %p %r"); got != (outcome{out: "state on 1\n"}) {
		t.Errorf("sub: %+v", got)
	}
	eventually(t, "only the persistent session is left, on a node that leads and is ready", func() bool {
		st := invoke(t, "", "status", "--json", "--admin", s.admin)
		var status admin.Status
		if err := json.Unmarshal([]byte(st.out), &status); err != nil || st.code != exitOK {
			t.Fatalf("status: %+v, %v", st, err)
		}
		return status.Leader == "n1" && len(status.Nodes) == 1 && status.Nodes[0].Ready && status.Nodes[0].Sessions == 1
	})
	s.signal(syscall.SIGINT)
	if code := s.exit(); code != exitOK {
		t.Errorf("exit code %d after SIGINT", code)
	}
}

func TestServeTellsSystemdWhenItIsUpAndWhenItStops(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	read := func() string {
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	s := startServe(t, []string{"NOTIFY_SOCKET=" + socket}, "--data", t.TempDir())
	if got := read(); !strings.HasPrefix(got, "READY=1\n") {
		t.Errorf("got %q", got)
	}
	s.signal(syscall.SIGTERM)
	if got := read(); got != "STOPPING=1" {
		t.Errorf("got %q", got)
	}
	if code := s.exit(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestServeRefusesAWrongConfigurationWithCode2(t *testing.T) {
	p := startProcess(t, []string{"QUORATE_EXPECT=many"}, "serve", "--mqtt", "0.0.0.0:1883", "--nmae", "x")
	p.line("^quorate: 3 problems in the configuration$")
	p.line("^  QUORATE_EXPECT: ")
	p.line(`^  arguments: unknown flag "--nmae"; did you mean "--name"\?$`)
	p.line("^  --mqtt: 0.0.0.0:1883 is not on loopback")
	if code := p.exit(); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
}

func TestServeOnAPortThatIsTakenFailsWithCode1(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	data := filepath.Join(t.TempDir(), "data")
	p := startProcess(t, nil, "serve", "--mqtt", ln.Addr().String(), "--admin", "off", "--data", data)
	p.line("listen for clients on " + ln.Addr().String() + ": .*address already in use")
	if code := p.exit(); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("the data directory was made although nothing could start")
	}
}

// startDemo starts a demo on ports that are free now. Between looking and starting another process may take one: then
// the demo says so, and another try is fair.
func startDemo(t *testing.T, tmp string) (p *process, base int) {
	t.Helper()
	for base = 20000; base < 30000; base += 97 {
		if !allFree(demoPorts(base, 3)) {
			continue
		}
		p = startProcess(t, []string{"TMPDIR=" + tmp}, "demo", "--plain", "--base-port", strconv.Itoa(base))
		if p.line(`ready after|is in use by`)[0] == "ready after" {
			return p, base
		}
	}
	t.Fatal("no free ports")
	return nil, 0
}

// demoPIDs are the processes of the nodes, from the last line about all of them.
func demoPIDs(p *process) map[string]int {
	m := p.line(`n1=\S+ ?\(pid (\d+)\)  n2=\S+ ?\(pid (\d+)\)  n3=\S+ ?\(pid (\d+)\)`)
	pids := map[string]int{}
	for i, text := range m[1:] {
		pids["n"+strconv.Itoa(i+1)], _ = strconv.Atoi(text)
	}
	return pids
}

// alive reports whether a process exists and is no zombie that nobody has waited for.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}

func emptyDir(t *testing.T, dir string) bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries) == 0
}

func TestDemoIsAClusterThatLeavesNothingBehind(t *testing.T) {
	tmp := t.TempDir()
	d, base := startDemo(t, tmp)
	pids := demoPIDs(d)
	hosts := fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d", base, base+1, base+2)
	if got := invoke(t, "", "sub", "-V", "5", "-h", hosts, "-i", "watcher", "-c", "-q", "1", "-t", "demo/#", "-E"); got != (outcome{}) {
		t.Fatalf("sub -E: %+v", got)
	}
	st := invoke(t, "", "status", "--json", "--admin", fmt.Sprintf("127.0.0.1:%d", base+demoAdminPorts+1))
	var status admin.Status
	if err := json.Unmarshal([]byte(st.out), &status); err != nil || len(status.Nodes) != 3 || pids[status.Leader] == 0 {
		t.Fatalf("status: %+v, %v", st, err)
	}

	// The leader is killed: what is published afterwards is there for the session that was made before.
	if err := syscall.Kill(pids[status.Leader], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.line(status.Leader + ` ended: signal: killed`)
	if got := invoke(t, "", "pub", "-V", "5", "-h", hosts, "-q", "1", "-t", "demo/x", "-m", "still here", "--quiet"); got.code != 0 {
		t.Fatalf("pub: %+v", got)
	}
	if got := invoke(t, "", "sub", "-V", "5", "-h", hosts, "-i", "watcher", "-c", "-q", "1", "-t", "demo/#", "-C", "1"); got.out != "still here\n" {
		t.Fatalf("sub: %+v", got)
	}

	d.signal(syscall.SIGINT)
	if code := d.exit(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for name, pid := range pids {
		if alive(pid) {
			t.Errorf("%s (process %d) lives", name, pid)
		}
	}
	if !allFree(demoPorts(base, 3)) {
		t.Error("a port is still open")
	}
	if !emptyDir(t, tmp) {
		t.Error("files are left")
	}
}

func TestTheNodesOfADemoDieWithItAndTheNextOneCleansUp(t *testing.T) {
	tmp := t.TempDir()
	d, base := startDemo(t, tmp)
	pids := demoPIDs(d)
	d.signal(syscall.SIGKILL)
	d.exit()
	for name, pid := range pids {
		eventually(t, name+" is gone", func() bool { return !alive(pid) })
	}
	eventually(t, "its ports are free", func() bool { return allFree(demoPorts(base, 3)) })
	if emptyDir(t, tmp) {
		t.Fatal("a killed demo cannot clean up; how did it?")
	}
	d, _ = startDemo(t, tmp)
	d.signal(syscall.SIGTERM)
	d.exit()
	if !emptyDir(t, tmp) {
		t.Error("the files of the killed demo are left")
	}
}

func TestDemoNamesTheProcessThatHasItsPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	if port > demoBaseMax {
		t.Skip("the system gave a port too high for a demo")
	}
	got := invoke(t, "", "demo", "--base-port", strconv.Itoa(port))
	want := fmt.Sprintf("quorate demo: port %d (MQTT of n1) is in use by ", port)
	if got.code != exitFailed || !strings.HasPrefix(got.err, want) || !strings.Contains(got.err, fmt.Sprintf("(process %d)", os.Getpid())) ||
		!strings.Contains(got.err, "--base-port") {
		t.Errorf("got %+v", got)
	}
}

func TestDemoExplainsWrongFlags(t *testing.T) {
	for want, args := range map[string][]string{
		"6 nodes: 1 to 5 are possible":         {"--nodes", "6"},
		"base port 0: 1 to 49330 are possible": {"--base-port", "0"},
		"flag provided but not defined: -node": {"--node", "3"},
		`unexpected argument "three"`:          {"three"},
	} {
		if got := invoke(t, "", append([]string{"demo"}, args...)...); got.code != exitUsage || !strings.HasPrefix(got.err, "quorate demo: "+want+"\n") {
			t.Errorf("%v: %+v", args, got)
		}
	}
}
