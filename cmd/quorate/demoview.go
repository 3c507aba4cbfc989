package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// view shows a demo: on a terminal one picture that stays in place, elsewhere a line for every change.
type view struct {
	w     io.Writer
	plain bool
	lines int    // of the picture now on the terminal
	last  string // what was shown last
	began time.Time
}

func newView(w io.Writer, plain bool) *view {
	return &view{w: w, plain: plain || !isTerminal(w), began: time.Now()}
}

// isTerminal reports whether a person looks at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// banner says what there is and what to try.
func (v *view) banner(d *demonstration) {
	var mqtt []string
	for _, n := range d.nodes {
		mqtt = append(mqtt, n.mqtt)
	}
	first, last := d.nodes[0], d.nodes[len(d.nodes)-1]
	_, firstPort, _ := strings.Cut(first.mqtt, ":")
	_, lastPort, _ := strings.Cut(last.mqtt, ":")
	all := strings.Join(mqtt, ",")
	program := os.Args[0] // as it was typed, so that the lines below work where they are pasted
	fmt.Fprintf(v.w, `A cluster of %d on this machine; its data is in %s until Ctrl-C ends it.

  Connect to  %s  (MQTT 3.1, 3.1.1 and 5.0; no password)

  Try in other terminals:
    %s sub -h %s -i watcher -c -q 1 -v -t 'demo/#'
    %s pub -h %s -q 1 -t demo/hello -m hello
    mosquitto_sub -p %s -q 1 -v -t 'demo/#'
    mosquitto_pub -p %s -q 1 -t demo/hello -m hello
    %s status --admin http://%s
  Then kill a node here with "kill n1" and Enter, or anywhere with kill -9 and its process id, and publish on.

`, len(d.nodes), d.dir, strings.Join(mqtt, "  "), program, all, program, all, lastPort, firstPort, program, last.admin)
}

// note prints one line that stays.
func (v *view) note(text string) {
	v.erase()
	fmt.Fprintf(v.w, "%6.1fs  %s\n", time.Since(v.began).Seconds(), text)
	v.last = ""
}

// show shows the nodes, if anything changed.
func (v *view) show(nodes []*demoNode, leader string) {
	var b strings.Builder
	if v.plain {
		// Counters change all the time; in a log only what happens to nodes matters.
		for _, n := range nodes {
			fmt.Fprintf(&b, "  %s=%s(pid %d)", n.name, n.shownState(), n.pid())
		}
		if s := "leader=" + orNone(leader) + b.String(); s != v.last {
			v.note(s)
			v.last = s
		}
		return
	}
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "  NODE\tPROCESS\tMQTT\tSTATE\tREADY\tCLIENTS\tSESSIONS\tAPPLIED")
	for _, n := range nodes {
		m := n.member
		fmt.Fprintf(t, "  %s\t%d\t%s\t%s\t%s\t%d\t%d\t%d\n", n.name, n.pid(), n.mqtt, n.shownState(), yesNo(n.running() && m.Ready),
			m.Connections, m.Sessions, m.Applied)
	}
	_ = t.Flush()
	if b.String() == v.last {
		return
	}
	v.erase()
	v.last = b.String()
	v.lines = strings.Count(v.last, "\n")
	fmt.Fprint(v.w, v.last)
}

// typed takes note of a line that the terminal has shown below the picture.
func (v *view) typed() {
	if v.lines > 0 {
		v.lines++
	}
}

// erase takes the picture off the terminal.
func (v *view) erase() {
	if v.lines > 0 {
		fmt.Fprintf(v.w, "\x1b[%dA\x1b[J", v.lines)
		v.lines = 0
	}
}

// shownState is the state of a node for people: the process knows first when it is gone.
func (n *demoNode) shownState() string {
	switch {
	case !n.running():
		return "down"
	case n.member.State == "":
		return "starting"
	}
	return n.member.State
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
