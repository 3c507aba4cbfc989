//go:build linux

package hostile

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quorate/protocol/packet"
)

// A node that runs out of file descriptors lets clients wait, keeps its links to the others, does not spin, and takes
// clients again when there is room.
func TestTooFewFileDescriptorsKeepTheClusterTogether(t *testing.T) {
	long(t)
	nodes := newCluster(t, 3)
	up(t, nodes...)
	victim := nodes[0]
	good := startGood(t, victim, nodes[1])
	good.more(20)
	pid := victim.cmd.Process.Pid
	limit := unix.Rlimit{Cur: 64, Max: 64}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Skipf("the limit cannot be set: %v", err)
	}
	said := victim.log.Len()
	var crowd []net.Conn
	for range 300 { // the backlog of the port takes those that the node cannot
		nc, err := net.DialTimeout("tcp", victim.addr(mqttPort), time.Second)
		if err != nil {
			break
		}
		_, _ = nc.Write(connect(packet.V5, ""))
		crowd = append(crowd, nc)
	}
	eventually(t, "the node to be out of file descriptors", func() bool { return openFiles(t, pid) >= 60 })
	before := cpuTicks(t, pid)
	began := time.Now()
	good.more(200)
	if spent, took := cpuTicks(t, pid)-before, time.Since(began); float64(spent)/100 > took.Seconds()*1.2+1 {
		t.Errorf("%d ticks of CPU in %v: does it spin?", spent, took)
	}
	for _, n := range nodes[1].status().Nodes {
		if n.State != "leader" && n.State != "follower" {
			t.Errorf("%s is %s", n.Name, n.State)
		}
	}
	if grown := victim.log.Len() - said; grown > 64<<10 {
		t.Errorf("%d bytes of log:\n%s", grown, tail(victim.log.String(), 10))
	}
	for _, nc := range crowd {
		_ = nc.Close()
	}
	eventually(t, "a new client to be taken", func() bool {
		w := dial(t, victim, packet.V5)
		defer func() { _ = w.nc.Close() }()
		w.write(connect(packet.V5, ""))
		p, err := w.next()
		return err == nil && describe(p) == "CONNACK 0x00"
	})
	good.more(50)
	good.finish(ackMax)
	victim.alive()
	victim.ready()
}

func openFiles(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// cpuTicks is the processor time that the process has used, in hundredths of a second.
func cpuTicks(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ") // behind the name of the program
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return user + system
}
