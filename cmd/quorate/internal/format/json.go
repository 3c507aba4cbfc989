package format

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// appendJSON appends the message as one JSON object, with the payload as a string, or as it is when raw.
func appendJSON(dst []byte, m *Message, raw, pretty bool) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"tst":"%s","topic":%s,"qos":%d,"retain":%d,"payloadlen":%d`,
		m.Time.Format("2006-01-02T15:04:05.000000Z-0700"), quote(m.Topic), m.QoS, b2i(m.Retain), len(m.Payload))
	if m.QoS > 0 {
		fmt.Fprintf(&b, `,"mid":%d`, m.PacketID)
	}
	if p := m.jsonProperties(); p != "" {
		b.WriteString(`,"properties":{` + p + "}")
	}
	switch {
	case !raw:
		b.WriteString(`,"payload":` + quote(string(m.Payload)) + "}")
	case len(m.Payload) == 0:
		b.WriteString(`,"payload":null}`)
	case !json.Valid(m.Payload):
		return nil, fmt.Errorf("message payload is not valid JSON on topic %s", m.Topic)
	default:
		b.WriteString(`,"payload":` + string(m.Payload) + "}")
	}
	if pretty {
		var indented bytes.Buffer
		if err := json.Indent(&indented, b.Bytes(), "", "\t"); err != nil {
			return nil, fmt.Errorf("indent: %w", err)
		}
		return append(dst, indented.Bytes()...), nil
	}
	return append(dst, b.Bytes()...), nil
}

// jsonProperties is the inside of the properties object, "" when there are none.
func (m *Message) jsonProperties() string {
	var b bytes.Buffer
	add := func(name, value string) {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quote(name) + ":" + value)
	}
	if len(m.UserProperties) > 0 {
		var users bytes.Buffer
		for i, p := range m.UserProperties {
			if i > 0 {
				users.WriteByte(',')
			}
			users.WriteString(quote(p.Name) + ":" + quote(p.Value))
		}
		add("user-properties", "{"+users.String()+"}")
	}
	if m.ContentType != nil {
		add("content-type", quote(*m.ContentType))
	}
	if m.ResponseTopic != nil {
		add("response-topic", quote(*m.ResponseTopic))
	}
	if m.Correlation != nil {
		add("correlation-data", quote(string(m.Correlation)))
	}
	if m.ExpirySeconds != nil {
		add("message-expiry-interval", string(number(m.ExpirySeconds)))
	}
	if m.PayloadFormat != nil {
		add("payload-format-indicator", string(number(m.PayloadFormat)))
	}
	if m.TopicAlias != nil {
		add("topic-alias", string(number(m.TopicAlias)))
	}
	if len(m.SubscriptionIDs) > 0 {
		add("subscription-identifier", string(number(&m.SubscriptionIDs[0])))
	}
	return b.String()
}

// quote is s as a JSON string. Bytes that are no UTF-8 become U+FFFD.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	// A string can always be encoded.
	_ = e.Encode(s)
	return string(bytes.TrimRight(b.Bytes(), "\n"))
}
