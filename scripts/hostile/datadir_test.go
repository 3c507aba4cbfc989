//go:build linux

package hostile

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"quorate/protocol/packet"
)

// remedy is the command that a refusing node names.
var remedy = regexp.MustCompile(`run: (mv \S+ \S+?)\s+and start it again`)

// mend runs the command that the node has named, and starts it again.
func mend(t *testing.T, n *node, said string) {
	t.Helper()
	m := remedy.FindAllStringSubmatch(said, -1)
	if m == nil {
		t.Fatalf("no command in: %s", tail(said, 3))
	}
	shell(t, m[len(m)-1][1])
	n.start()
}

// fill stores messages for an absent subscriber and returns how many.
func fill(t *testing.T, n *node, count int) int {
	t.Helper()
	sub := dial(t, n, packet.V5)
	sub.send(&packet.Connect{Version: packet.V5, ClientID: "absent", Properties: packet.Properties{HasSessionExpiry: true, SessionExpirySeconds: 3600}})
	sub.readAck(packet.TypeConnack)
	sub.write(subscribe(packet.V5, "kept/#", 1))
	sub.readAck(packet.TypeSuback)
	sub.send(&packet.Disconnect{})
	_ = sub.nc.Close()
	pub := login(t, n, packet.V5, "filler")
	store(t, pub, 0, count)
	return count
}

// store publishes messages from to to-1 with QoS 1, one after the other, each acknowledged.
func store(t *testing.T, pub *wire, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		pub.write(publish(packet.V5, 2, "kept/x", uint16(i%60_000)+1, strconv.Itoa(i)))
		if code := pub.readAck(packet.TypePuback); code.Failed() {
			t.Fatalf("message %d: %v", i, code)
		}
	}
}

// drain takes what is kept for the absent subscriber, and checks that it is the messages 0 to want-1 in order.
func drain(t *testing.T, n *node, want int) {
	t.Helper()
	sub := dial(t, n, packet.V5)
	sub.send(&packet.Connect{Version: packet.V5, ClientID: "absent", Properties: packet.Properties{HasSessionExpiry: true, SessionExpirySeconds: 3600}})
	ack, ok := sub.read().(*packet.Connack)
	if !ok || ack.ReasonCode.Failed() || !ack.SessionPresent {
		t.Fatalf("CONNACK %+v", ack)
	}
	for i := range want {
		m, ok := sub.read().(*packet.Publish)
		if !ok || string(m.Payload) != strconv.Itoa(i) {
			t.Fatalf("message %d of %d is %+v", i, want, m)
		}
		sub.send(&packet.Puback{PacketID: m.PacketID})
	}
	sub.send(&packet.Disconnect{})
}

// damage is something that happens to the data directory of a node that is not running.
type damage struct {
	name string
	do   func(t *testing.T, dir string)
	want []string // what the node must say
	// keep says that the directory is well, and nothing is to be moved away.
	keep bool
}

func damages() []damage {
	file := func(dir string, parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	return []damage{
		{"log truncated", func(t *testing.T, dir string) { truncate(t, file(dir, "raft", "log.db")) }, []string{"raft log"}, false},
		{"entry with a flipped bit", func(t *testing.T, dir string) { flip(t, file(dir, "raft", "log.db"), "kept/x") }, []string{"log", "damaged"}, false},
		{"log deleted", func(t *testing.T, dir string) { remove(t, file(dir, "raft", "log.db")) }, []string{"log"}, false},
		{"log of another time", func(t *testing.T, dir string) {
			copyFile(t, file(dir, "raft", "log.db.early"), file(dir, "raft", "log.db"))
		}, []string{"log"}, false},
		{"mark deleted", func(t *testing.T, dir string) { remove(t, file(dir, "raft", "mark")) }, []string{"mark of what was acknowledged is missing"}, false},
		{"mark zeroed", func(t *testing.T, dir string) { zero(t, file(dir, "raft", "mark")) }, []string{"mark of what was acknowledged is damaged"}, false},
		{"server.json deleted", func(t *testing.T, dir string) { remove(t, file(dir, "server.json")) }, []string{"server.json is missing"}, false},
		{"server.json of another server", func(t *testing.T, dir string) {
			edit(t, file(dir, "server.json"), `"server_id": "`, `"server_id": "0`)
		}, []string{"server.json", "checksum"}, false},
		{"server.json of a newer version", func(t *testing.T, dir string) {
			edit(t, file(dir, "server.json"), `"format": 1`, `"format": 7`)
		}, []string{"format 7", "newer version"}, true},
		{"server.json is no JSON", func(t *testing.T, dir string) { write(t, file(dir, "server.json"), "what?") }, []string{"server.json is damaged"}, false},
		{"peers.json is no JSON", func(t *testing.T, dir string) { write(t, file(dir, "peers.json"), "what?") }, []string{"peers"}, false},
		{"members.json is no JSON", func(t *testing.T, dir string) { write(t, file(dir, "members.json"), "what?") }, []string{"members.json", "damaged", "run: rm "}, true},
		{"members.json of a newer version", func(t *testing.T, dir string) { write(t, file(dir, "members.json"), `{"version":7}`) }, []string{"members.json", "version 7"}, true},
	}
}

// A data directory that is not what the node left is refused, with what was seen. The command that the node names
// brings it back as a new server, which gets everything from the others; what was acknowledged is still there.
func TestDamagedDataDirectoryIsRefusedAndMended(t *testing.T) {
	long(t)
	nodes := newCluster(t, 3)
	up(t, nodes...)
	early := filepath.Join(nodes[2].dir, "raft", "log.db.early")
	nodes[2].stop()
	copyFile(t, filepath.Join(nodes[2].dir, "raft", "log.db"), early)
	nodes[2].start().ready()
	kept := fill(t, nodes[0], 200)
	victim := nodes[2]
	victim.stop()
	whole := filepath.Join(work, "whole-"+victim.host)
	shell(t, "cp -a "+victim.dir+" "+whole)
	for _, d := range damages() {
		t.Run(d.name, func(t *testing.T) {
			shell(t, "rm -rf "+victim.dir+" "+victim.dir+".refused && cp -a "+whole+" "+victim.dir)
			d.do(t, victim.dir)
			victim.t, victim.log = t, &output{}
			defer victim.kill()
			said := victim.start().refuses(d.want...)
			if named := remedy.MatchString(said); named == d.keep {
				t.Errorf("a directory to be kept: %v, and a command to move it away: %v:\n%s", d.keep, named, tail(said, 2))
			}
		})
	}
	// The last one goes through the whole way back.
	victim.t, victim.log = t, &output{}
	shell(t, "rm -rf "+victim.dir+" && cp -a "+whole+" "+victim.dir)
	truncate(t, filepath.Join(victim.dir, "raft", "log.db"))
	mend(t, victim, victim.start().refuses("raft log"))
	victim.ready()
	drain(t, victim, kept)
}

// copyData is a copy of a node's directory while it runs.
func copyData(t *testing.T, from *node, name string) string {
	t.Helper()
	to := filepath.Join(work, name+"-"+from.host)
	shell(t, "cp -a "+from.dir+" "+to)
	return to
}

// truncate leaves the first pages of a log, which is larger than what it holds.
func truncate(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 24<<10); err != nil {
		t.Fatal(err)
	}
}

