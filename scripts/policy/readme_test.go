package policy

import (
	"flag"
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"quorate/node/config"
)

var update = flag.Bool("update", false, "rewrite the generated parts of README.md")

func readme(t *testing.T) (name, text string) {
	t.Helper()
	name = filepath.Join("..", "..", "README.md")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return name, string(b)
}

// settingsTable is every setting with its default and its meaning.
func settingsTable() string {
	var b strings.Builder
	b.WriteString("| setting | default | meaning |\n|---|---|---|\n")
	defaults := config.Default("")
	for _, k := range config.Keys() {
		value := k.Text(defaults)
		switch {
		case k.Name == "name":
			value = "the host's name"
		case value != "":
			value = "`" + value + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.Name, value, k.Usage)
	}
	return b.String()
}

// TestReadmeShowsEverySettingAsItIs compares the table of settings with the
// settings; -update rewrites it.
func TestReadmeShowsEverySettingAsItIs(t *testing.T) {
	name, text := readme(t)
	begin := strings.Index(text, "<!-- settings:")
	end := strings.Index(text, "<!-- /settings -->")
	if begin < 0 || end < begin {
		t.Fatal("README.md has no part between <!-- settings: --> and <!-- /settings -->")
	}
	begin += strings.Index(text[begin:], "-->") + len("-->\n")
	want := "\n" + settingsTable() + "\n"
	if text[begin:end] == want {
		return
	}
	if !*update {
		t.Fatal("the settings in README.md are not those of node/config: go test ./scripts/policy -run Readme -update")
	}
	if err := os.WriteFile(name, []byte(text[:begin]+want+text[end:]), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestReadmeNamesOnlyTestsAndFilesThatExist keeps its claims checkable.
func TestReadmeNamesOnlyTestsAndFilesThatExist(t *testing.T) {
	_, text := readme(t)
	known := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test {
				known[f.Name.Name] = true
			}
		}
	}
	for _, name := range regexp.MustCompile(`\b(Test|Fuzz|Benchmark)[A-Z]\w+`).FindAllString(text, -1) {
		if !known[name] {
			t.Errorf("README.md names %s, which does not exist", name)
		}
	}
	for _, path := range regexp.MustCompile("`(?:go run |go test )?\\.?/?((?:scripts|bench|cmd|node|cluster|fsm|protocol|\\.ci)/[\\w./]*)").FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join("..", "..", strings.TrimSuffix(path[1], "/..."))); err != nil {
			t.Errorf("README.md names %s: %v", path[1], err)
		}
	}
}
