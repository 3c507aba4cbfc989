package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// compare starts every broker, one after the other, runs the same scenarios
// on each, and prints the results side by side.
func compare(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	length := flags.Duration("time", 5*time.Second, "length of each measurement")
	only := flags.String("scenarios", "", "names, separated by commas; all if empty")
	mosquitto := flags.String("mosquitto", "/usr/sbin/mosquitto", "the broker to compare with; empty: none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "quorate-bench.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	quorate := filepath.Join(dir, "quorate")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", quorate, "./cmd/quorate").CombinedOutput(); err != nil {
		return fmt.Errorf("build quorate: %w\n%s", err, out)
	}
	starters := []func(context.Context, *stable) (target, error){
		func(ctx context.Context, s *stable) (target, error) { return s.quorate(ctx, quorate, 1) },
		func(ctx context.Context, s *stable) (target, error) { return s.quorate(ctx, quorate, 3) },
	}
	if *mosquitto != "" {
		starters = append(starters, func(ctx context.Context, s *stable) (target, error) { return s.mosquitto(ctx, *mosquitto) })
	}
	results := map[string][]result{}
	for i, start := range starters {
		s := &stable{dir: filepath.Join(dir, fmt.Sprint(i))}
		t, err := start(ctx, s)
		if err == nil {
			err = measureAll(ctx, t, *only, *length, results)
		}
		s.close()
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	fmt.Println()
	for _, s := range scenarios {
		for _, r := range results[s.name] {
			fmt.Println(r)
		}
	}
	return nil
}

func measureAll(ctx context.Context, t target, only string, length time.Duration, results map[string][]result) error {
	for _, s := range scenarios {
		if only != "" && !strings.Contains(","+only+",", ","+s.name+",") {
			continue
		}
		r, err := s.run(ctx, t, s.shape, length)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.note = "ERROR: " + err.Error()
		}
		fmt.Println(r)
		results[s.name] = append(results[s.name], r)
	}
	return nil
}

// stable holds the processes of one target.
type stable struct {
	dir       string
	processes []*exec.Cmd
}

// spawn starts a broker with its output in a file.
func (s *stable) spawn(name string, arg ...string) (int, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return 0, err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.Command(name, arg...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	s.processes = append(s.processes, cmd)
	return cmd.Process.Pid, nil
}

// close ends all processes of this target, and only those.
func (s *stable) close() {
	for _, p := range s.processes {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
}

// freePorts returns loopback ports that were free for TCP a moment ago.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// quorate starts a cluster of size nodes.
func (s *stable) quorate(ctx context.Context, binary string, size int) (target, error) {
	t := target{name: fmt.Sprintf("quorate-%d", size)}
	ports, err := freePorts(2 * size)
	if err != nil {
		return t, err
	}
	addr := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	var join []string
	for i := range size {
		t.nodes = append(t.nodes, addr(i))
		join = append(join, addr(size+i))
	}
	for i := range size {
		name := fmt.Sprintf("n%d", i+1)
		args := []string{"serve", "--name", name, "--data", filepath.Join(s.dir, name), "--mqtt", addr(i), "--admin", "off"}
		if size > 1 {
			args = append(args, "--cluster", addr(size+i), "--join", strings.Join(join, ","), "--expect", fmt.Sprint(size))
		}
		pid, err := s.spawn(binary, args...)
		if err != nil {
			return t, err
		}
		t.pids = append(t.pids, pid)
	}
	return t, s.awaitServing(ctx, t)
}

// mosquitto starts a broker that persists as its manual recommends for
// durability: it writes its database every second, not before each PUBACK.
func (s *stable) mosquitto(ctx context.Context, binary string) (target, error) {
	t := target{name: "mosquitto"}
	ports, err := freePorts(1)
	if err != nil {
		return t, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return t, err
	}
	conf := filepath.Join(s.dir, "mosquitto.conf")
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nuser %s\npersistence true\npersistence_location %s/\n"+
		"autosave_interval 1\nset_tcp_nodelay true\nmax_queued_messages 0\nmax_inflight_messages 128\nlog_type error\n", ports[0], userName(), s.dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return t, err
	}
	pid, err := s.spawn(binary, "-c", conf)
	if err != nil {
		return t, err
	}
	t.pids = []int{pid}
	t.nodes = []string{fmt.Sprintf("127.0.0.1:%d", ports[0])}
	return t, s.awaitServing(ctx, t)
}

func userName() string {
	if u := os.Getenv("USER"); u != "" {
		return u
	}
	return "root"
}

// awaitServing waits until every node accepts a client.
func (s *stable) awaitServing(ctx context.Context, t target) error {
	for _, node := range t.nodes {
		var last error
		if !await(ctx, 30*time.Second, func() bool {
			var l *link
			if l, last = dial(ctx, node, "bench-ready", true); last != nil {
				return false
			}
			l.leave()
			return true
		}) {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return errors.Join(fmt.Errorf("%s does not serve at %s", t.name, node), last, fmt.Errorf("its log:\n%s", log))
		}
	}
	return nil
}
