package node

import (
	"context"

	"quorate/node/broker"
	"quorate/node/config"
	"quorate/protocol/packet"
)

// policy decides who may come in while there are no users: everybody who reaches a loopback listener, and everybody at
// all when the operator says so. The user name is the identity, without proof; it keeps sessions of one name apart from
// those of another.
type policy struct {
	// open are the names of the listeners without users.
	open map[string]bool
}

var _ broker.Authenticator = policy{}

// newPolicy opens those of the listeners (by name, which is their address as configured) that may be open.
func newPolicy(c *config.Config) policy {
	p := policy{open: map[string]bool{}}
	for _, addr := range c.MQTT {
		p.open[addr] = c.AllowAnonymous || config.Loopback(addr)
	}
	return p
}

// Authenticate implements broker.Authenticator.
func (p policy) Authenticate(_ context.Context, c *broker.Credentials) (identity string, err error) {
	if !p.open[c.Connection.Listener] {
		return "", &packet.Error{Reason: packet.NotAuthorized, Text: "anonymous clients are not allowed on this listener"}
	}
	return c.Username, nil
}
