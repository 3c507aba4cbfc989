package main

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"quorate/protocol/packet"
	"quorate/protocol/topic"
)

// setURL reads mqtt(s)://[username[:password]@]host[:port]/topic.
func (o *clientOptions) setURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return usagef("Invalid URL for -L argument specified - no host or topic found.")
	}
	switch u.Scheme {
	case "mqtt":
	case "mqtts":
		o.tls.on = true
	default:
		return usagef("Unsupported URL scheme.")
	}
	if u.User != nil {
		name := u.User.Username()
		o.username = &name
		if password, ok := u.User.Password(); ok {
			o.password = &password
		}
	}
	o.hosts = []string{u.Hostname()}
	if p := u.Port(); p != "" {
		if err := number(p, 1, 65535, "port", &o.port); err != nil {
			return err
		}
	}
	t := strings.TrimPrefix(u.Path, "/")
	if t == "" {
		return usagef("Invalid URL for -L argument specified - no host or topic found.")
	}
	o.topics = append(o.topics, t)
	return nil
}

// check finds what cannot go together, with mosquitto's texts.
func (o *clientOptions) check() error {
	if o.clientID != "" && o.idPrefix != "" {
		return usagef("-i and -I argument cannot be used together.")
	}
	if o.persistent && o.clientID == "" && o.idPrefix == "" {
		return usagef("You must provide a client id if you are using the -c option.")
	}
	if o.version == packet.V5 && o.persistent && o.expiry == nil {
		never := ^uint32(0)
		o.expiry = &never
	}
	if o.willTopic == "" && o.willFlags {
		return usagef("Will parameters (payload, QoS or retain) given, but no will topic given.")
	}
	if o.willTopic != "" && topic.ValidateName(o.willTopic) != nil {
		return usagef("Invalid will topic '%s', does it contain '+' or '#'?", o.willTopic)
	}
	if o.password != nil && o.username == nil && o.version != packet.V5 {
		return usagef("Not using password since username not set.")
	}
	if (o.tls.certFile == "") != (o.tls.keyFile == "") {
		return usagef("Both certfile and keyfile must be provided if one of them is set.")
	}
	if o.program == "pub" {
		return o.checkPub()
	}
	return o.checkSub()
}

func (o *clientOptions) checkPub() error {
	if len(o.topics) != 1 || o.pub.source == "" {
		return usagef("Both topic and message must be supplied.")
	}
	if topic.ValidateName(o.topics[0]) != nil {
		return usagef("Invalid publish topic '%s', does it contain '+' or '#'?", o.topics[0])
	}
	if o.pub.source == "lines" && o.pub.repeat > 1 {
		return usagef("--repeat cannot be used together with -l.")
	}
	return nil
}

func (o *clientOptions) checkSub() error {
	s := &o.sub
	if len(o.topics) == 0 && len(s.unsubscribe) == 0 {
		return usagef("You must specify a topic to subscribe to.")
	}
	for _, list := range []struct {
		what    string
		filters []string
	}{{"subscription", o.topics}, {"filter", s.filterOut}, {"unsubscription", s.unsubscribe}} {
		for _, f := range list.filters {
			if topic.ValidateFilter(f) != nil {
				return usagef("Invalid %s topic '%s', are all '+' and '#' wildcards correct?", list.what, f)
			}
		}
	}
	if s.noRetained && s.retainedOnly {
		return usagef("Combining '-R' and '--retained-only' makes no sense.")
	}
	return nil
}

// addrs are the addresses to dial, in turn.
func (o *clientOptions) addrs() []string {
	port := o.port
	switch {
	case port != 0:
	case o.tls.on:
		port = 8883
	default:
		port = 1883
	}
	if len(o.hosts) == 0 {
		return []string{net.JoinHostPort("localhost", strconv.Itoa(port))}
	}
	var all []string
	for _, h := range o.hosts {
		if _, _, err := net.SplitHostPort(h); err != nil {
			h = net.JoinHostPort(strings.Trim(h, "[]"), strconv.Itoa(port))
		}
		all = append(all, h)
	}
	return all
}
