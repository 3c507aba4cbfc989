//go:build linux

package hostile

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"quorate/protocol/packet"
)

// A port that is taken ends the start with the address and the reason, before the data directory counts a start.
func TestPortInUseIsToldByItsAddress(t *testing.T) {
	long(t)
	for _, c := range []struct{ name, port, network string }{
		{"mqtt", mqttPort, "tcp"}, {"admin", adminPort, "tcp"}, {"cluster", clusterPort, "tcp"}, {"gossip", clusterPort, "udp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t, "port-"+c.name)
			n.args = append(n.args, "--cluster", n.addr(clusterPort))
			free := occupy(t, c.network, n.addr(c.port))
			n.start().refuses(n.addr(c.port), "address already in use")
			free()
			up(t, n)
		})
	}
}

func occupy(t *testing.T, network, addr string) (free func()) {
	t.Helper()
	if network == "udp" {
		pc, err := net.ListenPacket(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		return func() { _ = pc.Close() }
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return func() { _ = ln.Close() }
}

// A data directory that cannot be written to ends the start with its path and the reason.
func TestUnusableDataDirectoryIsToldByItsPath(t *testing.T) {
	long(t)
	t.Run("not writable", func(t *testing.T) {
		n := newNode(t, "read-only")
		parent := filepath.Dir(n.dir)
		if err := syscall.Mount("tmpfs", parent, "tmpfs", syscall.MS_RDONLY, "size=1m"); err != nil {
			t.Skipf("a read-only mount is not possible here: %v", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(parent, syscall.MNT_DETACH) })
		n.start().refuses(n.dir, "read-only file system")
	})
	t.Run("a file is in its place", func(t *testing.T) {
		n := newNode(t, "file")
		if err := os.WriteFile(n.dir, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		n.start().refuses(n.dir, "not a directory")
	})
	t.Run("in use by another process", func(t *testing.T) {
		n := newNode(t, "used")
		up(t, n)
		second := newNode(t, "second")
		second.dir = n.dir
		second.start().refuses(n.dir, "another process uses it")
		n.alive()
		n.ready()
	})
}

// Wrong settings end the start with exit code 2 and all problems at once.
func TestWrongSettingsAreToldAllAtOnce(t *testing.T) {
	long(t)
	n := newNode(t, "settings", "--expect", "9", "--client-close", "1s", "--max-packet-size", "1GiB", "--colour", "red")
	n.start()
	if code := n.exitCode(); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
	for _, want := range []string{"expect", "client-close", "max-packet-size", "colour"} {
		if !strings.Contains(n.log.String(), want) {
			t.Errorf("nothing is said about %s:\n%s", want, n.log.String())
		}
	}
}

// Nodes that expect different numbers found no cluster, and say so; with the right number on all they do.
func TestNodesThatExpectDifferentNumbersSaySo(t *testing.T) {
	long(t)
	nodes := newCluster(t, 3)
	nodes[2].args = append(nodes[2].args, "--expect", "2") // the later flag wins
	for _, n := range nodes {
		n.start()
	}
	for _, n := range nodes {
		n.says(`was started with --expect .*, this one with --expect .*: use the same number everywhere`)
		if code, body := n.get("/readyz"); code != 503 {
			t.Errorf("%s: /readyz %d %s", n.name, code, body)
		}
	}
	nodes[2].kill()
	nodes[2].args = append(nodes[2].args, "--expect", "3")
	nodes[2].start()
	for _, n := range nodes {
		n.ready()
	}
}

// A node that comes with another number than the running cluster had joins it: the number is for the founding only.
func TestExpectDoesNotMatterToARunningCluster(t *testing.T) {
	long(t)
	nodes := newCluster(t, 3)
	up(t, nodes...)
	late := newNode(t, "late", "--expect", "5")
	late.args = append(late.args, clusterArgs(late, nodes)...)
	late.start()
	want := nodes[0].status().Cluster
	late.ready()
	if got := late.status().Cluster; got != want {
		t.Errorf("in cluster %s, want %s", got, want)
	}
}

// A second node with the name of a live one is not let in, says so, and everybody else serves on; with another name it
// is let in.
func TestDuplicateNameIsRefusedUntilItChanges(t *testing.T) {
	long(t)
	nodes := newCluster(t, 3)
	up(t, nodes...)
	good := startGood(t, nodes[0], nodes[1])
	twin := newNode(t, "n2")
	twin.args = append(twin.args, clusterArgs(twin, nodes)...)
	twin.start()
	line := twin.says(`name \\"n2\\" of server .* in use by live server`)
	if !strings.Contains(line, "give one of them another --name") {
		t.Errorf("no way out in: %s", line)
	}
	eventually(t, "/readyz of the twin to say why", func() bool {
		code, body := twin.get("/readyz")
		return code == 503 && strings.Contains(body, `name "n2"`)
	})
	good.more(50)
	good.finish(ackMax)
	if s := nodes[0].status(); len(s.Nodes) > 4 {
		t.Errorf("%d nodes", len(s.Nodes))
	}
	twin.kill()
	twin.name = "n4"
	up(t, twin)
	login(t, twin, packet.V5, "welcome")
}
