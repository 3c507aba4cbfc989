package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// checkDemoPorts finds out before anything starts whether all ports of a demo are free.
func checkDemoPorts(opt demoOptions) error {
	var errs []error
	for _, p := range demoPorts(opt.base, opt.nodes) {
		if p.free() {
			continue
		}
		by := "another process"
		if owner := portOwner(p.number); owner != "" {
			by = owner
		}
		errs = append(errs, fmt.Errorf("port %d (%s) is in use by %s", p.number, p.use, by))
	}
	if len(errs) == 0 {
		return nil
	}
	hint := "stop it, or choose other ports with --base-port"
	for base := opt.base + 10000; base < demoBaseMax; base += 1000 {
		if allFree(demoPorts(base, opt.nodes)) {
			hint = fmt.Sprintf("stop it, or choose other ports: quorate demo --base-port %d", base)
			break
		}
	}
	return errors.Join(append(errs, errors.New(hint))...)
}

// port is one that a demo needs on 127.0.0.1.
type port struct {
	number int
	use    string
	packet bool // UDP as well
}

func demoPorts(base, nodes int) []port {
	var all []port
	for i := range nodes {
		name := "n" + strconv.Itoa(i+1)
		all = append(all, port{base + i, "MQTT of " + name, false}, port{base + demoAdminPorts + i, "admin of " + name, false})
		if nodes > 1 {
			all = append(all, port{base + demoMeshPorts + i, "cluster of " + name, true})
		}
	}
	return all
}

func allFree(ports []port) bool {
	for _, p := range ports {
		if !p.free() {
			return false
		}
	}
	return true
}

func (p port) free() bool {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	_ = l.Close()
	if !p.packet {
		return true
	}
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	_ = u.Close()
	return true
}

// portOwner names the process that listens on a port: "mosquitto (process 417)"; "" when that cannot be found out.
func portOwner(number int) string {
	inodes := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		addListeners(inodes, filepath.Join("/proc/net", table), number)
	}
	if len(inodes) == 0 {
		return ""
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		link, err := os.Readlink(fd)
		if err != nil {
			continue // not ours to see, or just closed
		}
		inode, isSocket := strings.CutPrefix(link, "socket:[")
		if isSocket && inodes[strings.TrimSuffix(inode, "]")] {
			dir := filepath.Dir(filepath.Dir(fd))
			name, _ := os.ReadFile(filepath.Join(dir, "comm"))
			return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(dir))
		}
	}
	return ""
}

// addListeners collects the inodes of the sockets that a table of /proc/net shows as bound to the port and not connected.
func addListeners(inodes map[string]bool, table string, number int) {
	f, err := os.Open(table)
	if err != nil {
		return
	}
	defer f.Close()
	const local, state, inode = 1, 3, 9
	suffix := fmt.Sprintf(":%04X", number)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > inode && strings.HasSuffix(fields[local], suffix) && (fields[state] == "0A" || fields[state] == "07") {
			inodes[fields[inode]] = true
		}
	}
}
