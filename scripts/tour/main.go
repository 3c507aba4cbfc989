// Command tour is the Go half of scripts/tour.sh: what the mosquitto clients
// cannot do, with the client library eclipse/paho.golang.
//
//	tour ports N                     prints N free loopback ports (TCP and UDP)
//	tour ready SECONDS URL...        waits until every URL answers 200
//	tour leader                      prints the leader named by "quorate status --json" on standard input
//	tour subscribe [flags]           a persistent session on -nodes, and gone
//	tour publish [flags]             publishes, runs -half at half-way, writes what was acknowledged to -acked
//	tour receive [flags]             comes back, receives, and compares with -acked
//
// It exits 1 when something was lost, doubled or out of order.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
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
		fmt.Fprintln(os.Stderr, "tour:", err)
		os.Exit(1)
	}
}

// settings are the flags of subscribe, publish and receive.
type settings struct {
	nodes  []string
	id     string
	count  int // of messages of each QoS
	topics int // they are spread over, for each QoS
	acked  string
	half   string
	wait   time.Duration
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("say what to do: ports, ready, leader, subscribe, publish or receive")
	}
	verb, args := args[0], args[1:]
	switch verb {
	case "ports":
		return ports(args)
	case "ready":
		return ready(ctx, args)
	case "leader":
		return leader(ctx, args)
	}
	var s settings
	var nodes string
	flags := flag.NewFlagSet(verb, flag.ContinueOnError)
	flags.StringVar(&nodes, "nodes", "127.0.0.1:1883", "MQTT addresses, tried in this order, separated by commas")
	flags.StringVar(&s.id, "id", "tour", "Client Identifier")
	flags.IntVar(&s.count, "count", 10000, "messages of each QoS")
	flags.IntVar(&s.topics, "topics", 25, "topics of each QoS")
	flags.StringVar(&s.acked, "acked", "acked.txt", "file of what was acknowledged")
	flags.StringVar(&s.half, "half", "", "shell command to run when half is acknowledged")
	flags.DurationVar(&s.wait, "wait", 2*time.Minute, "time limit")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s.nodes = strings.Split(nodes, ",")
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	switch verb {
	case "subscribe":
		return subscribe(ctx, s)
	case "publish":
		return publish(ctx, s)
	case "receive":
		return receive(ctx, s)
	}
	return fmt.Errorf("unknown verb %q", verb)
}

// ports prints numbers that were free for TCP and UDP a moment ago.
func ports(args []string) error {
	n, err := strconv.Atoi(strings.Join(args, ""))
	if err != nil {
		return fmt.Errorf("number of ports: %w", err)
	}
	for n > 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close() // all at the end, so that no number comes twice
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			continue
		}
		defer pc.Close()
		fmt.Println(l.Addr().(*net.TCPAddr).Port)
		n--
	}
	return nil
}

// poll calls try every 50 ms until it returns nil.
func poll(ctx context.Context, try func() error) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

func get(ctx context.Context, url string) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	context.AfterFunc(ctx, cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(req)
}

func ready(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("ready needs seconds and at least one URL")
	}
	seconds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	defer cancel()
	for _, url := range args[1:] {
		err := poll(ctx, func() error {
			resp, err := get(ctx, url)
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%s: %s", url, resp.Status)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// leader reads the JSON of "quorate status --json" from standard input.
func leader(_ context.Context, _ []string) error {
	var status struct {
		Leader string `json:"leader"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&status); err != nil {
		return fmt.Errorf("read status: %w", err)
	}
	if status.Leader == "" {
		return errors.New("no leader is known")
	}
	fmt.Println(status.Leader)
	return nil
}
