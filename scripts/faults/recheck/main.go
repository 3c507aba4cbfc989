// Command recheck runs the checkers of package check again over histories
// that were saved by a failing run:
//
//	go run ./scripts/faults/recheck [-skip NAME,...] FILE...
//
// It prints the report of each and exits 1 unless all are valid.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"quorate/scripts/faults/check"
)

func main() {
	skip := flag.String("skip", "", "checkers to leave out, separated by commas")
	flag.Parse()
	opt := check.Default()
	opt.Skip = map[string]bool{}
	for name := range strings.SplitSeq(*skip, ",") {
		opt.Skip[name] = true
	}
	code := 0
	if flag.NArg() == 0 {
		flag.Usage()
		code = 2
	}
	for _, name := range flag.Args() {
		report, err := recheck(name, opt)
		if err != nil {
			fmt.Fprintln(os.Stderr, "recheck:", err)
			code = 2
			continue
		}
		fmt.Printf("%s\n%v\n", name, report)
		if report.Verdict() != check.Valid {
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

func recheck(name string, opt check.Options) (check.Report, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	events, err := check.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return check.All(events, opt), nil
}
