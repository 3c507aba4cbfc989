// Package format writes received messages as people ask for them with -v and -F: the format language of mosquitto_sub,
// with %-sequences for the message, @-sequences for the time (strftime) and \-sequences for characters.
package format

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// UserProperty is one User Property.
type UserProperty struct{ Name, Value string }

// Message is a received message. Pointers are nil, and slices empty, where the property is absent.
type Message struct {
	Time     time.Time
	Topic    string
	Payload  []byte
	QoS      byte
	Retain   bool
	PacketID uint16

	TopicAlias      *uint16
	PayloadFormat   *byte
	ExpirySeconds   *uint32
	ContentType     *string
	ResponseTopic   *string
	Correlation     []byte
	UserProperties  []UserProperty
	SubscriptionIDs []uint32
}

// Format is a checked format string.
type Format struct {
	text   string
	pretty bool
}

// Parse checks a format string. pretty indents JSON.
func Parse(text string, pretty bool) (*Format, error) {
	f := &Format{text: text, pretty: pretty}
	// A message without anything goes through every sequence, so that an unknown one is found now and not at the first
	// message.
	if _, err := f.append(nil, &Message{Time: time.Unix(0, 0), Payload: []byte("0")}); err != nil {
		return nil, err
	}
	return f, nil
}

// Append appends the message in this format, without an end of line. The error says that the payload is not JSON, for
// %J; then nothing was appended.
func (f *Format) Append(dst []byte, m *Message) ([]byte, error) {
	out, err := f.append(dst, m)
	if err != nil {
		return dst, err
	}
	return out, nil
}

func (f *Format) append(dst []byte, m *Message) ([]byte, error) {
	s := f.text
	for s != "" {
		i := strings.IndexAny(s, `%@\`)
		if i < 0 {
			return append(dst, s...), nil
		}
		dst = append(dst, s[:i]...)
		rest := s[i+1:]
		if rest == "" {
			return nil, fmt.Errorf("incomplete format specifier at the end of %q", f.text)
		}
		var used int
		var err error
		switch s[i] {
		case '%':
			dst, used, err = f.parameter(dst, rest, m)
		case '@':
			dst, used = appendTime(dst, rest[0], m.Time), 1
		case '\\':
			dst, used, err = appendEscape(dst, rest[0])
		}
		if err != nil {
			return nil, err
		}
		s = rest[used:]
	}
	return dst, nil
}

// field is the flags, width and maximum of one %-sequence.
type field struct {
	left, zero     bool
	width, longest int // longest < 0: no maximum
}

// parameter appends what the %-sequence at the start of s stands for, and says how long the sequence is.
func (f *Format) parameter(dst []byte, s string, m *Message) ([]byte, int, error) {
	var fl field
	fl.longest = -1
	i := 0
	for ; i < len(s) && (s[i] == '-' || s[i] == '0'); i++ {
		fl.left = fl.left || s[i] == '-'
		fl.zero = fl.zero || s[i] == '0'
	}
	i, fl.width = digits(s, i, 0)
	if i < len(s) && s[i] == '.' {
		i, fl.longest = digits(s, i+1, -1)
	}
	if i == len(s) {
		return nil, 0, fmt.Errorf("incomplete format specifier at the end of %q", f.text)
	}
	if s[i] == 'j' || s[i] == 'J' {
		out, err := appendJSON(dst, m, s[i] == 'J', f.pretty)
		return out, i + 1, err
	}
	value, numeric, ok := m.value(s[i])
	if !ok {
		return nil, 0, fmt.Errorf("invalid format specifier '%c'", s[i])
	}
	return fl.append(dst, value, numeric), i + 1, nil
}

// digits reads a number of at most four digits.
func digits(s string, i, absent int) (end, n int) {
	start := i
	for i < len(s) && i-start < 4 && s[i] >= '0' && s[i] <= '9' {
		n = n*10 + int(s[i]-'0')
		i++
	}
	if i == start {
		return i, absent
	}
	return i, n
}

func (f field) append(dst, value []byte, numeric bool) []byte {
	if f.longest >= 0 && !numeric && len(value) > f.longest {
		value = value[:f.longest]
	}
	pad := max(0, f.width-len(value))
	switch {
	case f.left:
		return append(append(dst, value...), bytes.Repeat([]byte{' '}, pad)...)
	case f.zero && numeric:
		return append(append(dst, bytes.Repeat([]byte{'0'}, pad)...), value...)
	}
	return append(append(dst, bytes.Repeat([]byte{' '}, pad)...), value...)
}

// value is what one letter stands for; ok is false for unknown letters.
func (m *Message) value(letter byte) (value []byte, numeric, ok bool) {
	switch letter {
	case '%':
		return []byte{'%'}, false, true
	case 'A':
		return number(m.TopicAlias), true, true
	case 'C':
		return text(m.ContentType), false, true
	case 'D':
		return m.Correlation, false, true
	case 'E':
		return number(m.ExpirySeconds), true, true
	case 'F':
		return number(m.PayloadFormat), true, true
	case 'I':
		return []byte(m.Time.Format("2006-01-02T15:04:05-0700")), false, true
	case 'l':
		return strconv.AppendInt(nil, int64(len(m.Payload)), 10), true, true
	case 'm':
		return strconv.AppendInt(nil, int64(m.PacketID), 10), true, true
	case 'P':
		return m.userProperties(), false, true
	case 'p':
		return m.Payload, false, true
	case 'q':
		return []byte{'0' + m.QoS}, true, true
	case 'R':
		return text(m.ResponseTopic), false, true
	case 'r':
		return []byte{'0' + b2i(m.Retain)}, true, true
	case 'S':
		return m.subscriptionIDs(), true, true
	case 't':
		return []byte(m.Topic), false, true
	case 'U':
		return fmt.Appendf(nil, "%d.%09d", m.Time.Unix(), m.Time.Nanosecond()), false, true
	case 'x':
		return fmt.Appendf(nil, "%x", m.Payload), false, true
	case 'X':
		return fmt.Appendf(nil, "%X", m.Payload), false, true
	}
	return nil, false, false
}

func (m *Message) userProperties() []byte {
	var b []byte
	for i, p := range m.UserProperties {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(append(append(b, p.Name...), ':'), p.Value...)
	}
	return b
}

func (m *Message) subscriptionIDs() []byte {
	var b []byte
	for i, id := range m.SubscriptionIDs {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendUint(b, uint64(id), 10)
	}
	return b
}

func number[T byte | uint16 | uint32](v *T) []byte {
	if v == nil {
		return nil
	}
	return strconv.AppendUint(nil, uint64(*v), 10)
}

func text(v *string) []byte {
	if v == nil {
		return nil
	}
	return []byte(*v)
}

func b2i(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func appendEscape(dst []byte, c byte) ([]byte, int, error) {
	const letters, meanings = `\0aenrtv`, "\\\x00\a\x1b\n\r\t\v"
	i := strings.IndexByte(letters, c)
	if i < 0 {
		return nil, 0, fmt.Errorf("invalid escape specifier '%c'", c)
	}
	return append(dst, meanings[i]), 1, nil
}
