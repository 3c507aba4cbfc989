package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Source is where Load takes settings from.
type Source struct {
	// Args are the arguments after the command's name.
	Args []string
	// Environ is the environment as NAME=value, as os.Environ returns it.
	Environ []string
	// Hostname is the default name of the node.
	Hostname string
	// ReadFile reads the TOML file; nil reads from the file system.
	ReadFile func(path string) ([]byte, error)
}

// Load reads the file, the environment and the flags, in that order of precedence, and validates the result.
// The error is of type [Problems] and has every problem at once; the Config is then only good for showing.
func Load(src Source) (Config, error) {
	if src.ReadFile == nil {
		src.ReadFile = os.ReadFile
	}
	l := newLoader()
	env := l.readEnv(src.Environ)
	flags := l.readFlags(src.Args)
	file := l.readFile(src.ReadFile)

	c := Default(src.Hostname)
	invalid := l.apply(&c, slices.Concat(file, env, flags))
	problems := slices.Concat(l.inFile, l.inEnv, l.inFlags, c.check(invalid))
	return c, problems.err()
}

// setting is one value of one key as it was found.
type setting struct {
	key, text string
	where     string
	report    *Problems // of the source it came from
}

// loader collects settings and problems by source.
type loader struct {
	keys  map[string]Key
	names []string

	path, pathWhere string // of --config or QUORATE_CONFIG

	inFile, inEnv, inFlags Problems
}

func newLoader() *loader {
	l := &loader{keys: map[string]Key{}}
	for _, k := range Keys() {
		l.keys[k.Name] = k
		l.names = append(l.names, k.Name)
	}
	return l
}

// apply puts the settings into c, the last one of a key winning, and returns the keys whose value is no value at all: what
// depends on them cannot be checked.
func (l *loader) apply(c *Config, all []setting) (invalid map[string]bool) {
	// The preset moves the defaults of the timings, whatever source names it.
	slices.SortStableFunc(all, func(a, b setting) int {
		return boolOrder(a.key != "timings") - boolOrder(b.key != "timings")
	})
	invalid = map[string]bool{}
	for _, s := range all {
		k := l.keys[s.key]
		if err := k.set(c, s.text); err != nil {
			*s.report = append(*s.report, Problem{Where: s.where, Key: s.key, Text: err.Error(), Fix: k.want})
			invalid[s.key] = true
			continue
		}
		c.origins[s.key] = s.where
		if s.key == "timings" {
			c.applyTimings()
		}
	}
	return invalid
}

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

// unknown is the problem of a name that no key has. show turns a key's name into how this source writes it.
func (l *loader) unknown(where, what, name string, show func(string) string) Problem {
	p := Problem{Where: where, Text: fmt.Sprintf("unknown %s %q", what, show(name))}
	if near, ok := didYouMean(name, append(l.names, "config")); ok {
		p.Fix = fmt.Sprintf("did you mean %q?", show(near))
	} else {
		p.Fix = "\"quorate serve --help\" lists all"
	}
	return p
}

// readFlags reads --key value, --key=value and the switches. One dash does as well.
func (l *loader) readFlags(args []string) []setting {
	var found []setting
	lists := map[string]int{} // a repeated list flag adds to the list
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, isFlag := strings.CutPrefix(arg, "-")
		if !isFlag || name == "" {
			l.inFlags = append(l.inFlags, Problem{Where: "arguments", Text: fmt.Sprintf("unexpected %q", arg),
				Fix: "settings are flags: --name value"})
			continue
		}
		name = strings.TrimPrefix(name, "-")
		name, value, hasValue := strings.Cut(name, "=")
		where := "--" + name
		k, known := l.keys[name]
		if !known && name != "config" {
			l.inFlags = append(l.inFlags, l.unknown("arguments", "flag", name, func(s string) string { return "--" + s }))
			if !hasValue && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
				args = args[1:] // most likely its value
			}
			continue
		}
		switch {
		case hasValue:
		case known && k.Switch():
			value = "true"
		case len(args) > 0 && !looksLikeFlag(args[0]):
			value, args = args[0], args[1:]
		default:
			l.inFlags = append(l.inFlags, Problem{Where: where, Key: name, Text: "has no value", Fix: k.want})
			continue
		}
		if name == "config" {
			l.path, l.pathWhere = value, where
			continue
		}
		if i, again := lists[name]; again && k.kind == kindList {
			found[i].text += "," + value
			continue
		}
		lists[name] = len(found)
		found = append(found, setting{key: name, text: value, where: where, report: &l.inFlags})
	}
	return found
}

// looksLikeFlag reports whether an argument is a flag and not the value of the one before it.
func looksLikeFlag(arg string) bool { return strings.HasPrefix(arg, "-") && arg != "-" }

// readEnv reads the variables that begin with QUORATE_.
func (l *loader) readEnv(environ []string) []setting {
	var found []setting
	for _, e := range slices.Sorted(slices.Values(environ)) {
		variable, value, _ := strings.Cut(e, "=")
		name, ours := strings.CutPrefix(variable, envPrefix)
		if !ours || fromKubernetes(name, value) {
			continue
		}
		key := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		if key == "config" {
			l.path, l.pathWhere = value, variable
			continue
		}
		if _, known := l.keys[key]; !known {
			l.inEnv = append(l.inEnv, l.unknown("environment", "variable", key, func(s string) string {
				return envPrefix + strings.ToUpper(strings.ReplaceAll(s, "-", "_"))
			}))
			continue
		}
		found = append(found, setting{key: key, text: value, where: variable, report: &l.inEnv})
	}
	return found
}

// fromKubernetes reports whether a variable is one of those that Kubernetes makes from a Service that is called quorate:
// QUORATE_SERVICE_HOST, QUORATE_SERVICE_PORT_MQTT, QUORATE_PORT=tcp://..., QUORATE_PORT_1883_TCP_ADDR and so on.
func fromKubernetes(name, value string) bool {
	if strings.HasSuffix(name, "SERVICE_HOST") || strings.Contains(name, "SERVICE_PORT") {
		return true
	}
	if strings.HasSuffix(name, "PORT") {
		return strings.HasPrefix(value, "tcp://") || strings.HasPrefix(value, "udp://")
	}
	return strings.Contains(name, "PORT_") && (strings.Contains(name, "_TCP") || strings.Contains(name, "_UDP"))
}

// readError says why a file could not be read, without its path twice.
func readError(err error) string {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err.Error()
	}
	return err.Error()
}
