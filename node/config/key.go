package config

import (
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// Key is one setting: its name, its help, and how text becomes its value.
type Key struct {
	// Name is the flag without its dashes and the key of the file.
	Name string
	// Group is the heading under which help shows it.
	Group string
	// Arg is what help shows for the value, "" for a switch.
	Arg string
	// Usage is one line of help.
	Usage string

	kind kind
	// text reads the value from c, for help.
	text func(c *Config) string
	// set parses s into c. The error says what s is not; want says what it should be.
	set func(c *Config, s string) error
	// want says what a value looks like.
	want string
}

// kind is the shape of a value in the TOML file.
type kind byte

const (
	kindString kind = iota
	kindBool
	kindInt
	kindList
	kindDuration
	kindBytes
)

// Text returns the value in c as text, "" for none.
func (k *Key) Text(c Config) string { return k.text(&c) }

// Env is the name of the key's environment variable.
func (k *Key) Env() string { return envPrefix + strings.ToUpper(strings.ReplaceAll(k.Name, "-", "_")) }

// Switch reports whether the flag may stand without a value.
func (k *Key) Switch() bool { return k.kind == kindBool }

func stringKey(name, arg, usage string, field func(*Config) *string) Key {
	return Key{
		Name: name, Arg: arg, Usage: usage, kind: kindString, want: "write a text, in the file between quotes",
		text: func(c *Config) string { return *field(c) },
		set: func(c *Config, s string) error {
			*field(c) = s
			return nil
		},
	}
}

func listKey(name, arg, usage string, field func(*Config) *[]string) Key {
	return Key{
		Name: name, Arg: arg, Usage: usage, kind: kindList,
		want: `write a list, in the file ["a", "b"], elsewhere a,b`,
		text: func(c *Config) string { return strings.Join(*field(c), ",") },
		set: func(c *Config, s string) error {
			var list []string
			for item := range strings.SplitSeq(s, ",") {
				if item = strings.TrimSpace(item); item != "" {
					list = append(list, item)
				}
			}
			*field(c) = list
			return nil
		},
	}
}

func boolKey(name, usage string, field func(*Config) *bool) Key {
	return Key{
		Name: name, Usage: usage, kind: kindBool, want: "write true or false",
		text: func(c *Config) string {
			if *field(c) {
				return "true"
			}
			return ""
		},
		set: func(c *Config, s string) error {
			switch s {
			case "true", "1":
				*field(c) = true
			case "false", "0":
				*field(c) = false
			default:
				return fmt.Errorf("%q is neither true nor false", s)
			}
			return nil
		},
	}
}

func intKey(name, usage string, low, high int, field func(*Config) *int) Key {
	return Key{
		Name: name, Arg: "N", Usage: usage, kind: kindInt,
		want: fmt.Sprintf("write a whole number from %d to %d", low, high),
		text: func(c *Config) string {
			if *field(c) == 0 {
				return ""
			}
			return strconv.Itoa(*field(c))
		},
		set: func(c *Config, s string) error {
			n, err := strconv.Atoi(s)
			if err != nil {
				return fmt.Errorf("%q is not a whole number", s)
			}
			if n < low || n > high {
				return fmt.Errorf("%d is out of range", n)
			}
			*field(c) = n
			return nil
		},
	}
}

func durationKey(name, usage string, low, high time.Duration, field func(*Config) *time.Duration) Key {
	return Key{
		Name: name, Arg: "TIME", Usage: usage, kind: kindDuration,
		want: fmt.Sprintf("write a number and its unit, such as 500ms, 12s or 24h, from %s to %s", short(low), short(high)),
		text: func(c *Config) string { return short(*field(c)) },
		set: func(c *Config, s string) error {
			d, err := time.ParseDuration(s)
			if err != nil {
				return fmt.Errorf("%q is not a duration", s)
			}
			if d < low || d > high {
				return fmt.Errorf("%s is out of range", short(d))
			}
			*field(c) = d
			return nil
		},
	}
}

func bytesKey(name, usage string, low, high Bytes, field func(*Config) *Bytes) Key {
	return Key{
		Name: name, Arg: "SIZE", Usage: usage, kind: kindBytes,
		want: fmt.Sprintf("write a number of bytes, or one with KiB, MiB or GiB, from %v to %v", low, high),
		text: func(c *Config) string { return field(c).String() },
		set: func(c *Config, s string) error {
			n, err := ParseBytes(s)
			if err != nil {
				return err
			}
			if n < low || n > high {
				return fmt.Errorf("%v is out of range", n)
			}
			*field(c) = n
			return nil
		},
	}
}

// logLevelKey is the one key with a type of its own.
func logLevelKey(name, usage string) Key {
	return Key{
		Name: name, Arg: "LEVEL", Usage: usage, kind: kindString, want: "write debug, info, warn or error",
		text: func(c *Config) string { return strings.ToLower(c.LogLevel.String()) },
		set: func(c *Config, s string) error {
			for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
				if strings.EqualFold(s, l.String()) {
					c.LogLevel = l
					return nil
				}
			}
			return fmt.Errorf("%q is not a log level", s)
		},
	}
}

// short is d without zero parts: 24h, not 24h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// ParseBytes reads a size: a whole number of bytes, or one followed by KiB, MiB or GiB.
func ParseBytes(s string) (Bytes, error) {
	number, unit := strings.TrimSpace(s), Bytes(1)
	for suffix, u := range map[string]Bytes{"KiB": KiB, "MiB": MiB, "GiB": GiB} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = strings.TrimSpace(n), u
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/int64(unit) {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return Bytes(n) * unit, nil
}

// String is the size in the largest unit that divides it.
func (b Bytes) String() string {
	switch {
	case b >= GiB && b%GiB == 0:
		return strconv.FormatInt(int64(b/GiB), 10) + "GiB"
	case b >= MiB && b%MiB == 0:
		return strconv.FormatInt(int64(b/MiB), 10) + "MiB"
	case b >= KiB && b%KiB == 0:
		return strconv.FormatInt(int64(b/KiB), 10) + "KiB"
	}
	return strconv.FormatInt(int64(b), 10)
}
