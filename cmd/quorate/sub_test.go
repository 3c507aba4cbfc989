package main

import (
	"testing"

	"quorate/protocol/packet"
)

func publish(id uint16, qos byte, topic, payload string) *packet.Publish {
	return &packet.Publish{PacketID: id, QoS: qos, Topic: topic, Payload: []byte(payload)}
}

func TestSubSpeaksAsMosquittoSub(t *testing.T) {
	sub0, sub1, sub2 := "SUBSCRIBE (Mid: 1, Topic: a, QoS: 0, Options: 0x00)", "SUBSCRIBE (Mid: 1, Topic: a, QoS: 1, Options: 0x00)",
		"SUBSCRIBE (Mid: 1, Topic: a, QoS: 2, Options: 0x00)"
	granted := func(codes ...packet.ReasonCode) packet.Packet { return &packet.Suback{PacketID: 1, ReasonCodes: codes} }
	v5Connect := `CONNECT v=5.0 id="" clean=1 keepalive=60`
	cases := []struct {
		name    string
		args    []string
		version packet.Version
		steps   []step
		want    outcome
	}{
		{
			name: "payloads", args: []string{"-t", "a", "-C", "2"}, version: packet.V311,
			steps: []step{hello(plainConnect), want(sub0), send(granted(0), publish(0, 0, "a", "one"), publish(0, 0, "a", "two"), publish(0, 0, "a", "three")), want("DISCONNECT")},
			want:  outcome{out: "one\ntwo\n"},
		},
		{
			name: "verbose, with an empty message", args: []string{"-t", "a", "-C", "2", "-v"}, version: packet.V311,
			steps: []step{hello(plainConnect), want(sub0), send(granted(0), publish(0, 0, "a", "one"), publish(0, 0, "a", "")), want("DISCONNECT")},
			want:  outcome{out: "a one\na (null)\n"},
		},
		{
			name: "an empty message alone prints nothing", args: []string{"-t", "a", "-C", "2", "-N"}, version: packet.V311,
			steps: []step{hello(plainConnect), want(sub0), send(granted(0), publish(0, 0, "a", ""), publish(0, 0, "a", "x")), want("DISCONNECT")},
			want:  outcome{out: "x"},
		},
		{
			name: "QoS 1: nothing beyond -C is acknowledged", args: []string{"-t", "a", "-C", "1", "-q", "1"}, version: packet.V311,
			steps: []step{hello(plainConnect), want(sub1), send(granted(1), publish(7, 1, "a", "one"), publish(8, 1, "a", "two")), want("PUBACK (Mid: 7, RC:0)"), want("DISCONNECT"), wantEnd},
			want:  outcome{out: "one\n"},
		},
		{
			name: "QoS 2: the exchange is finished, and a repeated message printed once", args: []string{"-t", "a", "-C", "1", "-q", "2"}, version: packet.V311,
			steps: []step{hello(plainConnect), want(sub2), send(granted(2), publish(7, 2, "a", "one"), &packet.Publish{PacketID: 7, QoS: 2, Dup: true, Topic: "a", Payload: []byte("one")}, publish(8, 2, "a", "two")),
				want("PUBREC (Mid: 7, RC:0)"), want("PUBREC (Mid: 7, RC:0)"), send(&packet.Pubrel{PacketID: 7}), want("PUBCOMP (Mid: 7, RC:0)"), want("DISCONNECT")},
			want: outcome{out: "one\n"},
		},
		{
			name: "several filters and an unsubscription", args: []string{"-t", "a", "-t", "b", "-U", "c", "-E"}, version: packet.V311,
			steps: []step{hello(plainConnect), want(sub0 + "\nSUBSCRIBE (Mid: 1, Topic: b, QoS: 0, Options: 0x00)"), want("UNSUBSCRIBE (Mid: 2, Topic: c)"),
				send(granted(0, 0), &packet.Unsuback{PacketID: 2}), want("DISCONNECT")},
		},
		{
			name: "no retained messages", args: []string{"-t", "a", "-R", "-C", "1", "-V", "5"}, version: packet.V5,
			steps: []step{hello(v5Connect), want("SUBSCRIBE (Mid: 1, Topic: a, QoS: 0, Options: 0x20)"),
				send(granted(0), &packet.Publish{Topic: "a", Retain: true, Payload: []byte("old")}, publish(0, 0, "a", "new")), want("DISCONNECT")},
			want: outcome{out: "new\n"},
		},
		{
			name: "retained messages only", args: []string{"-t", "a", "--retained-only"}, version: packet.V311,
			steps: []step{hello(plainConnect), want(sub0), send(granted(0), &packet.Publish{Topic: "a", Retain: true, Payload: []byte("old")}, publish(0, 0, "a", "new")), want("DISCONNECT")},
			want:  outcome{out: "old\n"},
		},
		{
			name: "retained messages are removed", args: []string{"-t", "a", "--remove-retained", "-C", "1"}, version: packet.V311,
			steps: []step{hello(plainConnect), want(sub0), send(granted(0), &packet.Publish{Topic: "a/b", Retain: true, Payload: []byte("old")}),
				want(`PUBLISH (d0, q0, r1, m0, 'a/b', ... (0 bytes)) ""`), want("DISCONNECT")},
			want: outcome{out: "old\n"},
		},
		{
			name: "topics filtered out", args: []string{"-t", "a", "-T", "a/+", "-C", "1", "-v"}, version: packet.V311,
			steps: []step{hello(plainConnect), want(sub0), send(granted(0), publish(0, 0, "a/b", "no"), publish(0, 0, "a", "yes")), want("DISCONNECT")},
			want:  outcome{out: "a yes\n"},
		},
		{
			name: "format, with a Subscription Identifier", args: []string{"-t", "a", "-C", "1", "-F", "%t|%q|%S|%C", "-D", "SUBSCRIBE", "subscription-identifier", "5"}, version: packet.V5,
			steps: []step{hello(v5Connect), want(sub0 + " id=5"), send(granted(0), &packet.Publish{Topic: "a", SubscriptionIDs: []uint32{5},
				Forwarded: packet.AppendForwarded(nil, &packet.Forwarded{ContentType: "json"})}), want("DISCONNECT")},
			want: outcome{out: "a|0|5|json\n"},
		},
		{
			name: "all subscriptions denied", args: []string{"-t", "a"}, version: packet.V5 - 1,
			steps: []step{hello(plainConnect), want(sub0), send(granted(packet.UnspecifiedError))},
			want:  outcome{code: 1, err: "Subscription to a denied: Unspecified error\nError: all subscription requests were denied\n"},
		},
		{
			name: "refused", args: []string{"-t", "a"}, version: packet.V311,
			steps: []step{accept, want(plainConnect), send(&packet.Connack{ReasonCode: packet.BadUserNameOrPassword})},
			want:  outcome{code: 4, err: "Connection error: Connection Refused: bad user name or password.\n"},
		},
		{
			name: "time over", args: []string{"-t", "a", "-W", "0.2"}, version: packet.V311,
			steps: []step{hello(plainConnect), want(sub0), send(granted(0)), want("DISCONNECT")},
			want:  outcome{code: 27, err: "Timed out\n"},
		},
		{
			name: "taken over by another connection of the client", args: []string{"-t", "a", "-V", "5"}, version: packet.V5,
			steps: []step{hello(v5Connect), want(sub0), send(granted(0), publish(0, 0, "a", "x"), &packet.Disconnect{ReasonCode: packet.SessionTakenOver})},
			want:  outcome{code: 0x8E, out: "x\n", err: "Error: the broker disconnected: Session taken over\n"},
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			port, finish := play(t, tc.version, tc.steps...)
			got := invoke(t, "", append([]string{"sub", "-h", "127.0.0.1", "-p", port}, tc.args...)...)
			finish()
			if got != tc.want {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestSubConnectsAgainAndSubscribesAgain(t *testing.T) {
	port, finish := play(t, packet.V311,
		hello(plainConnect), want("SUBSCRIBE (Mid: 1, Topic: a, QoS: 0, Options: 0x00)"),
		send(&packet.Suback{PacketID: 1, ReasonCodes: []packet.ReasonCode{0}}, publish(0, 0, "a", "one")), hangUp,
		hello(plainConnect), want("SUBSCRIBE (Mid: 2, Topic: a, QoS: 0, Options: 0x00)"),
		send(&packet.Suback{PacketID: 2, ReasonCodes: []packet.ReasonCode{0}}, publish(0, 0, "a", "two")), want("DISCONNECT"))
	got := invoke(t, "", "sub", "-h", "127.0.0.1", "-p", port, "-t", "a", "-C", "2")
	finish()
	if got.code != 0 || got.out != "one\ntwo\n" {
		t.Errorf("got %+v", got)
	}
}

// The message of a QoS 2 exchange that a lost connection interrupted is printed once. [MQTT-4.3.3-10]
func TestSubPrintsAQoS2MessageOnceAcrossConnections(t *testing.T) {
	const connect = `CONNECT v=3.1.1 id="me" clean=0 keepalive=60`
	port, finish := play(t, packet.V311,
		hello(connect), want("SUBSCRIBE (Mid: 1, Topic: a, QoS: 2, Options: 0x00)"),
		send(&packet.Suback{PacketID: 1, ReasonCodes: []packet.ReasonCode{2}}, publish(7, 2, "a", "one")), want("PUBREC (Mid: 7, RC:0)"), hangUp,
		accept, want(connect), send(&packet.Connack{SessionPresent: true}), want("SUBSCRIBE (Mid: 2, Topic: a, QoS: 2, Options: 0x00)"),
		send(&packet.Publish{PacketID: 7, QoS: 2, Dup: true, Topic: "a", Payload: []byte("one")}), want("PUBREC (Mid: 7, RC:0)"),
		send(&packet.Pubrel{PacketID: 7}), want("PUBCOMP (Mid: 7, RC:0)"),
		send(publish(8, 2, "a", "two")), want("PUBREC (Mid: 8, RC:0)"), send(&packet.Pubrel{PacketID: 8}), want("PUBCOMP (Mid: 8, RC:0)"), want("DISCONNECT"))
	got := invoke(t, "", "sub", "-h", "127.0.0.1", "-p", port, "-i", "me", "-c", "-q", "2", "-t", "a", "-C", "2")
	finish()
	if got.code != 0 || got.out != "one\ntwo\n" {
		t.Errorf("got %+v", got)
	}
}
