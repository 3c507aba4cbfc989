//go:build linux

// Package hostile puts real nodes, as processes of their own, under bad input: garbage on every port, packets that break
// the rules, floods, data directories that are not what they should be, wrong starts, full disks and too few file
// descriptors. A node must say clearly what is wrong, lose nothing, and serve its good clients on.
//
// It is a test of the built binary and of nothing else: it knows a node by its ports, its exit code and what it logs.
// Every node has a loopback address of its own (127.0.0.0/8), so that no port can be taken by anybody else, and ends
// with the test, also when that is killed.
package hostile

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// quorate is the binary under test, work the directory that everything is in; both are set once, by TestMain.
var quorate, work string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "quorate-hostile.")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	work, quorate = dir, filepath.Join(dir, "quorate")
	flag.Parse()
	if !testing.Short() {
		if err := build(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if width := flag.Lookup("test.parallel"); width.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = width.Value.Set(parallel) // they wait most of the time
	}
	go starter()
	return m.Run()
}

// parallel is how many tests run at once.
const parallel = "6"

func build() error {
	cmd := exec.Command("go", "build", "-o", quorate, "quorate/cmd/quorate")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build quorate: %w\n%s", err, out)
	}
	return nil
}

// starts are the processes to start, for starter.
var starts = make(chan func())

// starter starts all processes on one thread that lives as long as the test: the system kills a child with the thread
// that made it.
func starter() {
	runtime.LockOSThread()
	for f := range starts {
		f()
	}
}

// long skips a test of real processes where only short ones are wanted, and lets it run beside the others.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real nodes")
	}
	t.Parallel()
}

// patience is how long anything may take that has to happen: many times what it takes on an idle machine.
const patience = 60 * time.Second

// eventually waits until ok, asking again and again; what says what was waited for.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited %v in vain: %s", patience, what)
		case <-tick.C:
		}
	}
}
