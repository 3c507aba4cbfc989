package broker

import (
	"time"

	"quorate/node/client"
)

// Limits bound what a client may ask of a node. What happens at each limit is said beside it.
type Limits struct {
	// Client bounds the Network Connections.
	Client client.Config
	// ConnectTimeout is how long a CONNECT may wait for the log: then CONNACK Server unavailable.
	ConnectTimeout time.Duration
	// TakeOverTimeout is how long a CONNECT waits for the node of the connection that it replaces to close it.
	TakeOverTimeout time.Duration
	// ContactTimeout is how long the node may be without leader contact before it sends its clients away (P9).
	ContactTimeout time.Duration
	// ReceiveMaximum is how many PUBLISH of QoS>0 a client may have unfinished: beyond it version 5 gets Receive
	// Maximum exceeded [MQTT-3.3.4-7], version 3 is not read.
	ReceiveMaximum int
	// ReceiveBytesMax is how many bytes of unfinished requests a connection may have: beyond it it is not read.
	ReceiveBytesMax int
	// RequestsMax is how many requests of any kind may wait for the log: beyond it the connection is not read.
	RequestsMax int
	// InflightMax caps the client's Receive Maximum: unfinished QoS>0 messages to it. Version 3 clients have this one.
	InflightMax int
	// TopicAliasMaximum is how many aliases a client may set [MQTT-3.2.2-17], AliasBytesMax how long their topics may be
	// together: beyond it Topic Alias invalid.
	TopicAliasMaximum int
	AliasBytesMax     int
	// QueueMessagesMax and QueueBytesMax bound the messages of QoS>0 that wait for a transient Session: the newest is
	// dropped and counted.
	QueueMessagesMax int
	QueueBytesMax    int
	// SubscriptionsMax bounds the subscriptions of a connection: further filters get Quota exceeded.
	SubscriptionsMax int
	// KeepAliveMax caps the Keep Alive, with Server Keep Alive; 0: no cap. A client that asks for none gets it, too.
	KeepAliveMax time.Duration
	// ProgressInterval is how long acknowledgements may wait to be reported to the log together.
	ProgressInterval time.Duration
	// DelayMax caps the SECONDS of $delayed/SECONDS/topic: beyond it Topic Name invalid.
	DelayMax time.Duration
	// FrameBytesMax bounds the QoS 0 messages of other nodes that wait for this node to apply what their publishers sent
	// before: beyond it they are dropped and counted.
	FrameBytesMax int64
}

// DefaultLimits returns limits that suit most brokers.
func DefaultLimits() Limits {
	return Limits{
		Client:            client.DefaultConfig(),
		ConnectTimeout:    2 * time.Second,
		TakeOverTimeout:   500 * time.Millisecond,
		ContactTimeout:    12 * time.Second,
		ReceiveMaximum:    256,
		ReceiveBytesMax:   4 << 20,
		RequestsMax:       512,
		InflightMax:       256,
		TopicAliasMaximum: 32,
		AliasBytesMax:     64 << 10,
		QueueMessagesMax:  1_000,
		QueueBytesMax:     4 << 20,
		SubscriptionsMax:  10_000,
		ProgressInterval:  time.Second,
		DelayMax:          365 * 24 * time.Hour,
		FrameBytesMax:     16 << 20,
	}
}
