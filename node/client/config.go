package client

import (
	"time"

	"quorate/protocol/packet"
)

// Config bounds a connection. It is shared by all connections and not changed.
type Config struct {
	// ConnectTimeout is how long a client may take to send its CONNECT; then the connection is closed.
	ConnectTimeout time.Duration
	// ConnectBytesMax is the largest CONNECT; a larger one is refused with Packet too large.
	ConnectBytesMax int
	// Reader bounds the later packets. Its MaxPacketBytes is the broker's Maximum Packet Size [MQTT-3.2.2-15].
	Reader packet.Options
	// QoS0BytesMax is how much may wait for a client before QoS 0 messages for it are dropped.
	QoS0BytesMax int
	// FillBytes is how much may wait before no more QoS 1 and 2 messages are taken from the Session.
	FillBytes int
	// OutboundBytesMax is how much may wait before the connection is closed.
	OutboundBytesMax int
	// WriteTimeout is how long one write may take.
	WriteTimeout time.Duration
	// CloseTimeout is how long the last packets may take once the connection is being closed.
	CloseTimeout time.Duration
	// Writers write for connections on plain sockets; nil: each has a goroutine while it is written.
	Writers *Writers
}

// DefaultConfig returns the bounds that suit most brokers.
func DefaultConfig() Config {
	return Config{
		ConnectTimeout:   10 * time.Second,
		ConnectBytesMax:  128 << 10,
		Reader:           packet.DefaultOptions(),
		QoS0BytesMax:     1 << 20,
		FillBytes:        64 << 10,
		OutboundBytesMax: 8 << 20,
		WriteTimeout:     30 * time.Second,
		CloseTimeout:     2 * time.Second,
	}
}