// flip changes a bit in the last place where the file holds text.
func flip(t *testing.T, path, text string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; ; { // every copy: some are pages that are no longer in use
		i := bytes.Index(b[at:], []byte(text))
		if i < 0 {
			if at == 0 {
				t.Fatalf("%s does not hold %q", path, text)
			}
			break
		}
		b[at+i] ^= 1
		at += i + len(text)
	}
	write(t, path, string(b))
}

func zero(t *testing.T, path string) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(make([]byte, st.Size())))
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func edit(t *testing.T, path, old, text string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(b), old, text, 1)
	if changed == string(b) {
		t.Fatalf("%s does not hold %q", path, old)
	}
	write(t, path, changed)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A directory that went to a machine of another cluster does not mix the two: neither takes anything of the other, and
// the good clients notice nothing. Moved away, the node joins.
func TestDirectoryOfAnotherClusterDoesNotMixTheTwo(t *testing.T) {
	long(t)
	theirs, ours := newCluster(t, 1), newCluster(t, 3)
	stranger := theirs[0]
	stranger.name = "stranger"
	up(t, append(ours, stranger)...)
	kept := fill(t, stranger, 20)
	theirID, ourID := stranger.status().Cluster, ours[0].status().Cluster
	stranger.stop()
	good := startGood(t, ours[0], ours[1])
	stranger.args = clusterArgs(stranger, ours)
	up(t, stranger) // a cluster of one is ready by itself, with its own data
	good.more(100)
	drain(t, stranger, kept)
	for _, n := range append(ours, stranger) {
		want := ourID
		if n == stranger {
			want = theirID
		}
		if got := n.status(); got.Cluster != want || n != stranger && len(got.Nodes) != len(ours) {
			t.Errorf("%s: %+v, want cluster %s", n.name, got, want)
		}
	}
	stranger.kill()
	shell(t, "mv "+stranger.dir+" "+stranger.dir+".refused")
	up(t, stranger)
	if got := stranger.status().Cluster; got != ourID {
		t.Errorf("in cluster %s, want %s", got, ourID)
	}
	good.more(50)
	good.finish(ackMax)
}

// A copy of a node's directory that is started beside it, as another machine, is refused; the node itself serves on.
func TestCopiedDirectoryOfALiveNodeIsRefused(t *testing.T) {
	long(t)
	nodes := newCluster(t, 3)
	up(t, nodes...)
	kept := fill(t, nodes[0], 20)
	twin := newNode(t, "n3")
	twin.dir = copyData(t, nodes[2], "twin")
	twin.args = append(twin.args, clusterArgs(twin, nodes)...)
	good := startGood(t, nodes[0], nodes[1])
	good.more(500) // the node tells the others several times what it has, which the copy has not
	said := twin.start().refuses("old copy")
	if !remedy.MatchString(said) {
		t.Errorf("no command in: %s", tail(said, 3))
	}
	good.more(50)
	good.finish(ackMax)
	for _, n := range nodes {
		n.ready()
	}
	drain(t, nodes[2], kept)
}

// A node that comes back with an old copy of its directory has forgotten what it acknowledged, and is refused.
func TestOldCopyOfTheDirectoryIsRefused(t *testing.T) {
	long(t)
	nodes := newCluster(t, 3)
	up(t, nodes...)
	victim := nodes[2]
	victim.stop()
	old := copyData(t, victim, "old")
	victim.start().ready()
	kept := fill(t, nodes[0], 100)
	victim.stop()
	shell(t, "rm -rf "+victim.dir+" && mv "+old+" "+victim.dir)
	victim.log = &output{}
	said := victim.start().refuses("old copy")
	mend(t, victim, said)
	victim.ready()
	drain(t, victim, kept)
}
