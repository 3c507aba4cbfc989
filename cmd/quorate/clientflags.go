package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"quorate/protocol/packet"
)

// clientOptions are the settings of pub and sub, filled from mosquitto's flags.
type clientOptions struct {
	program string // "pub" or "sub"

	hosts        []string // host or host:port, tried in turn
	port         int      // 0: the default of the transport
	unix, bind   string
	tls          tlsOptions
	username     *string
	password     *string
	clientID     string
	idPrefix     string
	keepAlive    int
	version      packet.Version
	persistent   bool // -c
	expiry       *uint32
	debug, quiet bool
	topics       []string
	qos          byte
	willTopic    string
	willPayload  []byte
	willQoS      byte
	willRetain   bool
	willFlags    bool // one of them was given
	properties   []property

	pub pubOptions
	sub subOptions
}

type tlsOptions struct {
	on                        bool
	caFile, certFile, keyFile string
	insecure, systemRoots     bool
}

// pubOptions are those of pub alone.
type pubOptions struct {
	source      string // "", "message", "null", "file", "stdin", "lines"
	message     []byte
	file        string
	retain      bool
	inflight    int
	repeat      int
	repeatDelay time.Duration
}

// subOptions are those of sub alone.
type subOptions struct {
	count          int // 0: no end
	wait           time.Duration
	verbose, noEOL bool
	noRetained     bool
	retainedOnly   bool
	removeRetained bool
	exitAfterSub   bool
	format         string
	pretty         bool
	filterOut      []string
	unsubscribe    []string
	percent        float64
}

// usageError is a wrong command line; its text is shown with a hint to --help.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// clientFlag is one flag of pub or sub.
type clientFlag struct {
	names  string // separated by blanks
	values int    // how many arguments it takes
	set    func(o *clientOptions, v []string) error
}

// parseClient reads the command line. Like mosquitto's it stops at the first mistake.
func parseClient(program string, args []string) (*clientOptions, error) {
	o := &clientOptions{program: program, keepAlive: 60, version: packet.V311}
	o.pub.inflight, o.pub.repeat, o.sub.percent = 20, 1, 100
	flags := sharedFlags()
	if program == "pub" {
		flags = append(flags, pubFlags()...)
	} else {
		flags = append(flags, subFlags()...)
	}
	for len(args) > 0 {
		name := args[0]
		args = args[1:]
		value, joined := "", false
		if strings.HasPrefix(name, "--") {
			name, value, joined = strings.Cut(name, "=")
		}
		i := slices.IndexFunc(flags, func(f clientFlag) bool { return slices.Contains(strings.Fields(f.names), name) })
		if i < 0 {
			return nil, usagef("Unknown option '%s'.", name)
		}
		if joined {
			args = append([]string{value}, args...)
		}
		n := flags[i].values
		if name == "-D" || name == "--property" {
			n = propertyArgs(args)
		}
		if len(args) < n {
			return nil, usagef("%s argument given but no value specified.", name)
		}
		if err := flags[i].set(o, args[:n]); err != nil {
			return nil, err
		}
		args = args[n:]
	}
	return o, o.check()
}

func sharedFlags() []clientFlag {
	return []clientFlag{
		{"-h --host", 1, func(o *clientOptions, v []string) error { o.hosts = strings.Split(v[0], ","); return nil }},
		{"-p --port", 1, func(o *clientOptions, v []string) error { return number(v[0], 1, 65535, "port", &o.port) }},
		{"--unix", 1, func(o *clientOptions, v []string) error { o.unix = v[0]; return nil }},
		{"-A", 1, func(o *clientOptions, v []string) error { o.bind = v[0]; return nil }},
		{"-L --url", 1, func(o *clientOptions, v []string) error { return o.setURL(v[0]) }},
		{"-u --username", 1, func(o *clientOptions, v []string) error { o.username = &v[0]; return nil }},
		{"-P --pw", 1, func(o *clientOptions, v []string) error { o.password = &v[0]; return nil }},
		{"-i --id", 1, func(o *clientOptions, v []string) error { o.clientID = v[0]; return nil }},
		{"-I --id-prefix", 1, func(o *clientOptions, v []string) error { o.idPrefix = v[0]; return nil }},
		{"-k --keepalive", 1, func(o *clientOptions, v []string) error {
			return number(v[0], 0, 65535, "keepalive", &o.keepAlive)
		}},
		{"-V --protocol-version", 1, func(o *clientOptions, v []string) error { return o.setVersion(v[0]) }},
		{"-c --disable-clean-session", 0, func(o *clientOptions, _ []string) error { o.persistent = true; return nil }},
		{"-x --session-expiry-interval", 1, func(o *clientOptions, v []string) error { return o.setExpiry(v[0]) }},
		{"-q --qos", 1, func(o *clientOptions, v []string) error { return setQoS(v[0], &o.qos) }},
		{"-d --debug", 0, func(o *clientOptions, _ []string) error { o.debug = true; return nil }},
		{"--quiet", 0, func(o *clientOptions, _ []string) error { o.quiet = true; return nil }},
		{"--nodelay", 0, func(*clientOptions, []string) error { return nil }}, // Go sets it always
		{"-D --property", 0, func(o *clientOptions, v []string) error { return o.addProperty(v) }},
		{"--will-topic", 1, func(o *clientOptions, v []string) error { o.willTopic = v[0]; return nil }},
		{"--will-payload", 1, func(o *clientOptions, v []string) error {
			o.willPayload, o.willFlags = []byte(v[0]), true
			return nil
		}},
		{"--will-qos", 1, func(o *clientOptions, v []string) error { o.willFlags = true; return setQoS(v[0], &o.willQoS) }},
		{"--will-retain", 0, func(o *clientOptions, _ []string) error { o.willRetain, o.willFlags = true, true; return nil }},
		{"--cafile", 1, func(o *clientOptions, v []string) error { o.tls.on, o.tls.caFile = true, v[0]; return nil }},
		{"--cert", 1, func(o *clientOptions, v []string) error { o.tls.on, o.tls.certFile = true, v[0]; return nil }},
		{"--key", 1, func(o *clientOptions, v []string) error { o.tls.on, o.tls.keyFile = true, v[0]; return nil }},
		{"--tls-use-os-certs", 0, func(o *clientOptions, _ []string) error { o.tls.on, o.tls.systemRoots = true, true; return nil }},
		{"--insecure", 0, func(o *clientOptions, _ []string) error { o.tls.insecure = true; return nil }},
	}
}

