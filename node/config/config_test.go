package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// load reads a configuration in which --config names a file of the given text, if any.
func load(t *testing.T, file string, environ []string, args ...string) (Config, error) {
	t.Helper()
	src := Source{Args: args, Environ: environ, Hostname: "host-1"}
	if file != "" {
		path := filepath.Join(t.TempDir(), "n1.toml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		src.Args = append([]string{"--config", path}, args...)
	}
	return Load(src)
}

func TestNothingSetIsASingleNodeOnLoopback(t *testing.T) {
	c, err := Load(Source{Hostname: "host-1"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "host-1" || c.Data != "./quorate-data" || c.Cluster != "" || c.BootstrapExpect() != 1 || c.AllowAnonymous {
		t.Errorf("got %+v", c)
	}
	if diff := cmp.Diff([]string{"127.0.0.1:1883"}, c.MQTT); diff != "" {
		t.Error(diff)
	}
	if c.Admin != "127.0.0.1:18083" || !c.AdminEnabled() {
		t.Errorf("admin %q", c.Admin)
	}
	if c.ClientClose != 12*time.Second || c.NodeDown != 15*time.Second {
		t.Errorf("timings %v %v", c.ClientClose, c.NodeDown)
	}
}

func TestAHostNameThatIsNoLabelIsNotUsed(t *testing.T) {
	for hostname, want := range map[string]string{"": "quorate", "my host": "quorate", "db-1.example.org": "db-1.example.org"} {
		if got := Default(hostname).Name; got != want {
			t.Errorf("Default(%q).Name = %q, want %q", hostname, got, want)
		}
	}
}

func TestFlagsGoOverTheEnvironmentAndThatOverTheFile(t *testing.T) {
	file := `
# every kind of value
name = "from-file"
mqtt = ["127.0.0.1:1", "127.0.0.1:2"]
expect = 3
cluster = "127.0.0.1:7946"
allow-anonymous = true
node-down = "20s"
max-packet-size = "2MiB"
max-queued-bytes = 1073741824
data = "/file"
log-level = "debug"
`
	c, err := load(t, file, []string{"QUORATE_NAME=from-env", "QUORATE_DATA=/env", "QUORATE_ALLOW_ANONYMOUS=false", "PATH=/bin"},
		"--data", "/flag", "-join=127.0.0.2:7946", "--join", "127.0.0.3:7946")
	if err != nil {
		t.Fatal(err)
	}
	got := []any{c.Name, c.Data, c.Expect, c.AllowAnonymous, c.NodeDown, c.MaxPacketSize, c.MaxQueuedBytes, c.Join, c.LogLevel.String()}
	want := []any{"from-env", "/flag", 3, false, 20 * time.Second, 2 * MiB, 1 * GiB, []string{"127.0.0.2:7946", "127.0.0.3:7946"}, "DEBUG"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for key, origin := range map[string]string{
		"name": "QUORATE_NAME", "data": "--data", "mqtt": "n1.toml:4", "expect": "n1.toml:5", "admin": "default",
	} {
		if got := c.Origin(key); got != origin {
			t.Errorf("origin of %s: %q, want %q", key, got, origin)
		}
	}
}

func TestAPresetMovesTheDefaultsOfTheTimingsOnly(t *testing.T) {
	c, err := load(t, `client-close = "5s"`, nil, "--timings", "lan")
	if err != nil {
		t.Fatal(err)
	}
	if c.ClientClose != 5*time.Second || c.NodeDown != 6*time.Second || c.HeartbeatTimeout != 500*time.Millisecond {
		t.Errorf("got %v %v %v", c.ClientClose, c.NodeDown, c.HeartbeatTimeout)
	}
}

func TestTheConfigurationFileMayBeNamedByTheEnvironment(t *testing.T) {
	c, err := Load(Source{Environ: []string{"QUORATE_CONFIG=/etc/quorate.toml"}, ReadFile: func(path string) ([]byte, error) {
		if path != "/etc/quorate.toml" {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return []byte(`name = "x"`), nil
	}})
	if err != nil || c.Name != "x" {
		t.Errorf("name %q, err %v", c.Name, err)
	}
}

func TestVariablesThatKubernetesMakesForAServiceAreNotSettings(t *testing.T) {
	_, err := Load(Source{Environ: []string{
		"QUORATE_SERVICE_HOST=10.0.0.1", "QUORATE_SERVICE_PORT=1883", "QUORATE_SERVICE_PORT_MQTT=1883", "QUORATE_PORT=tcp://10.0.0.1:1883",
		"QUORATE_PORT_1883_TCP=tcp://10.0.0.1:1883", "QUORATE_PORT_1883_TCP_ADDR=10.0.0.1", "QUORATE_ADMIN_SERVICE_HOST=10.0.0.2",
		"QUORATE_ADMIN_PORT=tcp://10.0.0.2:18083",
	}})
	if err != nil {
		t.Error(err)
	}
}

// Each case has the whole text an operator sees, one problem a line.
func TestEveryProblemIsToldWithItsPlaceAndItsWayOut(t *testing.T) {
	cases := []struct {
		name, file string
		environ    []string
		args       []string
		want       string
	}{
		{name: "unknown flag", args: []string{"--mqqt", "127.0.0.1:1"}, want: `
arguments: unknown flag "--mqqt"; did you mean "--mqtt"?`},
		{name: "unknown flag like nothing", args: []string{"--frobnicate"}, want: `
arguments: unknown flag "--frobnicate"; "quorate serve --help" lists all`},
		{name: "flag without value", args: []string{"--name"}, want: `
--name: has no value; write a text, in the file between quotes`},
		{name: "flag followed by a flag", args: []string{"--data", "--allow-anonymous"}, want: `
--data: has no value; write a text, in the file between quotes`},
		{name: "argument that is no flag", args: []string{"1883"}, want: `
arguments: unexpected "1883"; settings are flags: --name value`},
		{name: "unknown variable", environ: []string{"QUORATE_MQQT=x"}, want: `
environment: unknown variable "QUORATE_MQQT"; did you mean "QUORATE_MQTT"?`},
		{name: "unknown key", file: "nmae = \"x\"\n", want: `
n1.toml:1: unknown key "nmae"; did you mean "name"?`},
		{name: "table", file: "name = \"x\"\n\n[limits]\nmax-packet-size = 1\n", want: `
n1.toml:3: there are no tables, but [limits]; write all keys at the top, without a table`},
		{name: "not TOML", file: "name = \"x\"\nmqtt = 127.0.0.1:1883\n", want: `
n1.toml:2: not TOML: Invalid float value: "127.0.0.1"`},
		{name: "wrong types", file: "name = 7\nexpect = \"3x\"\nallow-anonymous = \"yes\"\nmqtt = [1]\nnode-down = 15\nmax-packet-size = 1.5\n", want: `
n1.toml:1: name: 7 is not of the right type; write a text, in the file between quotes
n1.toml:4: mqtt: a list is not of the right type; write a list, in the file ["a", "b"], elsewhere a,b
n1.toml:5: node-down: 15 is not of the right type; write a number and its unit, such as 500ms, 12s or 24h, from 200ms to 1h
n1.toml:6: max-packet-size: 1.5 is not of the right type; write a number of bytes, or one with KiB, MiB or GiB, from 1KiB to 4MiB
n1.toml:2: expect: "3x" is not a whole number; write a whole number from 0 to 5
n1.toml:3: allow-anonymous: "yes" is neither true nor false; write true or false`},
		{name: "out of range", args: []string{"--expect", "6", "--max-packet-size=5MiB", "--node-down", "2h", "--receive-maximum", "0"}, want: `
--expect: 6 is out of range; write a whole number from 0 to 5
--max-packet-size: 5MiB is out of range; write a number of bytes, or one with KiB, MiB or GiB, from 1KiB to 4MiB
--node-down: 2h is out of range; write a number and its unit, such as 500ms, 12s or 24h, from 200ms to 1h
--receive-maximum: 0 is out of range; write a whole number from 1 to 65535`},
		{name: "no value of its kind", args: []string{"--max-outgoing", "lots", "--leader-wait", "2", "--log-level", "loud", "--log-format", "xml"}, want: `
--max-outgoing: "lots" is not a size; write a number of bytes, or one with KiB, MiB or GiB, from 64KiB to 1GiB
--leader-wait: "2" is not a duration; write a number and its unit, such as 500ms, 12s or 24h, from 10ms to 1m
--log-level: "loud" is not a log level; write debug, info, warn or error
--log-format: "xml" is not a log format; write text or json`},
		{name: "bad names", args: []string{"--name", "a b", "--data", ""}, want: `
--name: "a b" is not a name; use 1 to 64 letters, digits, dots, dashes and underscores
--data: is empty; name a directory`},
		{name: "bad addresses", args: []string{"--mqtt", "1883,127.0.0.1:mqtt,127.0.0.1:99999,tcp://x:1883", "--admin", "127.0.0.1"}, want: `
--mqtt: "1883" is not an address: missing port in address; write host:port, for example 127.0.0.1:1883
--mqtt: "127.0.0.1:mqtt" is not an address: bad port "mqtt"; ports are numbers from 1 to 65535
--mqtt: "127.0.0.1:99999" is not an address: bad port "99999"; ports are numbers from 1 to 65535
--mqtt: "tcp://x:1883" is not an address: too many colons in address; write host:port, for example 127.0.0.1:1883
--admin: "127.0.0.1" is not an address: missing port in address; write host:port, for example 127.0.0.1:1883`},
		{name: "no listener", args: []string{"--mqtt", ""}, want: `
--mqtt: there is no listener for clients; name an address, for example 127.0.0.1:1883`},
		{name: "open to the world", args: []string{"--mqtt", "0.0.0.0:1883"}, want: `
--mqtt: 0.0.0.0:1883 is not on loopback, and without users nobody could log in there; listen on 127.0.0.1, or say allow-anonymous if everybody who reaches it may come in`},
		{name: "open cluster port", args: []string{"--cluster", "10.0.0.1:7946"}, want: `
--cluster: 10.0.0.1:7946 is not on loopback, and the cluster port is neither encrypted nor authenticated; use a loopback address, or say insecure-cluster if only the nodes can reach that network`},
		{name: "cluster port without a host", args: []string{"--cluster", ":7946", "--insecure-cluster"}, want: `
--cluster: other nodes cannot reach :7946; set advertise to the address at which the other nodes reach this one`},
		{name: "cluster without a port", file: "join = [\"127.0.0.2:7946\"]\nexpect = 3\nadvertise = \"127.0.0.1:7946\"\n", want: `
n1.toml:1: join: is set, but the node has no cluster port; set cluster, for example 127.0.0.1:7946
n1.toml:2: expect: 3 nodes cannot meet: the node has no cluster port; set cluster, for example 127.0.0.1:7946
n1.toml:3: advertise: is set, but the node has no cluster port; set cluster, for example 127.0.0.1:7946`},
		{name: "addresses nobody can dial", args: []string{"--cluster", "127.0.0.1:7946", "--join", "0.0.0.0:7946", "--advertise", "127.0.0.1:0", "--advertise-mqtt", ":1883"}, want: `
--advertise-mqtt: ":1883" cannot be dialled: it has no host; name the host
--advertise: "127.0.0.1:0" is not an address: bad port "0"; ports are numbers from 1 to 65535
--join: "0.0.0.0:7946" cannot be dialled: it has no host; name the host`},
		{name: "two listeners on one port", args: []string{"--mqtt", "127.0.0.1:1883,127.0.0.1:1883", "--admin", "127.0.0.1:7946", "--cluster", "127.0.0.1:7946"}, want: `
--mqtt: 127.0.0.1:1883 is taken by mqtt (127.0.0.1:1883); give it another port
--admin: 127.0.0.1:7946 is taken by cluster (127.0.0.1:7946); give it another port`},
		{name: "timings out of order", args: []string{"--client-close", "15s", "--leader-lease", "2s", "--election-timeout", "800ms", "--leader-wait", "30s"}, want: `
--leader-lease: 2s must be at most heartbeat-timeout (1s); change one of the two
--election-timeout: 800ms must be at least heartbeat-timeout (1s); change one of the two
--leader-wait: 30s must be less than client-close (15s); change one of the two
--client-close: 15s must be less than node-down (15s); change one of the two`},
		{name: "clients sent away by an election", args: []string{"--client-close", "2s", "--leader-wait", "1s"}, want: `
--client-close: 2s is not longer than heartbeat-timeout and election-timeout together (2s); raise client-close, or lower the other two`},
		{name: "unknown preset", args: []string{"--timings", "wan"}, want: `
--timings: "wan" is not a preset; write default or lan`},
		{name: "limits that contradict", args: []string{"--max-stored-bytes", "512MiB", "--max-outgoing", "1MiB", "--max-packet-size", "2MiB"}, want: `
default: max-queued-bytes: one queue (1GiB) could exceed all stored messages together (512MiB); lower it, or raise max-stored-bytes
--max-outgoing: 1MiB is less than one packet (2MiB); raise it, or lower max-packet-size`},
		{name: "profiler without a listener", args: []string{"--admin", "off", "--admin-pprof"}, want: `
--admin-pprof: there is no admin listener; set admin`},
		{name: "all sources at once", file: "expct = 3\n", environ: []string{"QUORATE_EXPECT=three"}, args: []string{"--expct", "3"}, want: `
n1.toml:1: unknown key "expct"; did you mean "expect"?
QUORATE_EXPECT: "three" is not a whole number; write a whole number from 0 to 5
arguments: unknown flag "--expct"; did you mean "--expect"?`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := load(t, tc.file, tc.environ, tc.args...)
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got error %v, want Problems", err)
			}
			var lines []string
			for _, p := range problems {
				lines = append(lines, p.String())
			}
			if diff := cmp.Diff(strings.Split(strings.TrimSpace(tc.want), "\n"), lines); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAFileThatCannotBeReadIsAProblemOfWhoNamedIt(t *testing.T) {
	_, err := Load(Source{Args: []string{"--config", "/nowhere/n1.toml"}, Environ: []string{"QUORATE_EXPECT=x"}})
	want := "2 problems in the configuration\n  --config: read /nowhere/n1.toml: no such file or directory\n" +
		"  QUORATE_EXPECT: \"x\" is not a whole number; write a whole number from 0 to 5"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestTheDefaultsContradictNothing(t *testing.T) {
	for _, preset := range []string{"default", "lan"} {
		c := Default("n1")
		c.Timings = preset
		c.applyTimings()
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", preset, err)
		}
	}
}

// Every default must be a value that its own key accepts, so that printing a configuration and reading it back works.
func TestEveryKeyAcceptsItsDefault(t *testing.T) {
	for _, k := range Keys() {
		c := Default("n1")
		text := k.Text(c)
		if text == "" {
			continue
		}
		if err := k.set(&c, text); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
		if again := k.Text(c); again != text {
			t.Errorf("%s: %q became %q", k.Name, text, again)
		}
	}
}

func TestSizesAreReadInAllUnits(t *testing.T) {
	for s, want := range map[string]Bytes{"0": 0, "17": 17, "1KiB": KiB, " 3 MiB ": 3 * MiB, "8GiB": 8 * GiB} {
		if got, err := ParseBytes(s); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-1", "1MB", "1.5MiB", "9223372036854775807GiB", "KiB"} {
		if got, err := ParseBytes(s); err == nil {
			t.Errorf("ParseBytes(%q) = %v, want an error", s, got)
		}
	}
}

func TestDistanceCountsSlips(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"mqtt", "mqtt", 0}, {"mqqt", "mqtt", 1}, {"mtqt", "mqtt", 1}, {"", "abc", 3}, {"expct", "expect", 1}, {"kitten", "sitting", 3}} {
		if got := distance(tc.a, tc.b); got != tc.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}
