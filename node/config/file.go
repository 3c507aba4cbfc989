package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// readFile reads the TOML file that a flag or the environment named, if any.
func (l *loader) readFile(read func(string) ([]byte, error)) []setting {
	if l.pathWhere == "" {
		return nil
	}
	base := filepath.Base(l.path)
	text, err := read(l.path)
	if err != nil {
		l.inFile = append(l.inFile, Problem{Where: l.pathWhere, Text: fmt.Sprintf("read %s: %s", l.path, readError(err))})
		return nil
	}
	var values map[string]any
	if _, err := toml.Decode(string(text), &values); err != nil {
		l.inFile = append(l.inFile, syntaxProblem(base, err))
		return nil
	}
	lines := keyLines(string(text))
	where := func(key string) string {
		if n, ok := lines[key]; ok {
			return base + ":" + strconv.Itoa(n)
		}
		return base
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if lines[a] != lines[b] {
			return lines[a] - lines[b]
		}
		return strings.Compare(a, b)
	})
	var found []setting
	for _, name := range names {
		k, known := l.keys[name]
		_, isTable := values[name].(map[string]any)
		switch {
		case isTable:
			l.inFile = append(l.inFile, Problem{Where: where(name), Text: fmt.Sprintf("there are no tables, but [%s]", name),
				Fix: "write all keys at the top, without a table"})
		case !known:
			l.inFile = append(l.inFile, l.unknown(where(name), "key", name, func(s string) string { return s }))
		default:
			text, ok := k.fromTOML(values[name])
			if !ok {
				l.inFile = append(l.inFile, Problem{Where: where(name), Key: name,
					Text: describe(values[name]) + " is not of the right type", Fix: k.want})
				continue
			}
			found = append(found, setting{key: name, text: text, where: where(name), report: &l.inFile})
		}
	}
	return found
}

// syntaxProblem is the problem of a file that is not TOML.
func syntaxProblem(base string, err error) Problem {
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		return Problem{Where: base, Text: err.Error()}
	}
	return Problem{Where: base + ":" + strconv.Itoa(parse.Position.Line), Text: "not TOML: " + parse.Message}
}

// keyLines finds the line of each key: the file is flat, so that a key stands at the beginning of its line.
func keyLines(text string) map[string]int {
	lines := map[string]int{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		name, _, isKey := strings.Cut(line, "=")
		if table, ok := strings.CutPrefix(line, "["); ok {
			name, _, isKey = strings.Cut(strings.TrimLeft(table, "["), "]")
		}
		name = strings.Trim(strings.TrimSpace(name), `"'`)
		if _, seen := lines[name]; isKey && !seen {
			lines[name] = n
		}
	}
	return lines
}

// fromTOML turns a TOML value into the text that set takes; false when it is of another type. Numbers may be strings, as
// they are in the environment; strings may not be numbers.
func (k *Key) fromTOML(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), k.kind == kindBool
	case int64:
		return strconv.FormatInt(v, 10), k.kind == kindInt || k.kind == kindBytes
	case []any:
		items := make([]string, 0, len(v))
		for _, item := range v {
			s, ok := item.(string)
			if !ok {
				return "", false
			}
			items = append(items, s)
		}
		return strings.Join(items, ","), k.kind == kindList
	}
	return "", false
}

// describe shows a TOML value for a message.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case time.Time:
		return "a date"
	case []any:
		return "a list"
	default:
		return fmt.Sprint(v)
	}
}
