package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"quorate/cmd/quorate/internal/client"
	"quorate/protocol/packet"
)

// Exit codes that pub and sub have in common with mosquitto's.
const (
	exitTimeout = 27 // MOSQ_ERR_TIMEOUT
)

const (
	dialTimeout    = 10 * time.Second
	reconnectPause = time.Second
)

// mqttClient is what pub and sub share: options, connecting, messages to people.
type mqttClient struct {
	con    console
	opt    *clientOptions
	dialer *client.Dialer
	idle   func() error

	mu sync.Mutex // --debug is told of packets on two goroutines: guards con.out and id
	id string     // the Client Identifier, the assigned one once known
}

// newMQTTClient checks what only the file system knows.
func newMQTTClient(con console, opt *clientOptions) (*mqttClient, error) {
	m := &mqttClient{con: con, opt: opt, id: opt.clientID}
	if opt.idPrefix != "" {
		m.id = opt.idPrefix + strconv.Itoa(os.Getpid())
	}
	if m.id == "" && opt.version == packet.V31 {
		m.id = "mosq-" + rand.Text()[:18] // 3.1 knows no empty Client Identifier, and at most 23 characters
	}
	dial, err := opt.dialFunc()
	if err != nil {
		return nil, err
	}
	addrs := opt.addrs()
	if opt.unix != "" {
		addrs = []string{opt.unix}
	}
	m.dialer = &client.Dialer{Addrs: addrs, Dial: dial, Timeout: dialTimeout}
	return m, nil
}

// dialFunc opens connections as the options say: TCP, TLS over it, or a Unix socket.
func (o *clientOptions) dialFunc() (func(context.Context, string) (net.Conn, error), error) {
	d := &net.Dialer{}
	if o.unix != "" {
		return func(ctx context.Context, path string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) }, nil
	}
	if o.bind != "" {
		ip := net.ParseIP(o.bind)
		if ip == nil {
			return nil, usagef("Invalid bind address given: %s", o.bind)
		}
		d.LocalAddr = &net.TCPAddr{IP: ip}
	}
	if !o.tls.on {
		return func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }, nil
	}
	cfg, err := o.tls.config()
	if err != nil {
		return nil, err
	}
	secure := &tls.Dialer{NetDialer: d, Config: cfg}
	return func(ctx context.Context, addr string) (net.Conn, error) { return secure.DialContext(ctx, "tcp", addr) }, nil
}

func (t *tlsOptions) config() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.insecure {
		cfg.InsecureSkipVerify = true // what --insecure asks for
	}
	if t.caFile != "" {
		pem, err := os.ReadFile(t.caFile)
		if err != nil {
			return nil, fmt.Errorf("read CA certificates: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA certificates: %s has none", t.caFile)
		}
	}
	if t.certFile != "" {
		cert, err := tls.LoadX509KeyPair(t.certFile, t.keyFile)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, nil
}

// connect connects to the next broker that takes the client.
func (m *mqttClient) connect(ctx context.Context) (*client.Conn, error) {
	opt := client.Options{Connect: m.opt.connect(m.id), Timeout: dialTimeout, Idle: m.idle}
	if m.opt.debug {
		opt.Trace = m.trace
	}
	c, err := m.dialer.Connect(ctx, opt)
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.id = c.ClientID
	}
	return c, err
}

// reconnect connects again, pausing between attempts, until it succeeds, ctx ends or the broker refuses for good.
func (m *mqttClient) reconnect(ctx context.Context, lost error) (*client.Conn, error) {
	var gone *client.DisconnectedError
	if errors.As(lost, &gone) {
		m.dialer.Refer(gone.ServerReference)
	}
	m.complain("Connection lost: %s. Connecting again.", plain(lost))
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(reconnectPause):
		}
		c, err := m.connect(ctx)
		var refused *client.RefusedError
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.As(err, &refused) && forGood(refused.Reason):
			return nil, err
		}
	}
}

// forGood reports whether a broker that disconnects or refuses with this reason would do so again.
func forGood(reason packet.ReasonCode) bool {
	switch reason {
	case packet.UnspecifiedError, packet.ImplementationSpecificError, packet.ServerUnavailable, packet.ServerBusy,
		packet.ServerShuttingDown, packet.KeepAliveTimeout, packet.UseAnotherServer, packet.ServerMoved, packet.ConnectionRateExceeded,
		packet.MaximumConnectTime, packet.MessageRateTooHigh, packet.QuotaExceeded, packet.NormalDisconnection:
		return false
	}
	return true
}

// complain writes to standard error, unless --quiet.
func (m *mqttClient) complain(format string, args ...any) {
	if !m.opt.quiet {
		fmt.Fprintf(m.con.err, format+"\n", args...)
	}
}

// fail reports why a client ends and returns its exit code.
func (m *mqttClient) fail(err error) int {
	var refused *client.RefusedError
	var gone *client.DisconnectedError
	switch {
	case errors.As(err, &refused):
		if refused.Version == packet.V5 {
			m.complain("Connection error: %s", refused)
			return int(refused.Reason)
		}
		m.complain("Connection error: Connection Refused: %s.", v3Refusal(refused.Reason))
		return int(refused.Reason.V3Connack())
	case errors.As(err, &gone):
		m.complain("Error: %s", gone)
		return int(gone.Reason)
	}
	m.complain("Error: %s", plain(err))
	return exitFailed
}

// v3Refusal is mosquitto's text for a CONNACK return code before 5.0.
func v3Refusal(reason packet.ReasonCode) string {
	switch reason.V3Connack() {
	case 1:
		return "unacceptable protocol version"
	case 2:
		return "identifier rejected"
	case 3:
		return "broker unavailable"
	case 4:
		return "bad user name or password"
	case 5:
		return "not authorised"
	}
	return "unknown reason"
}

// plain shortens what the net package says of a connection.
func plain(err error) string {
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return "lookup of " + dns.Name + ": " + dns.Err
	case errors.As(err, &op) && op.Op == "dial" && op.Addr != nil:
		var errno syscall.Errno
		if errors.As(op, &errno) {
			return fmt.Sprintf("connect to %s: %s", op.Addr, errno)
		}
		if op.Timeout() {
			return fmt.Sprintf("connect to %s: no answer", op.Addr)
		}
	}
	return err.Error()
}

// clientUsage reports a wrong command line as mosquitto does.
func clientUsage(con console, program string, err error) int {
	fmt.Fprintf(con.err, "Error: %v\n\nUse 'quorate %s --help' to see usage.\n", err, program)
	return exitFailed
}
