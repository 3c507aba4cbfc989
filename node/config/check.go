package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Validate checks a Config that was not made by Load. The error is of type [Problems].
func (c *Config) Validate() error { return c.check(nil).err() }

// checker collects what is wrong with values that are well formed each by itself.
type checker struct {
	c        *Config
	invalid  map[string]bool // keys with no value at all: nothing that depends on them is said
	problems Problems
}

func (c *Config) check(invalid map[string]bool) Problems {
	k := &checker{c: c, invalid: invalid}
	k.checkNode()
	k.checkListeners()
	k.checkCluster()
	k.checkAdmin()
	k.checkPortsDiffer()
	k.checkTimings()
	k.checkLimits()
	return k.problems
}

// problem adds one about key, unless one of the keys it depends on has no value.
func (k *checker) problem(key, fix, format string, args ...any) {
	if !k.invalid[key] {
		k.problems = append(k.problems, Problem{Where: k.c.Origin(key), Key: key, Text: fmt.Sprintf(format, args...), Fix: fix})
	}
}

func (k *checker) checkNode() {
	if !validName(k.c.Name) {
		k.problem("name", "use 1 to 64 letters, digits, dots, dashes and underscores", "%q is not a name", k.c.Name)
	}
	if k.c.Data == "" {
		k.problem("data", "name a directory", "is empty")
	}
}

// validName reports whether s can be a label everywhere one is needed: status, metrics, URLs, file names.
func validName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, r := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", r) {
			return false
		}
	}
	return true
}

func (k *checker) checkListeners() {
	if len(k.c.MQTT) == 0 {
		k.problem("mqtt", "name an address, for example 127.0.0.1:1883", "there is no listener for clients")
	}
	k.checkListener("mqtt", k.c.MQTT)
	if a := k.c.AdvertiseMQTT; a != "" {
		k.checkReachable("advertise-mqtt", a)
	}
}

func (k *checker) checkListener(key string, list []string) {
	for _, addr := range list {
		if !k.checkAddr(key, addr, true) {
			continue
		}
		if !Loopback(addr) && !k.c.AllowAnonymous && !k.invalid["allow-anonymous"] {
			k.problem(key, "listen on 127.0.0.1, or say allow-anonymous if everybody who reaches it may come in",
				"%s is not on loopback, and without users nobody could log in there", addr)
		}
	}
}

func (k *checker) checkCluster() {
	c := k.c
	if c.Cluster == "" {
		const fix = "set cluster, for example 127.0.0.1:7946"
		if len(c.Join) > 0 {
			k.problem("join", fix, "is set, but the node has no cluster port")
		}
		if c.Expect > 1 {
			k.problem("expect", fix, "%d nodes cannot meet: the node has no cluster port", c.Expect)
		}
		if c.Advertise != "" {
			k.problem("advertise", fix, "is set, but the node has no cluster port")
		}
		return
	}
	if k.checkAddr("cluster", c.Cluster, true) {
		if !Loopback(c.Cluster) && !c.InsecureCluster && !k.invalid["insecure-cluster"] {
			k.problem("cluster", "use a loopback address, or say insecure-cluster if only the nodes can reach that network",
				"%s is not on loopback, and the cluster port is neither encrypted nor authenticated", c.Cluster)
		}
		if Unspecified(c.Cluster) && c.Advertise == "" {
			k.problem("cluster", "set advertise to the address at which the other nodes reach this one",
				"other nodes cannot reach %s", c.Cluster)
		}
	}
	if c.Advertise != "" {
		k.checkReachable("advertise", c.Advertise)
	}
	for _, addr := range c.Join {
		k.checkReachable("join", addr)
	}
}

func (k *checker) checkAdmin() {
	if k.c.AdminEnabled() {
		k.checkAddr("admin", k.c.Admin, true)
	} else if k.c.AdminPprof {
		k.problem("admin-pprof", "set admin", "there is no admin listener")
	}
	if f := k.c.LogFormat; f != "text" && f != "json" {
		k.problem("log-format", "write text or json", "%q is not a log format", f)
	}
}

