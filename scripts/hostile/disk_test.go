//go:build linux

package hostile

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"quorate/protocol/packet"
)

// disk is a file system of its own under a node's data directory. Its size can change while it is in use.
type disk struct {
	t   *testing.T
	dir string
}

// mountDisk puts a file system of 3 GiB, of which nothing takes memory but what is used, under the node.
func mountDisk(t *testing.T, n *node) *disk {
	t.Helper()
	dir := filepath.Dir(n.dir)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=3g"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		n.kill()
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
	})
	return &disk{t, dir}
}

// leave makes the disk so large that this much is free.
func (d *disk) leave(free uint64) {
	d.t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &st); err != nil {
		d.t.Fatal(err)
	}
	used := (st.Blocks - st.Bfree) * uint64(st.Bsize)
	if err := syscall.Mount("tmpfs", d.dir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", used+max(free, 4096))); err != nil {
		d.t.Fatal(err)
	}
}

const (
	mib = 1 << 20
	gib = 1 << 30
)

// probe publishes a message that must be stored, on a connection of its own, and says what came of it.
func probe(t *testing.T, n *node, v packet.Version) string {
	t.Helper()
	w := dial(t, n, v)
	defer func() { _ = w.nc.Close() }()
	w.write(connect(v, ""))
	if p, err := w.next(); err != nil || describe(p) != "CONNACK 0x00" {
		return fmt.Sprintf("not connected: %v", err)
	}
	w.write(publish(v, 3, "probe", 1, "x")) // retained
	p, err := w.next()
	if err != nil {
		return closed
	}
	return describe(p)
}

// stored reports whether the probe was taken.
func stored(probe string) bool { return probe == "PUBACK 0x00" || probe == "PUBACK 0x10" }

// short checks what a node with little space does: QoS 1 and 2 that must be stored is refused in both versions, QoS 0 goes
// on, and what is stored is delivered.
func short(t *testing.T, n *node, live *wire) {
	t.Helper()
	eventually(t, "PUBACK 0x97", func() bool { return probe(t, n, packet.V5) == "PUBACK 0x97" })
	if got := probe(t, n, packet.V311); got != closed {
		t.Errorf("version 3 got %q, want the close", got)
	}
	w := login(t, n, packet.V5, "")
	w.write(publish(packet.V5, 4, "kept/x", 1, "-1"))
	if got := w.readAck(packet.TypePubrec); got != packet.QuotaExceeded {
		t.Errorf("PUBREC %v", got)
	}
	w.write(publish(packet.V5, 3, "kept/retained", 2, "-1"))
	if got := w.readAck(packet.TypePuback); got != packet.QuotaExceeded {
		t.Errorf("PUBACK %v of a retained message", got)
	}
	for i := range 20 {
		w.write(publish(packet.V5, 0, "live/x", 0, strconv.Itoa(i)))
		m, ok := live.read().(*packet.Publish)
		if !ok || string(m.Payload) != strconv.Itoa(i) {
			t.Fatalf("QoS 0 message %d is %+v", i, m)
		}
	}
}

// A disk that is nearly full refuses what it would have to store, delivers what it has, and goes on by itself when there
// is space again. Nothing that was acknowledged is lost, then or over a restart.
func TestFullDiskRefusesDeliversAndRecovers(t *testing.T) {
	long(t)
	n := newNode(t, "disk")
	d := mountDisk(t, n)
	up(t, n)
	kept := fill(t, n, 50)
	live := login(t, n, packet.V5, "live")
	live.write(subscribe(packet.V5, "live/x", 0))
	live.readAck(packet.TypeSuback)

	d.leave(500 * mib)
	short(t, n, live)
	drain(t, n, kept)
	d.leave(2 * gib)
	recovers(t, n)
	store(t, login(t, n, packet.V5, ""), 0, 5)

	d.leave(0) // somebody else took everything
	eventually(t, "no message to be taken", func() bool { return !stored(probe(t, n, packet.V5)) })
	for i := range 20 {
		live.write(publish(packet.V5, 0, "live/x", 0, strconv.Itoa(i)))
		m, ok := live.read().(*packet.Publish)
		if !ok || string(m.Payload) != strconv.Itoa(i) {
			t.Fatalf("QoS 0 message %d on a full disk is %+v", i, m)
		}
	}
	n.alive()
	said := n.log.Len()
	d.leave(2 * gib)
	recovers(t, n)
	store(t, login(t, n, packet.V5, ""), 5, 10)
	n.alive()
	if grown := n.log.Len() - said; grown > 64<<10 {
		t.Errorf("%d bytes of log:\n%s", grown, tail(n.log.String(), 10))
	}

	n.kill()
	d.leave(0)
	n.start()
	n.says("no space left on device|disk is nearly full") // it may run without a leader, or end
	d.leave(2 * gib)
	if !n.running() {
		n.start()
	}
	n.ready()
	drain(t, n, 10)
}

// recovers waits until messages are taken again, without anybody's help.
func recovers(t *testing.T, n *node) {
	t.Helper()
	eventually(t, "messages to be taken again", func() bool { return stored(probe(t, n, packet.V5)) })
}

// One full disk of three costs nobody anything: the others are a majority, and the clients of the node are served.
func TestFullDiskOfOneNodeOfThree(t *testing.T) {
	long(t)
	nodes := newCluster(t, 3)
	victim := nodes[1]
	d := mountDisk(t, victim)
	up(t, nodes...)
	good := startGood(t, nodes[0], nodes[2])
	good.more(20)
	d.leave(0)
	good.more(300)
	victim.alive()
	d.leave(2 * gib)
	eventually(t, "the node to have caught up", func() bool {
		a, b := applied(nodes[0]), applied(victim)
		return b > 0 && a-b < 100
	})
	victim.ready()
	recovers(t, victim)
	good.more(20)
	good.finish(2 * ackMax)
	if strings.Contains(victim.log.String(), "panic") {
		t.Error("panic")
	}
}

func applied(n *node) float64 { return n.metric("quorate_log_applied_index") }
