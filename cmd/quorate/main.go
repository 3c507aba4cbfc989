// Command quorate is the whole product in one binary: the broker (serve), three of them to try it (demo), and the tools
// around it (status, pub, sub, check-config).
//
// Exit codes: 0 success, 1 an error while running, 2 a wrong command line or configuration. pub and sub follow
// mosquitto_pub and mosquitto_sub: the CONNACK code when the broker refuses the client, 27 when -W runs out.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
)

// Exit codes of all commands but pub and sub.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// console is everything a command may touch of the process it runs in, so that tests run commands without one.
type console struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
}

func main() {
	os.Exit(run(context.Background(), console{in: os.Stdin, out: os.Stdout, err: os.Stderr, environ: os.Environ()}, os.Args[1:]))
}

// command is one of the words that may follow "quorate".
type command struct {
	name, summary string
	// run does it; the result is the exit code.
	run func(ctx context.Context, con console, args []string) int
	// help is the text of --help.
	help func() string
}

func commands() []command {
	return []command{
		{"serve", "run one node", serve, serveHelp},
		{"demo", "run a cluster of three nodes in this terminal", demo, demoHelp},
		{"status", "show the members of a running cluster", status, statusHelp},
		{"pub", "publish messages (as mosquitto_pub)", pub, pubHelp},
		{"sub", "subscribe and print messages (as mosquitto_sub)", sub, subHelp},
		{"check-config", "check the settings of serve without starting", checkConfig, checkConfigHelp},
		{"version", "show the version", version, versionHelp},
	}
}

// run finds the command and runs it.
func run(ctx context.Context, con console, args []string) int {
	if len(args) == 0 {
		fmt.Fprint(con.err, mainHelp())
		return exitUsage
	}
	name, rest := args[0], args[1:]
	switch name {
	case "help":
		if len(rest) == 0 {
			fmt.Fprint(con.out, mainHelp())
			return exitOK
		}
		name, rest = rest[0], []string{"--help"}
	case "-h", "-help", "--help":
		fmt.Fprint(con.out, mainHelp())
		return exitOK
	case "-v", "-V", "-version", "--version":
		name = "version"
	}
	all := commands()
	i := slices.IndexFunc(all, func(c command) bool { return c.name == name })
	if i < 0 {
		fmt.Fprintf(con.err, "quorate: unknown command %q\n\n%s", name, mainHelp())
		return exitUsage
	}
	if wantsHelp(rest) {
		fmt.Fprint(con.out, all[i].help())
		return exitOK
	}
	return all[i].run(ctx, con, rest)
}

// wantsHelp reports whether the arguments ask for help. -h is the host of pub and sub, and so help only when it is alone.
func wantsHelp(args []string) bool {
	return slices.Contains(args, "--help") || len(args) == 1 && (args[0] == "-h" || args[0] == "-help")
}
