package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"quorate/node/admin"
)

// The ports of node i (from 0) are base + i and these offsets: 1883, 18083 and 7946 for the default base.
const (
	demoBase       = 1883
	demoAdminPorts = 18083 - demoBase
	demoMeshPorts  = 7946 - demoBase
	demoBaseMax    = 65535 - demoAdminPorts - demoNodesMax
	demoNodesMax   = 5

	demoLook    = 300 * time.Millisecond // between two looks at the cluster
	demoRestart = 3 * time.Second        // of --restart
	demoStop    = 5 * time.Second        // an orderly end may take so long
)

// demoOptions are the flags of demo.
type demoOptions struct {
	nodes, base    int
	restart, plain bool
}

// demo runs a cluster of child processes until a signal comes, and cleans up behind it.
func demo(ctx context.Context, con console, args []string) int {
	opt, err := parseDemo(args)
	if err != nil {
		fmt.Fprintf(con.err, "quorate demo: %v\n\n%s", err, demoHelp())
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := runDemo(ctx, con, opt); err != nil {
		fmt.Fprintf(con.err, "quorate demo: %v\n", err)
		return exitFailed
	}
	return exitOK
}

func parseDemo(args []string) (demoOptions, error) {
	var opt demoOptions
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&opt.nodes, "nodes", 3, "")
	flags.IntVar(&opt.base, "base-port", demoBase, "")
	flags.BoolVar(&opt.restart, "restart", false, "")
	flags.BoolVar(&opt.plain, "plain", false, "")
	if err := flags.Parse(args); err != nil {
		return opt, err
	}
	switch {
	case flags.NArg() > 0:
		return opt, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case opt.nodes < 1 || opt.nodes > demoNodesMax:
		return opt, fmt.Errorf("%d nodes: 1 to %d are possible", opt.nodes, demoNodesMax)
	case opt.base < 1 || opt.base > demoBaseMax:
		return opt, fmt.Errorf("base port %d: 1 to %d are possible", opt.base, demoBaseMax)
	}
	return opt, nil
}

// runDemo owns everything that the demo makes: a directory and processes. When it returns both are gone.
func runDemo(ctx context.Context, con console, opt demoOptions) (err error) {
	if err := checkDemoPorts(opt); err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	dir, unlock, err := demoDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir), unlock()) }()

	// A child is killed when the thread that started it ends (Pdeathsig). This goroutine keeps its thread to the end.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	d := &demonstration{con: con, opt: opt, binary: binary, dir: dir, began: time.Now(), exits: make(chan *demoNode, demoNodesMax)}
	defer d.stopAll()
	for i := range opt.nodes {
		n := newDemoNode(i, opt)
		d.nodes = append(d.nodes, n)
		if err := d.start(n); err != nil {
			return err
		}
	}
	d.view = newView(con.out, opt.plain)
	d.view.banner(d)
	return d.watch(ctx)
}

// demoDir makes the directory of a demo, and removes those of demos that were killed: nobody holds their lock.
func demoDir() (dir string, unlock func() error, err error) {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), "quorate-demo-*"))
	if err != nil {
		return "", nil, fmt.Errorf("look for old demos: %w", err)
	}
	for _, d := range old {
		if unlock, err := lockDir(d); err == nil {
			// What cannot be removed is somebody else's, and no reason not to start.
			_ = os.RemoveAll(d)
			_ = unlock()
		}
	}
	if dir, err = os.MkdirTemp("", "quorate-demo-"); err != nil {
		return "", nil, fmt.Errorf("make a directory for the demo: %w", err)
	}
	if unlock, err = lockDir(dir); err != nil {
		return "", nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), os.RemoveAll(dir))
	}
	return dir, unlock, nil
}

