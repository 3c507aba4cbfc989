package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Verdict is what a checker says.
type Verdict int

// The verdicts, from good to bad. Only Valid is a pass.
const (
	Valid Verdict = iota
	Undecided
	Invalid
)

// String returns "valid", "unknown" or "INVALID".
func (v Verdict) String() string {
	switch v {
	case Valid:
		return "valid"
	case Undecided:
		return "unknown"
	default:
		return "INVALID"
	}
}

// problemsMax bounds the problems a Result keeps; all are counted.
const problemsMax = 12

// Result is what one checker found.
type Result struct {
	Name     string // of the checker
	Promise  string // "P1", or several
	Verdict  Verdict
	Counts   map[string]int // what was looked at, and what was found
	Problems []string       // the first problems, one sentence each
	Vacuous  string         // why the verdict is Undecided, "" otherwise
}

func newResult(name, promise string) *Result {
	return &Result{Name: name, Promise: promise, Counts: map[string]int{}}
}

// count adds n to a counter; counters that stay 0 are shown too.
func (r *Result) count(what string, n int) { r.Counts[what] += n }

// problem makes the result Invalid, counts the kind and keeps the sentence.
func (r *Result) problem(kind, format string, args ...any) {
	r.Verdict = Invalid
	r.Counts[kind]++
	if len(r.Problems) < problemsMax {
		r.Problems = append(r.Problems, kind+": "+fmt.Sprintf(format, args...))
	}
}

// need makes a result that is valid so far Undecided when fewer than n of
// what were counted: a run that tested nothing proves nothing.
func (r *Result) need(what string, n int) {
	if r.Verdict == Valid && r.Counts[what] < n {
		r.Verdict = Undecided
		r.Vacuous = fmt.Sprintf("vacuous: %d %s, at least %d needed", r.Counts[what], what, n)
	}
}

// String returns one line, and one more for each problem.
func (r *Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %-9s %-16s", r.Verdict, r.Promise, r.Name)
	for _, k := range slices.Sorted(maps.Keys(r.Counts)) {
		fmt.Fprintf(&b, " %s=%d", k, r.Counts[k])
	}
	if r.Vacuous != "" {
		fmt.Fprintf(&b, " (%s)", r.Vacuous)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "\n    %s", p)
	}
	return b.String()
}

// Report is what all checkers found in one history.
type Report []*Result

// Verdict is the worst of all; Undecided for a report without results.
func (r Report) Verdict() Verdict {
	if len(r) == 0 {
		return Undecided
	}
	worst := Valid
	for _, res := range r {
		worst = max(worst, res.Verdict)
	}
	return worst
}

// Find returns the result of the named checker, nil if there is none.
func (r Report) Find(name string) *Result {
	i := slices.IndexFunc(r, func(res *Result) bool { return res.Name == name })
	if i < 0 {
		return nil
	}
	return r[i]
}

// String returns all results, one after the other.
func (r Report) String() string {
	lines := make([]string, 0, len(r)+1)
	for _, res := range r {
		lines = append(lines, res.String())
	}
	return strings.Join(append(lines, "verdict: "+r.Verdict().String()), "\n")
}
