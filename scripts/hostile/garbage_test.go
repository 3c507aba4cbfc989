//go:build linux

package hostile

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"quorate/protocol/packet"
)

// junk are things that come to a port that is not theirs.
func junk() map[string][]byte {
	random := make([]byte, 64<<10)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(random)
	return map[string][]byte{
		"nothing":           {},
		"random":            random,
		"zeros":             make([]byte, 64<<10),
		"0xFF":              bytes.Repeat([]byte{0xFF}, 64<<10),
		"HTTP":              raw("POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n{"),
		"HTTP 2":            raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		"TLS":               tlsHello,
		"SSH":               raw("SSH-2.0-OpenSSH_9.9\r\n"),
		"MQTT":              connect(packet.V5, "lost"),
		"half a CONNECT":    connect(packet.V5, "lost")[:9],
		"raft without word": raw("R"),
		"mesh without word": raw("M"),
		"mesh hello, long":  cat(raw("M\x01\xFF\xFF"), make([]byte, 70_000)),
		"mesh hello, short": raw("M\x01\x00\x05\x10abc"),
		"mesh hello, empty": cat(raw("M\x01\x00\x15"), make([]byte, 21)),
		"raft append":       cat(raw("R\x00\x00\x00"), random[:4096]),
		"gossip":            cat(raw("G"), random[:8192]),
		"gossip push-pull":  cat(raw("G\x06"), bytes.Repeat([]byte{0xDF, 0xFF, 0xFF, 0xFF, 0xFF}, 2000)),
		"gossip compressed": cat(raw("G\x09"), bytes.Repeat([]byte{0x82, 0xA4, 'A', 'l', 'g', 'o', 0x00, 0xA3, 'B', 'u', 'f', 0xC6, 0xFF, 0xFF, 0xFF, 0xFF}, 100)),
		"gossip encrypted":  cat(raw("G\x0A\xFF\xFF\xFF\xFF"), random[:1000]),
		"long line":         bytes.Repeat([]byte("A"), 1<<20),
	}
}

// Garbage on any port, fast, slow, half, or held open without a word, disturbs no good client and costs no memory.
func TestGarbageOnAnyPortDisturbsNobody(t *testing.T) {
	long(t)
	nodes := newCluster(t, 3, "--connect-timeout", "3s")
	up(t, nodes...)
	victim := nodes[0]
	good := startGood(t, victim, nodes[1])
	good.more(20)
	calm(t, victim, func() {
		for round := range 3 {
			for name, b := range junk() {
				for _, port := range []string{mqttPort, clusterPort, adminPort} {
					throw(t, victim.addr(port), b, name)
				}
				throwUDP(t, victim.addr(clusterPort), b)
			}
			t.Logf("round %d, %d acknowledged", round, good.acked.Load())
		}
		slow := holdOpen(t, victim)
		good.more(50)
		slow(t)
	})
	good.more(50)
	good.finish(ackMax)
	for _, n := range nodes {
		n.ready()
		if now := n.status(); now.Leader == "" || len(now.Nodes) != 3 {
			t.Errorf("%s: leader %q, %d nodes", n.name, now.Leader, len(now.Nodes))
		}
	}
	if refused := victim.metric("quorate_cluster_refused_connections_total"); refused < 10 {
		t.Errorf("%v connections to the cluster port were counted as refused", refused)
	}
}

// throw sends b and whatever the other side makes of it, it must not take long.
func throw(t *testing.T, addr string, b []byte, name string) {
	t.Helper()
	nc, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatalf("dial %s: %v", addr, err)
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(patience))
	_, _ = nc.Write(b)
	_ = nc.(*net.TCPConn).CloseWrite()
	if n, _ := io.Copy(io.Discard, nc); n > 16<<10 {
		t.Errorf("%s: %q was answered with %d bytes", addr, name, n)
	}
}

func throwUDP(t *testing.T, addr string, b []byte) {
	t.Helper()
	nc, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	for _, size := range []int{1, 30, 1400, 60_000} {
		_, _ = nc.Write(b[:min(len(b), size)])
	}
	for kind := range byte(20) { // every message type of memberlist, with and without the label header
		_, _ = nc.Write(append([]byte{kind}, b[:min(len(b), 500)]...))
		_, _ = nc.Write(cat([]byte{244, 7}, raw("quorate"), []byte{kind}, b[:min(len(b), 500)]))
	}
}

// holdOpen opens connections that never say enough, and returns a function that checks that they are all ended.
func holdOpen(t *testing.T, n *node) func(t *testing.T) {
	t.Helper()
	begun := map[string][]byte{
		mqttPort:    connect(packet.V5, "slow"),
		clusterPort: raw("M\x01\x00\x40aaaaaaaaaaaaaaaaaaaaaaaaaaa"),
		adminPort:   raw("GET /status HTTP/1.1\r\nHost: a\r\nX-Slow: "),
	}
	var conns []net.Conn
	stop := make(chan struct{})
	for port, b := range begun {
		for i := range 300 {
			nc, err := net.DialTimeout("tcp", n.addr(port), patience)
			if err != nil {
				t.Fatalf("connection %d to port %s: %v", i, port, err)
			}
			conns = append(conns, nc)
			go drip(nc, b, i%3, stop)
		}
	}
	return func(t *testing.T) {
		t.Helper()
		deadline := time.Now().Add(patience)
		for _, nc := range conns {
			_ = nc.SetReadDeadline(deadline)
			if _, err := io.Copy(io.Discard, nc); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("a connection from %v to %v that says nothing is still open", nc.LocalAddr(), nc.RemoteAddr())
			}
			_ = nc.Close()
		}
		close(stop)
	}
}

// drip sends nothing, the first half, or a byte each second, never the last.
func drip(nc net.Conn, b []byte, how int, stop <-chan struct{}) {
	switch how {
	case 1:
		_, _ = nc.Write(b[:len(b)/2])
	case 2:
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for i := range len(b) - 1 {
			if _, err := nc.Write(b[i : i+1]); err != nil {
				return
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}
}

// The admin port answers what it does not know with an error, and reads no large body.
func TestAdminPortRefusesWhatItDoesNotServe(t *testing.T) {
	long(t)
	n := newNode(t, "admin")
	up(t, n)
	f := func(request string, want int) {
		t.Helper()
		nc, err := net.DialTimeout("tcp", n.addr(adminPort), patience)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = nc.Close() }()
		_ = nc.SetDeadline(time.Now().Add(patience))
		_, _ = nc.Write([]byte(request))
		var proto string
		var code int
		if _, err := fmt.Fscan(nc, &proto, &code); err != nil || code != want {
			t.Errorf("%.60q: %s %d (%v), want %d", request, proto, code, err, want)
		}
	}
	f("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", http.StatusNotFound)
	f("GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", http.StatusTemporaryRedirect)
	f("POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nx=1", http.StatusMethodNotAllowed)
	f("DELETE /metrics HTTP/1.1\r\nHost: a\r\n\r\n", http.StatusMethodNotAllowed)
	f("GET /debug/pprof/ HTTP/1.1\r\nHost: a\r\n\r\n", http.StatusNotFound)
	f("GET /readyz HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge)
	f("GET /status HTTP/9.9\r\nHost: a\r\n\r\n", http.StatusHTTPVersionNotSupported)
	f("GET /status HTTP/1.1\r\n\r\n", http.StatusBadRequest)
	n.ready()
}
