// Package policy holds no code. Its test keeps the directions of imports and
// the rules of the house that a compiler does not know. To relax a rule is a
// change of the design: say why beside it.
package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "quorate"

// layers go from the bottom to the top: a package imports packages of lower
// layers only, and its neighbours where neighbours is set.
var layers = []struct {
	prefix     string
	neighbours bool
}{
	{prefix: "protocol/wire"},
	{prefix: "protocol"},
	{prefix: "fsm/internal"},
	{prefix: "fsm/mutant"},
	{prefix: "fsm/command"},
	{prefix: "fsm"},
	{prefix: "cluster", neighbours: true},
	{prefix: "node", neighbours: true},
	{prefix: "cmd", neighbours: true},
	{prefix: "bench", neighbours: true},
	{prefix: "scripts", neighbours: true},
}

// pure are packages whose output depends on their input alone.
var pure = []string{"protocol", "fsm"}

// impure are the imports that pure packages must do without: what they offer
// is handed in as data, or through an interface of the package itself.
var impure = []string{"net", "os", "log", "math/rand", "crypto/rand", "syscall"}

// clocks are the functions of package time that read or wait for the clock.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// blind lists packages that must not see another one although it lies below.
var blind = map[string][]string{
	"node/broker":  {"cluster"}, // it has small interfaces of its own
	"node/session": {"cluster", "net"},
	"node/client":  {"cluster"},
}

// homes says which packages may import a third party's module: the others
// reach it through them. Tests may import what they like.
var homes = map[string][]string{
	"github.com/hashicorp/raft":       {"cluster", "node", "scripts"},
	"github.com/hashicorp/memberlist": {"cluster"},
	"go.etcd.io/bbolt":                {"cluster/consensus"},
	"github.com/coder/websocket":      {"node/listener"},
	"github.com/BurntSushi/toml":      {"node/config"},
	"github.com/prometheus":           {"node", "cmd"},
	"github.com/eclipse/paho.golang":  {"scripts", "bench"},
	"github.com/anishathalye":         {"scripts"},
	"github.com/HdrHistogram":         {"bench", "scripts"},
}

// source is one parsed file of the module.
type source struct {
	dir, name string // slash-separated, relative to the module
	test      bool
	file      *ast.File
	set       *token.FileSet
	lines     int
}

func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	set := token.NewFileSet()
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		dir := "."
		if i := strings.LastIndexByte(rel, '/'); i >= 0 {
			dir = rel[:i]
		}
		all = append(all, source{dir, rel, strings.HasSuffix(rel, "_test.go"), f, set, strings.Count(string(text), "\n")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no Go files found")
	}
	return all
}

// within reports whether path is prefix or lies below it.
func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// layerOf returns the layer of a package of the module, or -1.
func layerOf(dir string) int {
	best := -1
	for i, l := range layers {
		if within(dir, l.prefix) && (best < 0 || len(l.prefix) > len(layers[best].prefix)) {
			best = i
		}
	}
	return best
}

func (s *source) imports(visit func(path string, at token.Position)) {
	for _, i := range s.file.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err == nil {
			visit(path, s.set.Position(i.Pos()))
		}
	}
}

func TestImportsRunOneWay(t *testing.T) {
	for _, s := range sources(t) {
		from := layerOf(s.dir)
		if from < 0 {
			t.Errorf("%s: the top level is fixed: cmd, node, cluster, fsm, protocol, bench, scripts", s.name)
			continue
		}
		if s.test {
			continue
		}
		s.imports(func(path string, at token.Position) {
			rel, ours := strings.CutPrefix(path, module+"/")
			if !ours {
				return
			}
			to := layerOf(rel)
			if to > from || to == from && !layers[from].neighbours && rel != s.dir {
				t.Errorf("%v: %s must not import %s: imports run wire < packet, topic < command < fsm < cluster < node < cmd; declare a small interface here instead", at, s.dir, rel)
			}
		})
	}
}

func TestProtocolAndFsmArePure(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !slices.ContainsFunc(pure, func(p string) bool { return within(s.dir, p) }) {
			continue
		}
		s.imports(func(path string, at token.Position) {
			if slices.ContainsFunc(impure, func(p string) bool { return within(path, p) }) {
				t.Errorf("%v: %s must not import %s: same input, same output; let the caller hand it in as data", at, s.dir, path)
			}
			if strings.Contains(path, ".") {
				t.Errorf("%v: %s must not import %s: it needs the standard library only", at, s.dir, path)
			}
		})
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if id, ok := sel.X.(*ast.Ident); ok && id.Name == "time" && slices.Contains(clocks, sel.Sel.Name) {
				t.Errorf("%v: time.%s in %s: time enters as a stamp in the log", s.set.Position(sel.Pos()), sel.Sel.Name, s.dir)
			}
			return true
		})
	}
}

func TestLibrariesStayInTheirHomes(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		s.imports(func(path string, at token.Position) {
			for library, dirs := range homes {
				if within(path, library) && !slices.ContainsFunc(dirs, func(d string) bool { return within(s.dir, d) }) {
					t.Errorf("%v: %s must not import %s: it belongs in %s", at, s.dir, path, strings.Join(dirs, ", "))
				}
			}
			for _, hidden := range blind[s.dir] {
				if within(strings.TrimPrefix(path, module+"/"), hidden) {
					t.Errorf("%v: %s must not import %s: it sees it through small interfaces of its own", at, s.dir, path)
				}
			}
		})
	}
}

func TestFilesAndFunctionsFitTheirPage(t *testing.T) {
	const fileLines, functionLines = 500, 70
	for _, s := range sources(t) {
		if s.lines > fileLines && !ast.IsGenerated(s.file) {
			t.Errorf("%s: %d lines, at most %d: split it by what changes together", s.name, s.lines, fileLines)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil || len(f.Body.List) == 1 { // one switch or return is a table
				continue
			}
			if n := s.span(f) - s.tables(f); n > functionLines {
				t.Errorf("%v: %s has %d lines, at most %d: keep the branching here and move plain work into helpers",
					s.set.Position(f.Pos()), f.Name.Name, n, functionLines)
			}
		}
	}
}

// span is the number of lines of a node.
func (s *source) span(n ast.Node) int {
	return s.set.Position(n.End()).Line - s.set.Position(n.Pos()).Line + 1
}

// tables is the number of lines of the composite literals in a function:
// data does not make it harder to follow.
func (s *source) tables(f *ast.FuncDecl) int {
	lines := 0
	ast.Inspect(f, func(n ast.Node) bool {
		l, ok := n.(*ast.CompositeLit)
		if ok {
			lines += s.span(l) - 1
		}
		return !ok
	})
	return lines
}

func TestPackagesAreNounsWithAComment(t *testing.T) {
	hollow := []string{"util", "utils", "common", "helper", "helpers", "types", "models", "misc"}
	commented := map[string]bool{}
	for _, s := range sources(t) {
		if slices.Contains(hollow, s.file.Name.Name) {
			t.Errorf("%s: package %s says nothing: name it after what it holds", s.name, s.file.Name.Name)
		}
		commented[s.dir] = commented[s.dir] || s.file.Doc != nil
	}
	for dir, ok := range commented {
		if !ok {
			t.Errorf("%s: no package comment: say what it is, and what it is not", dir)
		}
	}
}
