package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// What people read is reviewed as text: testdata/help holds it, and -update writes it.
func TestHelpOfEveryCommandIsTheReviewedText(t *testing.T) {
	texts := map[string]string{"main": mainHelp()}
	for _, c := range commands() {
		got := invoke(t, "", c.name, "--help")
		if got.code != exitOK || got.err != "" {
			t.Errorf("%s --help: %+v", c.name, got)
		}
		if again := invoke(t, "", "help", c.name); again != got {
			t.Errorf("help %s differs from %s --help", c.name, c.name)
		}
		texts[c.name] = got.out
	}
	for name, text := range texts {
		path := filepath.Join("testdata", "help", name+".txt")
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), text); diff != "" {
			t.Errorf("%s (run with -update after a review):\n%s", path, diff)
		}
		for line := range strings.Lines(text) {
			if len([]rune(strings.TrimRight(line, "\n"))) > 132 {
				t.Errorf("%s: line is too wide for a terminal: %s", name, line)
			}
		}
	}
}

func TestUnknownCommandsAndNoneAtAllAreUsageErrors(t *testing.T) {
	if got := invoke(t, ""); got.code != exitUsage || got.err != mainHelp() || got.out != "" {
		t.Errorf("got %+v", got)
	}
	got := invoke(t, "", "sevre")
	if got.code != exitUsage || !strings.HasPrefix(got.err, "quorate: unknown command \"sevre\"\n") {
		t.Errorf("got %+v", got)
	}
}

func TestVersionNamesTheProgramAndGo(t *testing.T) {
	for _, word := range []string{"version", "--version", "-v"} {
		if got := invoke(t, "", word); got.code != exitOK || !strings.HasPrefix(got.out, "quorate dev") || !strings.Contains(got.out, " go1.") {
			t.Errorf("%s: %+v", word, got)
		}
	}
}

func TestCheckConfigShowsValuesAndTheirOrigin(t *testing.T) {
	got := invoke(t, "", "check-config", "--name", "n1", "--expect", "1")
	if got.code != exitOK || got.err != "" {
		t.Fatalf("got %+v", got)
	}
	for _, want := range []string{
		"name                 n1                               --name\n",
		"mqtt                 127.0.0.1:1883                   default\n",
		"the configuration is good\n",
	} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}
}

func TestCheckConfigShowsAllProblemsAtOnce(t *testing.T) {
	got := invoke(t, "", "check-config", "--mqqt", "x", "--expect", "nine")
	want := outcome{code: exitUsage, err: `quorate: 2 problems in the configuration
  arguments: unknown flag "--mqqt"; did you mean "--mqtt"?
  --expect: "nine" is not a whole number; write a whole number from 0 to 5
`}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
