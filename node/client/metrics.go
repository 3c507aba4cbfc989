package client

import "sync/atomic"

// Metrics are the counters of all connections of a node. All are totals but Connections.
type Metrics struct {
	Connections atomic.Int64  // now open, accepted or not
	Accepted    atomic.Uint64 // connections ever opened
	Panics      atomic.Uint64 // connections ended by a panic, which is a bug

	PacketsIn  [16]atomic.Uint64 // by packet.Type
	PacketsOut [16]atomic.Uint64 // by packet.Type
	BytesIn    atomic.Uint64
	BytesOut   atomic.Uint64
	Writes     atomic.Uint64 // system calls that wrote BytesOut

	DroppedQoS0     atomic.Uint64 // QoS 0 messages not queued: the client reads too slowly
	DroppedTooLarge atomic.Uint64 // messages larger than the client's Maximum Packet Size
	ClosedSlow      atomic.Uint64 // connections closed because the client does not read

	Refused [256]atomic.Uint64 // CONNACK of 0x80 and more, by Reason Code
	Ended   [256]atomic.Uint64 // ends of accepted connections, by Reason Code
}