// lockDir takes the lock of a directory itself, which leaves no file behind.
func lockDir(dir string) (unlock func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

// demonstration is a running demo. One goroutine owns it; the others send to its channels.
type demonstration struct {
	con    console
	opt    demoOptions
	binary string
	dir    string
	began  time.Time
	nodes  []*demoNode
	view   *view
	exits  chan *demoNode // a process has ended
	ready  bool           // the cluster has been ready once
}

// watch shows the cluster and does what is typed until ctx ends.
func (d *demonstration) watch(ctx context.Context) error {
	commands := make(chan string)
	go readCommands(d.con.in, commands)
	looks := make(chan admin.Status)
	looking, stopLooking := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.look(looking, looks)
	}()
	defer func() {
		stopLooking()
		<-done
	}()
	restarts := make(chan *demoNode, demoNodesMax)
	for {
		select {
		case <-ctx.Done():
			d.view.note("stopping")
			return nil
		case n := <-d.exits:
			if err := d.exited(n); err != nil {
				return err
			}
			if d.opt.restart {
				time.AfterFunc(demoRestart, func() { restarts <- n })
			}
		case n := <-restarts:
			d.startAgain(n)
		case line := <-commands:
			d.command(line)
		case s := <-looks:
			d.see(s)
		}
	}
}

// readCommands passes lines of standard input on. It ends with the input or the process.
func readCommands(in io.Reader, to chan<- string) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		to <- lines.Text()
	}
}

// look asks the nodes for the state of the cluster, again and again: the first that answers and knows a leader counts.
func (d *demonstration) look(ctx context.Context, to chan<- admin.Status) {
	ticker := time.NewTicker(demoLook)
	defer ticker.Stop()
	urls := make([]string, len(d.nodes))
	for i, n := range d.nodes {
		urls[i] = "http://" + n.admin
	}
	for {
		var best admin.Status
		for _, url := range urls {
			asking, cancel := context.WithTimeout(ctx, 2*time.Second)
			s, _, err := fetchStatus(asking, url)
			cancel()
			if err == nil && (best.Leader == "" && len(s.Nodes) > 0) {
				best = s
			}
			if best.Leader != "" {
				break
			}
		}
		select {
		case to <- best:
		case <-ctx.Done():
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// see takes in a look at the cluster and shows it.
func (d *demonstration) see(s admin.Status) {
	readyNodes := 0
	for _, n := range d.nodes {
		n.member = admin.Member{}
		for _, m := range s.Nodes {
			if m.Name == n.name {
				n.member = m
			}
		}
		if n.running() && n.member.Ready {
			readyNodes++
		}
	}
	if !d.ready && readyNodes == len(d.nodes) {
		d.ready = true
		d.view.note(fmt.Sprintf("ready after %.1f s: leader is %s", time.Since(d.began).Seconds(), s.Leader))
	}
	d.view.show(d.nodes, s.Leader)
}

// exited notes the end of a process. Before the cluster was ready once it ends the demo: then something is wrong.
func (d *demonstration) exited(n *demoNode) error {
	how := n.ended()
	if !d.ready {
		return fmt.Errorf("node %s ended at its start: %s\n%s", n.name, how, tail(n.logPath, 12))
	}
	text := fmt.Sprintf("%s ended: %s", n.name, how)
	if !d.opt.restart {
		text += fmt.Sprintf("; type \"start %s\" and Enter to start it again", n.name)
	}
	d.view.note(text)
	return nil
}

// command does what was typed: "kill n2", "stop n2", "start n2".
func (d *demonstration) command(line string) {
	d.view.typed()
	word, name, _ := strings.Cut(strings.TrimSpace(line), " ")
	if word == "" {
		d.view.note("type: kill n1, stop n1 or start n1 (or another node)")
		return
	}
	for _, n := range d.nodes {
		if n.name != strings.TrimSpace(name) && strconv.Itoa(n.index+1) != strings.TrimSpace(name) {
			continue
		}
		switch word {
		case "kill":
			n.signal(syscall.SIGKILL)
		case "stop":
			n.signal(syscall.SIGTERM)
		case "start":
			d.startAgain(n)
		default:
			d.view.note(fmt.Sprintf("unknown command %q: kill, stop and start are known", word))
		}
		return
	}
	d.view.note("type: kill n1, stop n1 or start n1 (or another node)")
}

func (d *demonstration) startAgain(n *demoNode) {
	if n.running() {
		d.view.note(n.name + " is running")
		return
	}
	if err := d.start(n); err != nil {
		d.view.note(err.Error())
		return
	}
	d.view.note(fmt.Sprintf("%s started again, process %d", n.name, n.pid()))
}
