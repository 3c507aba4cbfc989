package main

import (
	"fmt"
	"strings"

	"quorate/node/config"
)

func mainHelp() string {
	var b strings.Builder
	b.WriteString("Quorate is a clustered MQTT broker.\n\nUsage: quorate COMMAND [FLAGS]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-14s %s\n", c.name, c.summary)
	}
	b.WriteString("\n\"quorate COMMAND --help\" shows the flags of a command. To try it: quorate demo\n")
	return b.String()
}

func serveHelp() string {
	return `Usage: quorate serve [FLAGS]

Runs one node until SIGTERM or SIGINT. Without flags it is a broker of its own on 127.0.0.1:1883. For a cluster of three:

  quorate serve --name n1 --cluster 10.0.0.1:7946 --join 10.0.0.2:7946,10.0.0.3:7946 --expect 3 ...

Every flag is also a key of the TOML file (node-down = "15s") and an environment variable (QUORATE_NODE_DOWN=15s). Flags
win over the environment, and that over the file. Sizes may end in KiB, MiB or GiB; times in ms, s, m or h.

  --config FILE                 read settings from a TOML file
` + keysHelp()
}

func checkConfigHelp() string {
	return `Usage: quorate check-config [FLAGS OF SERVE]

Checks the settings that "quorate serve" would run with, from the same flags, environment and file, and prints them with
where each comes from. All problems are shown at once. Exit code 0 when all is well, 2 otherwise.
`
}

// keysHelp lists all settings with their defaults.
func keysHelp() string {
	var b strings.Builder
	defaults := config.Default("")
	group := ""
	for _, k := range config.Keys() {
		if k.Group != group {
			group = k.Group
			fmt.Fprintf(&b, "\n%s\n", group)
		}
		flag := "--" + k.Name
		if k.Arg != "" {
			flag += " " + k.Arg
		}
		usage := k.Usage
		// The name's default is the host's.
		if d := k.Text(defaults); d != "" && k.Name != "name" {
			usage += " (" + d + ")"
		}
		fmt.Fprintf(&b, "  %-29s %s\n", flag, usage)
	}
	return b.String()
}

func statusHelp() string {
	return `Usage: quorate status [--admin URL] [--json]

Shows the members of a running cluster as one of its nodes sees them.

  --admin URL    admin address of any node (QUORATE_ADMIN, or http://127.0.0.1:18083)
  --json         the same as JSON, for programs
  --timeout TIME how long to wait for the node (5s)

Exit code 0 when the cluster has a leader, 1 when it has none or the node does not answer.
`
}

func demoHelp() string {
	return `Usage: quorate demo [--nodes N] [--base-port PORT]

Runs a whole cluster on this machine, one process a node, with its data in a temporary directory, and shows its state
until Ctrl-C. Then nothing of it is left. Node i listens for clients on PORT+i-1; its admin address is 127.0.0.1 with port
PORT+16200+i-1, its cluster port PORT+6063+i-1: with the default 1883..1885, 18083..18085 and 7946..7948.

  --nodes N         number of nodes, 1 to 5 (3)
  --base-port PORT  first port for clients (1883)
  --restart         start a node again three seconds after it died
  --plain           one line for every change, no live picture (the default when the output is no terminal)

Kill a node with "kill -9 PID" of its line, and watch: its clients go elsewhere, and no acknowledged message is lost.
`
}

func versionHelp() string {
	return "Usage: quorate version\n\nShows the version, the commit it was built from, and the Go release.\n"
}