func pubFlags() []clientFlag {
	source := func(name string) func(o *clientOptions, v []string) error {
		return func(o *clientOptions, v []string) error {
			if o.pub.source != "" {
				return usagef("Only one type of message can be sent at once.")
			}
			o.pub.source = name
			switch name {
			case "message":
				o.pub.message = []byte(v[0])
			case "file":
				o.pub.file = v[0]
			}
			return nil
		}
	}
	return []clientFlag{
		{"-t --topic", 1, func(o *clientOptions, v []string) error { o.topics = append(o.topics, v[0]); return nil }},
		{"-m --message", 1, source("message")},
		{"-n --null-message", 0, source("null")},
		{"-f --file", 1, source("file")},
		{"-s --stdin-file", 0, source("stdin")},
		{"-l --stdin-line", 0, source("lines")},
		{"-r --retain", 0, func(o *clientOptions, _ []string) error { o.pub.retain = true; return nil }},
		{"-M --max-inflight", 1, func(o *clientOptions, v []string) error {
			return number(v[0], 1, 65535, "max-inflight", &o.pub.inflight)
		}},
		{"--repeat", 1, func(o *clientOptions, v []string) error {
			return number(v[0], 1, math.MaxInt32, "repeat count", &o.pub.repeat)
		}},
		{"--repeat-delay", 1, func(o *clientOptions, v []string) error {
			return seconds(v[0], "repeat-delay", &o.pub.repeatDelay)
		}},
	}
}

func subFlags() []clientFlag {
	return []clientFlag{
		{"-t --topic", 1, func(o *clientOptions, v []string) error { o.topics = append(o.topics, v[0]); return nil }},
		{"-T --filter-out", 1, func(o *clientOptions, v []string) error { o.sub.filterOut = append(o.sub.filterOut, v[0]); return nil }},
		{"-U --unsubscribe", 1, func(o *clientOptions, v []string) error {
			o.sub.unsubscribe = append(o.sub.unsubscribe, v[0])
			return nil
		}},
		{"-C", 1, func(o *clientOptions, v []string) error {
			return number(v[0], 1, math.MaxInt32, "message count", &o.sub.count)
		}},
		{"-W", 1, func(o *clientOptions, v []string) error { return seconds(v[0], "timeout", &o.sub.wait) }},
		{"-v --verbose", 0, func(o *clientOptions, _ []string) error { o.sub.verbose = true; return nil }},
		{"-N", 0, func(o *clientOptions, _ []string) error { o.sub.noEOL = true; return nil }},
		{"-R", 0, func(o *clientOptions, _ []string) error { o.sub.noRetained = true; return nil }},
		{"-E", 0, func(o *clientOptions, _ []string) error { o.sub.exitAfterSub = true; return nil }},
		{"-F", 1, func(o *clientOptions, v []string) error { o.sub.format = v[0]; return nil }},
		{"--pretty", 0, func(o *clientOptions, _ []string) error { o.sub.pretty = true; return nil }},
		{"--retained-only", 0, func(o *clientOptions, _ []string) error { o.sub.retainedOnly = true; return nil }},
		{"--remove-retained", 0, func(o *clientOptions, _ []string) error { o.sub.removeRetained = true; return nil }},
		{"--random-filter", 1, func(o *clientOptions, v []string) error {
			p, err := strconv.ParseFloat(v[0], 64)
			if err != nil || p <= 0 || p > 100 {
				return usagef("Invalid random filter given: %s", v[0])
			}
			o.sub.percent = p
			return nil
		}},
	}
}

func number(s string, low, high int, what string, to *int) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < low || n > high {
		return usagef("Invalid %s given: %s", what, s)
	}
	*to = n
	return nil
}

func seconds(s, what string, to *time.Duration) error {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f < 0 || f > 1e6 {
		return usagef("Invalid %s given: %s", what, s)
	}
	*to = time.Duration(f * float64(time.Second))
	return nil
}

func setQoS(s string, to *byte) error {
	if s != "0" && s != "1" && s != "2" {
		return usagef("Invalid QoS given: %s", s)
	}
	*to = s[0] - '0'
	return nil
}

func (o *clientOptions) setVersion(s string) error {
	switch s {
	case "mqttv31", "31":
		o.version = packet.V31
	case "mqttv311", "311":
		o.version = packet.V311
	case "mqttv5", "5":
		o.version = packet.V5
	default:
		return usagef("Invalid protocol version argument given.")
	}
	return nil
}

func (o *clientOptions) setExpiry(s string) error {
	n := uint64(math.MaxUint32)
	if s != "∞" && s != "-1" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 32); err != nil {
			return usagef("session-expiry-interval out of range.")
		}
	}
	v := uint32(n)
	o.expiry = &v
	o.version = packet.V5
	return nil
}
