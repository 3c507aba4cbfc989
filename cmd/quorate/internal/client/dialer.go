package client

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"quorate/protocol/packet"
)

// referralsMax bounds the Server References followed in one Connect: brokers may point at each other.
const referralsMax = 2

// Dialer finds a broker: it goes through its addresses, and where a broker says that another should be used, there
// first. The zero Dialer is not ready; fill all fields. It is for one goroutine.
type Dialer struct {
	// Addrs are host:port of brokers of one cluster, tried in turn. Not empty.
	Addrs []string
	// Dial opens a connection.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Timeout bounds one attempt to dial.
	Timeout time.Duration

	next     int
	referred string // by a Server Reference, tried once
}

// Connect connects to the first broker that takes the client; the error is that of the last one tried.
func (d *Dialer) Connect(ctx context.Context, opt Options) (*Conn, error) {
	var last error
	for tries, referrals := 0, 0; ; {
		addr := d.referred
		switch {
		case addr != "" && referrals < referralsMax:
			referrals++
		case tries < len(d.Addrs):
			addr = d.Addrs[d.next%len(d.Addrs)]
			d.next++
			tries++
		default:
			return nil, last
		}
		d.referred = ""
		c, err := d.one(ctx, addr, opt)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		last = err
		if refused := (*RefusedError)(nil); errors.As(err, &refused) {
			if !elsewhere(refused.Reason) {
				return nil, err
			}
			d.Refer(refused.ServerReference)
		}
	}
}

func (d *Dialer) one(ctx context.Context, addr string, opt Options) (*Conn, error) {
	dialCtx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	nc, err := d.Dial(dialCtx, addr)
	if err != nil {
		return nil, err
	}
	return Connect(ctx, nc, opt)
}

// Refer makes the next attempt go to a Server Reference: the first of its servers that has a port. An empty one changes
// nothing. (MQTT 5.0 section 4.11)
func (d *Dialer) Refer(reference string) {
	for server := range strings.FieldsSeq(reference) {
		if _, _, err := net.SplitHostPort(server); err == nil {
			d.referred = server
			return
		}
	}
}

// elsewhere reports whether another broker may well take a client that this one refused.
func elsewhere(reason packet.ReasonCode) bool {
	switch reason {
	case packet.ServerUnavailable, packet.ServerBusy, packet.ServerShuttingDown, packet.UseAnotherServer, packet.ServerMoved,
		packet.ConnectionRateExceeded, packet.QuotaExceeded:
		return true
	}
	return false
}
