package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"quorate/node/admin"
	"quorate/node/config"
)

const (
	defaultAdmin   = "http://127.0.0.1:18083"
	statusBytesMax = 4 << 20
	ratePause      = 500 * time.Millisecond // between the two looks that rates are made of
)

// status shows the cluster as one node sees it.
func status(ctx context.Context, con console, args []string) int {
	flags := flag.NewFlagSet("status", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	url := flags.String("admin", "", "")
	asJSON := flags.Bool("json", false, "")
	timeout := flags.Duration("timeout", 5*time.Second, "")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		if err == nil {
			err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
		}
		fmt.Fprintf(con.err, "quorate status: %v\n\n%s", err, statusHelp())
		return exitUsage
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	base := adminURL(*url, con.environ)
	s, raw, err := fetchStatus(ctx, base)
	if err != nil {
		fmt.Fprintf(con.err, "quorate status: %v\n", err)
		return exitFailed
	}
	if *asJSON {
		_, _ = con.out.Write(raw) // a closed pipe is the reader's business
	} else {
		start := time.Now()
		later := s
		select {
		case <-time.After(ratePause):
			if again, _, err := fetchStatus(ctx, base); err == nil {
				later = again
			}
		case <-ctx.Done():
		}
		printStatus(con.out, s, later, time.Since(start))
	}
	if s.Leader == "" {
		return exitFailed
	}
	return exitOK
}

// adminURL is where to ask: the flag, else QUORATE_ADMIN as serve has it, else the default of serve.
func adminURL(flagValue string, environ []string) string {
	addr := flagValue
	for _, e := range environ {
		if v, ok := strings.CutPrefix(e, "QUORATE_ADMIN="); ok && flagValue == "" && v != "off" {
			addr = v
		}
	}
	if addr == "" {
		return defaultAdmin
	}
	if !strings.Contains(addr, "://") {
		if config.Unspecified(addr) {
			if _, port, err := net.SplitHostPort(addr); err == nil {
				addr = net.JoinHostPort("127.0.0.1", port)
			}
		}
		addr = "http://" + addr
	}
	return strings.TrimRight(addr, "/")
}

// fetchStatus asks a node. raw is the answer as it came.
func fetchStatus(ctx context.Context, base string) (s admin.Status, raw []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/status", nil)
	if err != nil {
		return s, nil, fmt.Errorf("admin address: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, nil, fmt.Errorf("no node answers at %s: %w", base, err)
	}
	defer resp.Body.Close()
	raw, err = io.ReadAll(io.LimitReader(resp.Body, statusBytesMax))
	if err != nil {
		return s, nil, fmt.Errorf("read the answer of %s: %w", base, err)
	}
	if resp.StatusCode != http.StatusOK {
		return s, nil, fmt.Errorf("%s answered %s", base, resp.Status)
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, nil, fmt.Errorf("%s is no admin address of quorate: %w", base, err)
	}
	return s, raw, nil
}

// printStatus prints the newer look, with rates since the older one.
func printStatus(w io.Writer, before, s admin.Status, since time.Duration) {
	leader := s.Leader
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(w, "leader: %s   seen by: %s   cluster: %s\n\n", leader, s.Asked, s.Cluster)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tSTATE\tVOTE\tREADY\tAPPLIED\tCLIENTS\tSESSIONS\tIN/S\tOUT/S\tADDRESS")
	earlier := map[string]admin.Member{}
	for _, m := range before.Nodes {
		earlier[m.ID] = m
	}
	var reasons []string
	for _, m := range s.Nodes {
		in := rate(earlier[m.ID].Received, m.Received, since)
		out := rate(earlier[m.ID].Sent, m.Sent, since)
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\n", m.Name, m.State, yesNo(m.Voter), yesNo(m.Ready), m.Applied,
			m.Connections, m.Sessions, in, out, m.Address)
		if m.Reason != "" {
			reasons = append(reasons, m.Name+": "+m.Reason)
		}
	}
	_ = t.Flush()
	if len(reasons) > 0 {
		fmt.Fprintf(w, "\nnot ready\n  %s\n", strings.Join(reasons, "\n  "))
	}
}

// rate is per second; a node that restarted between the looks counts from zero.
func rate(before, after uint64, d time.Duration) string {
	if after < before || d <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", float64(after-before)/d.Seconds())
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
