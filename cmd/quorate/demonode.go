package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"quorate/node/admin"
)

// demoNode is one node of a demo: a child process, again and again.
type demoNode struct {
	index                int
	name                 string
	mqtt, admin, cluster string
	args                 []string
	logPath              string

	cmd    *exec.Cmd // nil when it does not run; only the owner of the demonstration touches it
	waited sync.WaitGroup
	state  *os.ProcessState // of the last process
	member admin.Member     // what the cluster says of it
}

func newDemoNode(i int, opt demoOptions) *demoNode {
	local := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port+i)) }
	n := &demoNode{
		index: i, name: "n" + strconv.Itoa(i+1),
		mqtt: local(opt.base), admin: local(opt.base + demoAdminPorts), cluster: local(opt.base + demoMeshPorts),
	}
	n.args = []string{"serve", "--name", n.name, "--mqtt", n.mqtt, "--admin", n.admin, "--timings", "lan"}
	if opt.nodes == 1 {
		return n
	}
	var others []string
	for j := range opt.nodes {
		if j != i {
			others = append(others, net.JoinHostPort("127.0.0.1", strconv.Itoa(opt.base+demoMeshPorts+j)))
		}
	}
	n.args = append(n.args, "--cluster", n.cluster, "--join", strings.Join(others, ","), "--expect", strconv.Itoa(opt.nodes))
	return n
}

// start starts the process of n. It dies with this one, however this one dies.
func (d *demonstration) start(n *demoNode) error {
	n.logPath = filepath.Join(d.dir, n.name+".log")
	log, err := os.OpenFile(n.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", n.name, err)
	}
	defer log.Close() // the child has its own descriptor
	cmd := exec.Command(d.binary, append(n.args, "--data", filepath.Join(d.dir, n.name))...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = withoutSettings(d.con.environ)
	// A group of its own: Ctrl-C reaches the demo alone, which then stops the nodes in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	n.cmd = cmd
	n.waited.Go(func() {
		_ = cmd.Wait() // the state says how it ended
		d.exits <- n
	})
	return nil
}

// withoutSettings is the environment without settings of serve: the demo makes its own.
func withoutSettings(environ []string) []string {
	var rest []string
	for _, e := range environ {
		if !strings.HasPrefix(e, "QUORATE_") {
			rest = append(rest, e)
		}
	}
	return rest
}

func (n *demoNode) running() bool { return n.cmd != nil }

func (n *demoNode) pid() int {
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// ended takes note of the end of the process and says how it came.
func (n *demoNode) ended() string {
	n.waited.Wait()
	n.state = n.cmd.ProcessState
	n.cmd = nil
	return n.state.String()
}

// signal sends a signal, if the process still runs.
func (n *demoNode) signal(s syscall.Signal) {
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(s) // it may just have ended
	}
}

// stopAll ends every process, in order if there is time, and waits for all.
func (d *demonstration) stopAll() {
	for _, n := range d.nodes {
		n.signal(syscall.SIGTERM)
	}
	timer := time.AfterFunc(demoStop, func() {
		for _, n := range d.nodes {
			n.signal(syscall.SIGKILL)
		}
	})
	defer timer.Stop()
	for _, n := range d.nodes {
		n.waited.Wait()
	}
}

// tail is the last lines of a file, indented.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "  " + err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}
