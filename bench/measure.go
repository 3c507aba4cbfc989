package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// latency is a summary in microseconds.
type latency struct{ count, p50, p99, max int64 }

// newHistogram counts microseconds up to a minute with three digits. It is
// for one goroutine.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 60_000_000, 3) }

func record(h *hdrhistogram.Histogram, since int64) {
	_ = h.RecordValue(min(max((now()-since)/1000, 1), 60_000_000))
}

func summarize(all []*hdrhistogram.Histogram) latency {
	sum := newHistogram()
	for _, h := range all {
		sum.Merge(h)
	}
	return latency{sum.TotalCount(), sum.ValueAtQuantile(50), sum.ValueAtQuantile(99), sum.Max()}
}

// ticksPerSecond is USER_HZ of Linux, the same on every architecture Go runs on.
const ticksPerSecond = 100

// cpu is the user and system time that processes have used.
func cpu(pids []int) (time.Duration, error) {
	var ticks int64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		// The name, in parentheses, may hold anything.
		f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, field := range []int{11, 12} { // utime and stime: fields 14 and 15 of the line
			n, err := strconv.ParseInt(f[field], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// resident is the memory of processes in KiB.
func resident(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				if err != nil {
					return 0, fmt.Errorf("read /proc/%d/status: %w", pid, err)
				}
				sum += n
			}
		}
	}
	return sum, nil
}
