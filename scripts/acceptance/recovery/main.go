// Command recovery measures how quickly a cluster of three real nodes serves again after faults, and prints every round,
// the median and the 95th percentile.
//
//	go run ./scripts/acceptance/recovery -rounds 20 [-fault killed,paused,all] [-- FLAGS OF EVERY NODE]
//
// It starts its own nodes on loopback and leaves nothing behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"quorate/scripts/acceptance/outage"
	"quorate/scripts/acceptance/processes"
)

var names = map[string]outage.Fault{"killed": outage.LeaderKilled, "paused": outage.LeaderPaused, "all": outage.AllKilled}

func main() {
	rounds := flag.Int("rounds", 20, "rounds of each fault")
	faults := flag.String("fault", "killed,paused,all", "faults, separated by commas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, strings.Split(*faults, ","), flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "recovery:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, faults, flags []string) error {
	dir, err := os.MkdirTemp("", "quorate-recovery.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary, err := processes.Build(ctx, dir)
	if err != nil {
		return err
	}
	c := processes.New(binary, dir, flags...)
	defer c.Close()
	founding, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.Found(founding, 3); err != nil {
		return fmt.Errorf("%w\n%s", err, c.Tails(15))
	}
	for _, name := range faults {
		fault, ok := names[name]
		if !ok {
			return fmt.Errorf("no fault is named %q: killed, paused, all", name)
		}
		if err := measure(ctx, c, fault, rounds); err != nil {
			return fmt.Errorf("%s: %w\n%s", fault, err, c.Tails(15))
		}
	}
	return nil
}

// measure plays the rounds of one fault and prints them.
func measure(ctx context.Context, c *processes.Cluster, fault outage.Fault, rounds int) error {
	fmt.Println(fault)
	var acked, ready []time.Duration
	for i := range rounds {
		r, err := outage.Measure(ctx, c, fault)
		if err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
		acked = append(acked, r.Acked)
		fmt.Printf("  round %2d  acknowledged after %6d ms", i+1, r.Acked.Milliseconds())
		if fault == outage.AllKilled {
			ready = append(ready, r.Ready)
			fmt.Printf(", all ready after %6d ms", r.Ready.Milliseconds())
		}
		fmt.Println()
	}
	report("acknowledged", acked)
	report("ready", ready)
	return nil
}

func report(what string, times []time.Duration) {
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	fmt.Printf("  %s: median %d ms, p95 %d ms, max %d ms\n", what, quantile(times, 50), quantile(times, 95), times[len(times)-1].Milliseconds())
}

// quantile is the smallest time that percent of all are not above, in milliseconds.
func quantile(sorted []time.Duration, percent int) int64 {
	return sorted[max(0, (len(sorted)*percent+99)/100-1)].Milliseconds()
}
