package main

import (
	"os"
	"path/filepath"
	"testing"

	"quorate/protocol/packet"
)

const plainConnect = `CONNECT v=3.1.1 id="" clean=1 keepalive=60`

func TestPubSpeaksAsMosquittoPub(t *testing.T) {
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v5Connect := `CONNECT v=5.0 id="" clean=1 keepalive=60`
	cases := []struct {
		name    string
		args    []string
		stdin   string
		version packet.Version
		steps   []step
		want    outcome
	}{
		{
			name: "QoS 0", args: []string{"-t", "a/b", "-m", "hello"}, version: packet.V311,
			steps: []step{hello(plainConnect), want(`PUBLISH (d0, q0, r0, m0, 'a/b', ... (5 bytes)) "hello"`), want("DISCONNECT"), wantEnd},
		},
		{
			name: "QoS 1", args: []string{"-t", "a", "-m", "x", "-q", "1", "-r"}, version: packet.V311,
			steps: []step{hello(plainConnect), want(`PUBLISH (d0, q1, r1, m1, 'a', ... (1 bytes)) "x"`),
				send(&packet.Puback{PacketID: 1}), want("DISCONNECT")},
		},
		{
			name: "QoS 2", args: []string{"-t", "a", "-n", "-q", "2"}, version: packet.V311,
			steps: []step{hello(plainConnect), want(`PUBLISH (d0, q2, r0, m1, 'a', ... (0 bytes)) ""`), send(&packet.Pubrec{PacketID: 1}),
				want("PUBREL (Mid: 1)"), send(&packet.Pubcomp{PacketID: 1}), want("DISCONNECT")},
		},
		{
			name: "MQTT 3.1 has a Client Identifier", args: []string{"-t", "a", "-m", "x", "-V", "mqttv31", "-I", "p"}, version: packet.V31,
			steps: []step{accept, func(s *scripted) error {
				p, err := s.reader.Next()
				if c, ok := p.(*packet.Connect); !ok || c.Version != packet.V31 || c.ClientID == "p" || c.ClientID[0] != 'p' {
					t.Errorf("got %v, %v", p, err)
				}
				return nil
			}, send(&packet.Connack{}), want(`PUBLISH (d0, q0, r0, m0, 'a', ... (1 bytes)) "x"`), want("DISCONNECT")},
		},
		{
			name:    "everything CONNECT can carry",
			args:    []string{"-V", "5", "-i", "me", "-u", "bob", "-P", "secret", "-k", "7", "-c", "-x", "100", "-t", "a", "-m", "x", "--will-topic", "w", "--will-payload", "gone", "--will-qos", "1", "--will-retain", "-D", "will", "will-delay-interval", "3", "-D", "CONNECT", "receive-maximum", "9", "-D", "PUBLISH", "user-property", "color", "red", "-D", "publish", "message-expiry-interval", "60", "-D", "DISCONNECT", "session-expiry-interval", "5"},
			version: packet.V5,
			steps: []step{hello(`CONNECT v=5.0 id="me" clean=0 keepalive=7 user="bob" password="secret" will="w":"gone",q1,r1,delay3 expiry=100 receive-maximum=9`),
				want(`PUBLISH (d0, q0, r0, m0, 'a', ... (1 bytes)) "x" expiry=60 color:red`), want("DISCONNECT expiry=5")},
		},
		{
			name: "lines", args: []string{"-t", "a", "-l", "-q", "1"}, stdin: "one\n\nlast", version: packet.V311,
			steps: []step{hello(plainConnect), want(`PUBLISH (d0, q1, r0, m1, 'a', ... (3 bytes)) "one"`),
				want(`PUBLISH (d0, q1, r0, m2, 'a', ... (0 bytes)) ""`), want(`PUBLISH (d0, q1, r0, m3, 'a', ... (4 bytes)) "last"`),
				send(&packet.Puback{PacketID: 1}, &packet.Puback{PacketID: 2}, &packet.Puback{PacketID: 3}), want("DISCONNECT")},
		},
		{
			name: "file", args: []string{"-t", "a", "-f", file}, version: packet.V311,
			steps: []step{hello(plainConnect), want(`PUBLISH (d0, q0, r0, m0, 'a', ... (12 bytes)) "from a file\n"`), want("DISCONNECT")},
		},
		{
			name: "standard input", args: []string{"-t", "a", "-s"}, stdin: "a\nb\n", version: packet.V311,
			steps: []step{hello(plainConnect), want(`PUBLISH (d0, q0, r0, m0, 'a', ... (4 bytes)) "a\nb\n"`), want("DISCONNECT")},
		},
		{
			name: "the window is the smaller of -M and Receive Maximum", args: []string{"-t", "a", "-m", "x", "-q", "1", "-V", "5", "--repeat", "3", "-M", "9"}, version: packet.V5,
			steps: []step{accept, want(v5Connect), send(&packet.Connack{Properties: packet.Properties{ReceiveMaximum: 2}}),
				want(`PUBLISH (d0, q1, r0, m1, 'a', ... (1 bytes)) "x"`), want(`PUBLISH (d0, q1, r0, m2, 'a', ... (1 bytes)) "x"`),
				send(&packet.Puback{PacketID: 1}), want(`PUBLISH (d0, q1, r0, m3, 'a', ... (1 bytes)) "x"`),
				send(&packet.Puback{PacketID: 3}, &packet.Puback{PacketID: 2}), want("DISCONNECT")},
		},
		{
			name: "a refused message is the exit code", args: []string{"-t", "a", "-m", "x", "-q", "1", "-V", "5"}, version: packet.V5,
			steps: []step{hello(v5Connect), want(`PUBLISH (d0, q1, r0, m1, 'a', ... (1 bytes)) "x"`),
				send(&packet.Puback{PacketID: 1, ReasonCode: packet.QuotaExceeded}), want("DISCONNECT")},
			want: outcome{code: 0x97, err: "Warning: Publish 1 failed: Quota exceeded.\n"},
		},
		{
			name: "no subscribers is no failure", args: []string{"-t", "a", "-m", "x", "-q", "2", "-V", "5"}, version: packet.V5,
			steps: []step{hello(v5Connect), want(`PUBLISH (d0, q2, r0, m1, 'a', ... (1 bytes)) "x"`),
				send(&packet.Pubrec{PacketID: 1, ReasonCode: packet.NoMatchingSubscribers}), want("PUBREL (Mid: 1)"),
				send(&packet.Pubcomp{PacketID: 1}), want("DISCONNECT")},
		},
		{
			name: "refused before 5.0", args: []string{"-t", "a", "-m", "x"}, version: packet.V311,
			steps: []step{accept, want(plainConnect), send(&packet.Connack{ReasonCode: packet.NotAuthorized})},
			want:  outcome{code: 5, err: "Connection error: Connection Refused: not authorised.\n"},
		},
		{
			name: "refused in 5.0", args: []string{"-t", "a", "-m", "x", "-V", "5"}, version: packet.V5,
			steps: []step{accept, want(v5Connect), send(&packet.Connack{ReasonCode: packet.NotAuthorized, Properties: packet.Properties{ReasonString: "no"}})},
			want:  outcome{code: 0x87, err: "Connection error: Not authorized: no\n"},
		},
		{
			name: "a message that is too large for the broker is not sent", args: []string{"-t", "a", "-m", "a long message", "-V", "5"}, version: packet.V5,
			steps: []step{accept, want(v5Connect), send(&packet.Connack{Properties: packet.Properties{MaximumPacketSize: 10}}), want("DISCONNECT")},
			want:  outcome{code: 0x95, err: "Warning: the message is larger than the broker takes (10 bytes): not sent.\n"},
		},
		{
			name: "--quiet says nothing", args: []string{"-t", "a", "-m", "x", "--quiet"}, version: packet.V311,
			steps: []step{accept, want(plainConnect), send(&packet.Connack{ReasonCode: packet.ServerUnavailable})},
			want:  outcome{code: 3},
		},
		{
			name: "--debug shows every packet", args: []string{"-t", "a", "-m", "x", "-q", "1", "-d", "-i", "me"}, version: packet.V311,
			steps: []step{hello(`CONNECT v=3.1.1 id="me" clean=1 keepalive=60`), want(`PUBLISH (d0, q1, r0, m1, 'a', ... (1 bytes)) "x"`),
				send(&packet.Puback{PacketID: 1}), want("DISCONNECT")},
			want: outcome{out: `Client me sending CONNECT
Client me received CONNACK (0)
Client me sending PUBLISH (d0, q1, r0, m1, 'a', ... (1 bytes))
Client me received PUBACK (Mid: 1, RC:0)
Client me sending DISCONNECT
`},
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			port, finish := play(t, tc.version, tc.steps...)
			got := invoke(t, tc.stdin, append([]string{"pub", "-h", "127.0.0.1", "-p", port}, tc.args...)...)
			finish()
			if got != tc.want {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

// What is not acknowledged when the connection is lost is sent again: with DUP in the same session, else as new.
// [MQTT-4.4.0-1] [MQTT-3.3.1-1]
func TestPubGoesOnAfterALostConnection(t *testing.T) {
	const connect = `CONNECT v=3.1.1 id="me" clean=0 keepalive=60`
	port, finish := play(t, packet.V311,
		hello(connect),
		want(`PUBLISH (d0, q2, r0, m1, 'a', ... (1 bytes)) "1"`), want(`PUBLISH (d0, q2, r0, m2, 'a', ... (1 bytes)) "2"`),
		want(`PUBLISH (d0, q2, r0, m3, 'a', ... (1 bytes)) "3"`),
		send(&packet.Pubrec{PacketID: 1}), want("PUBREL (Mid: 1)"), hangUp,
		accept, want(connect), send(&packet.Connack{SessionPresent: true}),
		want("PUBREL (Mid: 1)"), want(`PUBLISH (d1, q2, r0, m2, 'a', ... (1 bytes)) "2"`), want(`PUBLISH (d1, q2, r0, m3, 'a', ... (1 bytes)) "3"`),
		send(&packet.Pubcomp{PacketID: 1}, &packet.Pubrec{PacketID: 2}), want("PUBREL (Mid: 2)"), hangUp,
		hello(connect), // the broker has lost the session: message 2 was taken, message 3 is new
		want(`PUBLISH (d0, q2, r0, m3, 'a', ... (1 bytes)) "3"`),
		send(&packet.Pubrec{PacketID: 3}), want("PUBREL (Mid: 3)"), send(&packet.Pubcomp{PacketID: 3}), want("DISCONNECT"))
	got := invoke(t, "1\n2\n3\n", "pub", "-h", "127.0.0.1", "-p", port, "-i", "me", "-c", "-q", "2", "-t", "a", "-l")
	finish()
	if got.code != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestPubTriesTheOtherHostsOfACluster(t *testing.T) {
	first, finishFirst := play(t, packet.V5, accept, want(`CONNECT v=5.0 id="" clean=1 keepalive=60`),
		send(&packet.Connack{ReasonCode: packet.ServerUnavailable}))
	second, finishSecond := play(t, packet.V5, hello(`CONNECT v=5.0 id="" clean=1 keepalive=60`),
		want(`PUBLISH (d0, q0, r0, m0, 'a', ... (1 bytes)) "x"`), want("DISCONNECT"))
	got := invoke(t, "", "pub", "-V", "5", "-h", "127.0.0.1:"+first+",127.0.0.1:"+second, "-t", "a", "-m", "x")
	finishFirst()
	finishSecond()
	if got != (outcome{}) {
		t.Errorf("got %+v", got)
	}
}

func TestPubFollowsAServerReference(t *testing.T) {
	const connect = `CONNECT v=5.0 id="" clean=1 keepalive=60`
	second, finishSecond := play(t, packet.V5, hello(connect), want(`PUBLISH (d0, q0, r0, m0, 'a', ... (1 bytes)) "x"`), want("DISCONNECT"))
	first, finishFirst := play(t, packet.V5, accept, want(connect), send(&packet.Connack{ReasonCode: packet.UseAnotherServer,
		Properties: packet.Properties{ServerReference: "127.0.0.1:" + second}}))
	got := invoke(t, "", "pub", "-V", "5", "-h", "127.0.0.1", "-p", first, "-t", "a", "-m", "x")
	finishFirst()
	finishSecond()
	if got != (outcome{}) {
		t.Errorf("got %+v", got)
	}
}

func TestWrongCommandLinesOfPubAndSubAreExplained(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"pub"}, "Both topic and message must be supplied."},
		{[]string{"pub", "-t", "a"}, "Both topic and message must be supplied."},
		{[]string{"pub", "-t", "a/#", "-m", "x"}, "Invalid publish topic 'a/#', does it contain '+' or '#'?"},
		{[]string{"pub", "-t", "a", "-z"}, "Unknown option '-z'."},
		{[]string{"pub", "-t", "a", "-m"}, "-m argument given but no value specified."},
		{[]string{"pub", "-t", "a", "-m", "x", "-n"}, "Only one type of message can be sent at once."},
		{[]string{"pub", "-t", "a", "-m", "x", "-q", "3"}, "Invalid QoS given: 3"},
		{[]string{"pub", "-t", "a", "-m", "x", "-p", "0"}, "Invalid port given: 0"},
		{[]string{"pub", "-t", "a", "-m", "x", "-V", "4"}, "Invalid protocol version argument given."},
		{[]string{"pub", "-t", "a", "-m", "x", "-c"}, "You must provide a client id if you are using the -c option."},
		{[]string{"pub", "-t", "a", "-m", "x", "-i", "a", "-I", "b"}, "-i and -I argument cannot be used together."},
		{[]string{"pub", "-t", "a", "-m", "x", "--will-qos", "1"}, "Will parameters (payload, QoS or retain) given, but no will topic given."},
		{[]string{"pub", "-t", "a", "-m", "x", "-D", "PUBLISH", "colour", "red"}, "Invalid property name given in --property argument."},
		{[]string{"pub", "-t", "a", "-m", "x", "-D", "FETCH", "content-type", "x"}, "Invalid command given in --property argument."},
		{[]string{"pub", "-t", "a", "-m", "x", "-D", "CONNECT", "content-type", "x"}, "content-type property not allowed for CONNECT in --property argument."},
		{[]string{"pub", "-t", "a", "-m", "x", "-D", "CONNECT", "receive-maximum", "70000"}, "Property value (70000) out of range for property receive-maximum."},
		{[]string{"pub", "-L", "http://x/a", "-m", "x"}, "Unsupported URL scheme."},
		{[]string{"pub", "-L", "mqtt://x", "-m", "x"}, "Invalid URL for -L argument specified - no host or topic found."},
		{[]string{"sub"}, "You must specify a topic to subscribe to."},
		{[]string{"sub", "-t", "a/#b"}, "Invalid subscription topic 'a/#b', are all '+' and '#' wildcards correct?"},
		{[]string{"sub", "-t", "a", "-T", "+b"}, "Invalid filter topic '+b', are all '+' and '#' wildcards correct?"},
		{[]string{"sub", "-t", "a", "-R", "--retained-only"}, "Combining '-R' and '--retained-only' makes no sense."},
		{[]string{"sub", "-t", "a", "-F", "%z"}, "invalid format specifier 'z'"},
		{[]string{"sub", "-t", "a", "-C", "0"}, "Invalid message count given: 0"},
	} {
		got := invoke(t, "", tc.args...)
		want := outcome{code: 1, err: "Error: " + tc.want + "\n\nUse 'quorate " + tc.args[0] + " --help' to see usage.\n"}
		if got != want {
			t.Errorf("%q:\ngot  %+v\nwant %+v", tc.args, got, want)
		}
	}
}

func TestAURLSetsHostPortUserAndTopic(t *testing.T) {
	o, err := parseClient("pub", []string{"-L", "mqtts://bob:secret@broker.example/a/b", "-m", "x"})
	if err != nil {
		t.Fatal(err)
	}
	if o.addrs()[0] != "broker.example:8883" || *o.username != "bob" || *o.password != "secret" || o.topics[0] != "a/b" || !o.tls.on {
		t.Errorf("got %+v", o)
	}
}

func TestNobodyListeningIsExplained(t *testing.T) {
	port, finish := play(t, packet.V311) // opened and closed: nobody has this port now
	finish()
	got := invoke(t, "", "pub", "-h", "127.0.0.1", "-p", port, "-t", "a", "-m", "x")
	if want := (outcome{code: 1, err: "Error: connect to 127.0.0.1:" + port + ": connection refused\n"}); got != want {
		t.Errorf("got %+v", got)
	}
}
