package main

import (
	"slices"
	"strconv"

	"quorate/protocol/packet"
)

// property is one -D COMMAND NAME VALUE; user properties have a key too.
type property struct {
	command, name, key, value string
}

// propertyArgs is how many arguments -D takes: one more for a user property.
func propertyArgs(args []string) int {
	if len(args) > 1 && args[1] == "user-property" {
		return 4
	}
	return 3
}

// Which packets each property may be given for.
var propertyCommands = map[string][]string{
	"authentication-data":          {"connect"},
	"authentication-method":        {"connect"},
	"content-type":                 {"publish", "will"},
	"correlation-data":             {"publish", "will"},
	"maximum-packet-size":          {"connect"},
	"message-expiry-interval":      {"publish", "will"},
	"payload-format-indicator":     {"publish", "will"},
	"receive-maximum":              {"connect"},
	"request-problem-information":  {"connect"},
	"request-response-information": {"connect"},
	"response-topic":               {"publish", "will"},
	"session-expiry-interval":      {"connect", "disconnect"},
	"subscription-identifier":      {"subscribe"},
	"topic-alias":                  {"publish"},
	"topic-alias-maximum":          {"connect"},
	"will-delay-interval":          {"will"},
	"user-property":                {"connect", "publish", "subscribe", "unsubscribe", "disconnect", "will", "puback", "pubrec", "pubrel", "pubcomp"},
}

// Properties whose value is a number, and its bits.
var propertyBits = map[string]int{
	"maximum-packet-size": 32, "message-expiry-interval": 32, "payload-format-indicator": 8, "receive-maximum": 16,
	"request-problem-information": 8, "request-response-information": 8, "session-expiry-interval": 32,
	"subscription-identifier": 28, "topic-alias": 16, "topic-alias-maximum": 16, "will-delay-interval": 32,
}

var propertyPackets = []string{"connect", "publish", "subscribe", "unsubscribe", "disconnect", "will", "puback", "pubrec", "pubrel", "pubcomp", "auth"}

// addProperty checks and keeps one -D.
func (o *clientOptions) addProperty(v []string) error {
	p := property{command: lower(v[0]), name: v[1], value: v[len(v)-1]}
	if len(v) == 4 {
		p.key = v[2]
	}
	commands, known := propertyCommands[p.name]
	switch {
	case !slices.Contains(propertyPackets, p.command):
		return usagef("Invalid command given in --property argument.")
	case !known:
		return usagef("Invalid property name given in --property argument.")
	case !slices.Contains(commands, p.command):
		return usagef("%s property not allowed for %s in --property argument.", p.name, v[0])
	}
	if bits, ok := propertyBits[p.name]; ok {
		if _, err := strconv.ParseUint(p.value, 10, bits); err != nil {
			return usagef("Property value (%s) out of range for property %s.", p.value, p.name)
		}
	}
	o.properties = append(o.properties, p)
	o.version = packet.V5
	return nil
}

func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// number is the value of a property that addProperty has checked.
func (p property) number() uint64 {
	n, err := strconv.ParseUint(p.value, 10, 32)
	if err != nil {
		panic("quorate: property " + p.name + " was not checked: " + p.value)
	}
	return n
}

// forCommand gives every property of one command to f.
func (o *clientOptions) forCommand(command string, f func(p property)) {
	for _, p := range o.properties {
		if p.command == command {
			f(p)
		}
	}
}

// connect is the CONNECT of these options.
func (o *clientOptions) connect(clientID string) *packet.Connect {
	c := &packet.Connect{Version: o.version, CleanStart: !o.persistent, KeepAlive: uint16(o.keepAlive), ClientID: clientID}
	if o.username != nil {
		c.HasUsername, c.Username = true, *o.username
	}
	if o.password != nil {
		c.HasPassword, c.Password = true, []byte(*o.password)
	}
	if o.expiry != nil {
		c.Properties.HasSessionExpiry, c.Properties.SessionExpirySeconds = true, *o.expiry
	}
	o.forCommand("connect", func(p property) {
		q := &c.Properties
		switch p.name {
		case "authentication-data":
			q.AuthenticationData = []byte(p.value)
		case "authentication-method":
			q.AuthenticationMethod = p.value
		case "maximum-packet-size":
			q.MaximumPacketSize = uint32(p.number())
		case "receive-maximum":
			q.ReceiveMaximum = uint16(p.number())
		case "request-problem-information":
			q.NoProblemInformation = p.number() == 0
		case "request-response-information":
			q.RequestResponseInformation = p.number() != 0
		case "session-expiry-interval":
			q.HasSessionExpiry, q.SessionExpirySeconds = true, uint32(p.number())
		case "topic-alias-maximum":
			q.TopicAliasMaximum = uint16(p.number())
		case "user-property":
			q.UserProperties = append(q.UserProperties, packet.UserProperty{Name: p.key, Value: p.value})
		}
	})
	if o.willTopic != "" {
		c.Will = o.will()
	}
	return c
}

func (o *clientOptions) will() *packet.Will {
	w := &packet.Will{Topic: o.willTopic, Payload: o.willPayload, QoS: o.willQoS, Retain: o.willRetain}
	m := o.message("will")
	w.HasExpiry, w.ExpirySeconds, w.Forwarded = m.HasExpiry, m.ExpirySeconds, m.Forwarded
	o.forCommand("will", func(p property) {
		if p.name == "will-delay-interval" {
			w.DelaySeconds = uint32(p.number())
		}
	})
	return w
}

// message is a PUBLISH with the properties of command ("publish" or "will") and nothing else.
func (o *clientOptions) message(command string) packet.Publish {
	var m packet.Publish
	var f packet.Forwarded
	o.forCommand(command, func(p property) {
		switch p.name {
		case "content-type":
			f.ContentType = p.value
		case "correlation-data":
			f.CorrelationData = []byte(p.value)
		case "response-topic":
			f.ResponseTopic = p.value
		case "payload-format-indicator":
			f.PayloadIsUTF8 = p.number() == 1
		case "message-expiry-interval":
			m.HasExpiry, m.ExpirySeconds = true, uint32(p.number())
		case "topic-alias":
			m.TopicAlias = uint16(p.number())
		case "user-property":
			f.UserProperties = append(f.UserProperties, packet.UserProperty{Name: p.key, Value: p.value})
		}
	})
	m.Forwarded = packet.AppendForwarded(nil, &f)
	return m
}

// userProperties are the User Properties of one command.
func (o *clientOptions) userProperties(command string) []packet.UserProperty {
	var all []packet.UserProperty
	o.forCommand(command, func(p property) {
		if p.name == "user-property" {
			all = append(all, packet.UserProperty{Name: p.key, Value: p.value})
		}
	})
	return all
}

// disconnect is the DISCONNECT of these options.
func (o *clientOptions) disconnect() *packet.Disconnect {
	d := &packet.Disconnect{}
	d.Properties.UserProperties = o.userProperties("disconnect")
	o.forCommand("disconnect", func(p property) {
		if p.name == "session-expiry-interval" {
			d.Properties.HasSessionExpiry, d.Properties.SessionExpirySeconds = true, uint32(p.number())
		}
	})
	return d
}
