package config

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with the configuration.
type Problem struct {
	// Where is its place: "n1.toml:3", "QUORATE_MQTT", "--mqtt", "default".
	Where string
	// Key is the setting, "" when the problem is of none.
	Key string
	// Text says what is wrong.
	Text string
	// Fix says what to do instead.
	Fix string
}

// String is the problem on one line: place, what is wrong, way out.
func (p Problem) String() string {
	s := p.Where + ": "
	named := strings.HasPrefix(p.Where, "--") || strings.HasPrefix(p.Where, envPrefix)
	if p.Key != "" && !named {
		s += p.Key + ": "
	}
	s += p.Text
	if p.Fix != "" {
		s += "; " + p.Fix
	}
	return s
}

// Problems are all problems of one configuration, in the order file, environment, flags, combinations. It is an error.
type Problems []Problem

// Error lists all problems, one a line.
func (ps Problems) Error() string {
	var b strings.Builder
	if len(ps) == 1 {
		b.WriteString("1 problem in the configuration")
	} else {
		fmt.Fprintf(&b, "%d problems in the configuration", len(ps))
	}
	for _, p := range ps {
		b.WriteString("\n  ")
		b.WriteString(p.String())
	}
	return b.String()
}

// err is nil when there are none: a nil Problems in an error is not a nil error.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// didYouMean finds the candidate that a misspelt word most likely stands for.
func didYouMean(word string, candidates []string) (string, bool) {
	best, bestDistance := "", 3 // two slips at most
	if len(word) <= 3 {
		bestDistance = 2
	}
	for _, c := range candidates {
		if d := distance(word, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best, best != ""
}

// distance is the number of inserted, deleted, changed and swapped letters between a and b (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
