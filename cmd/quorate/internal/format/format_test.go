package format

import (
	"testing"
	"time"
)

func ptr[T any](v T) *T { return &v }

func message() *Message {
	return &Message{
		Time: time.Date(2026, 11, 22, 20, 20, 52, 867474012, time.FixedZone("CET", 3600)), Topic: "a/b", Payload: []byte(`{"t": 21.5}`),
		QoS: 1, Retain: true, PacketID: 7, ExpirySeconds: ptr(uint32(77)), ContentType: ptr("json"), ResponseTopic: ptr("rr"),
		Correlation: []byte("cc"), UserProperties: []UserProperty{{"k", "v"}, {"k", "<w>"}}, PayloadFormat: ptr(byte(1)),
		SubscriptionIDs: []uint32{5},
	}
}

func TestFormatsAreThoseOfMosquittoSub(t *testing.T) {
	for _, tc := range []struct{ format, want string }{
		{"", ""},
		{"plain", "plain"},
		{"%t %p", `a/b {"t": 21.5}`},
		{"%10t|%-10t|%.2t|%-4.1t|", "       a/b|a/b       |a/|a   |"},
		{"%l %05l %m %q %r %%", "11 00011 7 1 1 %"},
		{"%A|%C|%D|%E|%F|%P|%R|%S", "|json|cc|77|1|k:v k:<w>|rr|5"},
		{"%I %U", "2026-11-22T20:20:52+0100 1795375252.867474012"},
		{"@Y-@m-@d @H:@M:@S.@N @@ @j @s @u @w @V @U @W @k @l @p @Q", "2026-11-22 20:20:52.867474012 @ 326 1795375252 7 0 47 47 46 20  8 PM %Q"},
		{`\\\0\a\e\n\r\t\v`, "\\\x00\a\x1b\n\r\t\v"},
		{"%x %X", "7b2274223a2032312e357d 7B2274223A2032312E357D"},
		{"%j", `{"tst":"2026-11-22T20:20:52.867474Z+0100","topic":"a/b","qos":1,"retain":1,"payloadlen":11,"mid":7,` +
			`"properties":{"user-properties":{"k":"v","k":"<w>"},"content-type":"json","response-topic":"rr","correlation-data":"cc",` +
			`"message-expiry-interval":77,"payload-format-indicator":1,"subscription-identifier":5},"payload":"{\"t\": 21.5}"}`},
	} {
		f, err := Parse(tc.format, false)
		if err != nil {
			t.Errorf("%q: %v", tc.format, err)
			continue
		}
		got, err := f.Append(nil, message())
		if err != nil || string(got) != tc.want {
			t.Errorf("%q:\n got %q, %v\nwant %q", tc.format, got, err, tc.want)
		}
	}
}

func TestJSONOfAPlainMessageHasNoProperties(t *testing.T) {
	m := &Message{Time: time.Unix(0, 0).UTC(), Topic: "a", Payload: []byte("1")}
	f, _ := Parse("%J", false)
	got, err := f.Append([]byte("x"), m)
	if want := `x{"tst":"1970-01-01T00:00:00.000000Z+0000","topic":"a","qos":0,"retain":0,"payloadlen":1,"payload":1}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
	m.Payload = []byte("no json")
	if got, err := f.Append([]byte("x"), m); err == nil || string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestPrettyJSONIsIndented(t *testing.T) {
	f, _ := Parse("%J", true)
	got, err := f.Append(nil, &Message{Time: time.Unix(0, 0).UTC(), Topic: "a"})
	want := "{\n\t\"tst\": \"1970-01-01T00:00:00.000000Z+0000\",\n\t\"topic\": \"a\",\n\t\"qos\": 0,\n\t\"retain\": 0,\n\t\"payloadlen\": 0,\n\t\"payload\": null\n}"
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestBadFormatsAreFoundBeforeTheFirstMessage(t *testing.T) {
	for format, want := range map[string]string{
		"%":   `incomplete format specifier at the end of "%"`,
		"%-5": `incomplete format specifier at the end of "%-5"`,
		"%5.": `incomplete format specifier at the end of "%5."`,
		"a@":  `incomplete format specifier at the end of "a@"`,
		`a\`:  `incomplete format specifier at the end of "a\\"`,
		"%z":  `invalid format specifier 'z'`,
		`\q`:  `invalid escape specifier 'q'`,
	} {
		if _, err := Parse(format, false); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", format, err, want)
		}
	}
}
