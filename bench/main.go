// Command bench puts load on MQTT brokers and measures them.
//
//	go run ./bench run [flags]             one scenario against brokers that run
//	go run ./bench compare [flags]         quorate with one and three nodes, and mosquitto, in the same run
//	go run ./bench list                    the scenarios
//
// Open-loop scenarios send at a fixed rate and measure every latency from the
// time at which a message was due, so that a broker that stalls does not slow
// its own measurement down. Closed-loop scenarios keep a window full and
// measure what comes through. Latencies are in microseconds, CPU is user and
// system time of the brokers' processes divided by the messages delivered.
//
// Publishers, subscribers and brokers share this machine: the figures are
// ratios between brokers in one run, not what any of them can do alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	verb := "list"
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	switch verb {
	case "list":
		for _, s := range scenarios {
			fmt.Printf("%-14s %s\n", s.name, s.what)
		}
		return nil
	case "run":
		return runOne(ctx, args)
	case "compare":
		return compare(ctx, args)
	}
	return fmt.Errorf("unknown verb %q: run, compare or list", verb)
}

// runOne runs one scenario, with its numbers changed by flags.
func runOne(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	name := flags.String("scenario", "qos1", "name of the scenario")
	nodes := flags.String("nodes", "127.0.0.1:1883", "MQTT addresses, separated by commas; clients are spread over them")
	pids := flags.String("pids", "", "process ids of the brokers, for CPU and memory, separated by commas")
	length := flags.Duration("time", 5*time.Second, "length of the measurement")
	var change shape
	flags.IntVar(&change.publishers, "publishers", -1, "publishing clients")
	flags.IntVar(&change.subscribers, "subscribers", -1, "subscribing clients of each topic")
	flags.IntVar(&change.rate, "rate", -1, "messages per second of all publishers together; 0: closed loop")
	flags.IntVar(&change.window, "window", -1, "unacknowledged messages of each publisher")
	flags.IntVar(&change.qos, "qos", -1, "QoS of messages and subscriptions")
	flags.IntVar(&change.clients, "clients", -1, "connections of the connect, idle and offline scenarios")
	flags.IntVar(&change.bytes, "bytes", -1, "bytes of a payload, at least 8")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s, ok := findScenario(*name)
	if !ok {
		return fmt.Errorf("no scenario %q: see go run ./bench list", *name)
	}
	s.shape = s.shape.changed(change)
	t := target{name: "brokers", nodes: strings.Split(*nodes, ",")}
	var err error
	if t.pids, err = parsePIDs(*pids); err != nil {
		return err
	}
	r, err := s.run(ctx, t, s.shape, *length)
	if err != nil {
		return err
	}
	fmt.Println(r)
	return nil
}

func parsePIDs(list string) ([]int, error) {
	var pids []int
	var errs []error
	for f := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' }) {
		pid, err := strconv.Atoi(f)
		errs = append(errs, err)
		pids = append(pids, pid)
	}
	return pids, errors.Join(errs...)
}
