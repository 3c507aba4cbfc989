package broker

import (
	"context"

	"quorate/node/listener"
)

// Credentials are what a CONNECT shows.
type Credentials struct {
	ClientID    string
	Username    string
	Password    []byte // valid only during the call
	HasUsername bool
	HasPassword bool
	Connection  listener.Info
}

// Authenticator decides who a client is.
type Authenticator interface {
	// Authenticate returns the identity of the client, to which its Session belongs: another identity cannot take it
	// over. A *packet.Error refuses the client with its Reason Code, any other error with Not authorized. It may block,
	// until ctx ends.
	Authenticate(ctx context.Context, c *Credentials) (identity string, err error)
}

// Principal is a client whose rights are asked for.
type Principal struct {
	Identity, ClientID, Username string
	Connection                   *listener.Info
}

// Authorizer decides what a client may do. Calls have to be quick: they are made for every PUBLISH.
type Authorizer interface {
	// MayPublish returns whether the client may publish to the topic.
	MayPublish(p *Principal, topic string) bool
	// MaySubscribe returns whether the client may subscribe to the filter (without $share/name/).
	MaySubscribe(p *Principal, filter string) bool
}

// AllowAll lets everybody do everything, and takes the user name as identity.
type AllowAll struct{}

// Authenticate implements Authenticator.
func (AllowAll) Authenticate(_ context.Context, c *Credentials) (string, error) {
	return c.Username, nil
}

// MayPublish implements Authorizer.
func (AllowAll) MayPublish(*Principal, string) bool { return true }

// MaySubscribe implements Authorizer.
func (AllowAll) MaySubscribe(*Principal, string) bool { return true }
