package node

import (
	"quorate/node/broker"
	"quorate/node/config"
)

// brokerLimits are the limits of the broker that follow from the configuration; the others are its own defaults.
func brokerLimits(c *config.Config) broker.Limits {
	l := broker.DefaultLimits()
	l.Client.ConnectTimeout = c.ConnectTimeout
	l.Client.Reader.MaxPacketBytes = int(c.MaxPacketSize)
	l.Client.QoS0BytesMax = int(c.MaxOutgoing)
	// Acknowledgements and QoS>0 messages under way come on top of what QoS 0 may take, before the connection is given up.
	l.Client.OutboundBytesMax = max(l.Client.OutboundBytesMax, 2*int(c.MaxOutgoing))
	l.ConnectTimeout = c.LeaderWait
	l.ContactTimeout = c.ClientClose
	l.ReceiveMaximum = c.ReceiveMaximum
	l.TopicAliasMaximum = c.TopicAliasMaximum
	l.KeepAliveMax = c.MaxKeepAlive
	l.SubscriptionsMax = c.MaxSubscriptions
	return l
}