// checkPortsDiffer finds two listeners on one port before the operating system does, which cannot say who the other is.
func (k *checker) checkPortsDiffer() {
	type use struct{ key, addr string }
	var uses []use
	for _, a := range k.c.MQTT {
		uses = append(uses, use{"mqtt", a})
	}
	if k.c.Cluster != "" {
		uses = append(uses, use{"cluster", k.c.Cluster})
	}
	if k.c.AdminEnabled() {
		uses = append(uses, use{"admin", k.c.Admin})
	}
	for i, u := range uses {
		for _, earlier := range uses[:i] {
			if !k.invalid[earlier.key] && overlap(u.addr, earlier.addr) {
				k.problem(u.key, "give it another port", "%s is taken by %s (%s)", u.addr, earlier.key, earlier.addr)
				break
			}
		}
	}
}

// overlap reports whether two listeners cannot both be opened.
func overlap(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	return hostA == hostB || Unspecified(a) || Unspecified(b)
}

func (k *checker) checkTimings() {
	c := k.c
	if c.Timings != "default" && c.Timings != "lan" {
		k.problem("timings", "write default or lan", "%q is not a preset", c.Timings)
		return
	}
	k.ordered("leader-lease", c.LeaderLease, "heartbeat-timeout", c.HeartbeatTimeout, true)
	k.ordered("heartbeat-timeout", c.HeartbeatTimeout, "election-timeout", c.ElectionTimeout, true)
	k.ordered("leader-wait", c.LeaderWait, "client-close", c.ClientClose, false)
	k.ordered("client-close", c.ClientClose, "node-down", c.NodeDown, false)
	// An ordinary election must pass without clients being sent away.
	if sum := c.HeartbeatTimeout + c.ElectionTimeout; sum >= c.ClientClose &&
		!k.invalid["heartbeat-timeout"] && !k.invalid["election-timeout"] {
		k.problem("client-close", "raise client-close, or lower the other two",
			"%s is not longer than heartbeat-timeout and election-timeout together (%s)", short(c.ClientClose), short(sum))
	}
}

// ordered checks that a < b, or a <= b. The problem is told where the operator set one of the two.
func (k *checker) ordered(a string, av time.Duration, b string, bv time.Duration, orEqual bool) {
	if av < bv || orEqual && av == bv || k.invalid[a] || k.invalid[b] {
		return
	}
	less, more := "less than", "more than"
	if orEqual {
		less, more = "at most", "at least"
	}
	const fix = "change one of the two"
	if k.c.Origin(a) == "default" && k.c.Origin(b) != "default" {
		k.problem(b, fix, "%s must be %s %s (%s)", short(bv), more, a, short(av))
		return
	}
	k.problem(a, fix, "%s must be %s %s (%s)", short(av), less, b, short(bv))
}

func (k *checker) checkLimits() {
	c := k.c
	if c.MaxQueuedBytes > c.MaxStoredBytes && !k.invalid["max-stored-bytes"] {
		k.problem("max-queued-bytes", "lower it, or raise max-stored-bytes",
			"one queue (%v) could exceed all stored messages together (%v)", c.MaxQueuedBytes, c.MaxStoredBytes)
	}
	if c.MaxOutgoing < c.MaxPacketSize && !k.invalid["max-packet-size"] {
		k.problem("max-outgoing", "raise it, or lower max-packet-size",
			"%v is less than one packet (%v)", c.MaxOutgoing, c.MaxPacketSize)
	}
}

// checkAddr checks host:port. An empty host means all addresses, port 0 any free port.
func (k *checker) checkAddr(key, addr string, listen bool) bool {
	const fix = "write host:port, for example 127.0.0.1:1883"
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		text := err.Error()
		if addrError := new(net.AddrError); errors.As(err, &addrError) {
			text = addrError.Err
		}
		k.problem(key, fix, "%q is not an address: %s", addr, text)
		return false
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 0 || n > 65535 || n == 0 && !listen {
		k.problem(key, "ports are numbers from 1 to 65535", "%q is not an address: bad port %q", addr, port)
		return false
	}
	if strings.ContainsAny(host, " /@,") {
		k.problem(key, fix, "%q is not an address: bad host %q", addr, host)
		return false
	}
	return true
}

// checkReachable checks an address that others are to dial.
func (k *checker) checkReachable(key, addr string) {
	if k.checkAddr(key, addr, false) && Unspecified(addr) {
		k.problem(key, "name the host", "%q cannot be dialled: it has no host", addr)
	}
}

// Loopback reports whether only this machine can reach a listener on addr (host:port).
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Unspecified reports whether a listener on addr (host:port) is on all addresses of the machine.
func Unspecified(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}
