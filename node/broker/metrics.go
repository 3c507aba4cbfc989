package broker

import (
	"sync/atomic"

	"quorate/node/client"
)

// Metrics are the counters of a Broker: totals since its start.
type Metrics struct {
	// Client counts connections, packets and bytes.
	Client client.Metrics

	// Published counts the PUBLISH packets of clients by QoS, PublishedBytes their payloads.
	Published      [3]atomic.Uint64
	PublishedBytes atomic.Uint64
	// Logged counts those that took the log, Direct those of QoS>0 that did not, Reproposed those of Direct whose routes
	// had changed meanwhile.
	Logged, Direct, Reproposed atomic.Uint64
	// Unmatched counts messages that nobody subscribes to.
	Unmatched atomic.Uint64
	// Delivered counts the PUBLISH packets queued for clients by QoS.
	Delivered [3]atomic.Uint64
	// FramesOut and FramesIn count QoS 0 messages to and from other nodes.
	FramesOut, FramesIn atomic.Uint64

	// DroppedQueue counts messages for transient Sessions whose queue was full, DroppedExpired those that expired here,
	// DroppedFrame QoS 0 messages that a peer connection or the wait for an index did not take, DroppedOverload QoS 0
	// messages that the log did not take, DroppedNoMember QoS 0 messages to shared groups without a connected member.
	DroppedQueue, DroppedExpired, DroppedFrame, DroppedOverload, DroppedNoMember atomic.Uint64

	// RefusedAccess counts PUBLISH and SUBSCRIBE filters that the Authorizer refused, RefusedTopic those with an invalid
	// topic, RefusedQuota those beyond a limit or an overload.
	RefusedAccess, RefusedTopic, RefusedQuota atomic.Uint64

	// TakenOver counts connections that another one replaced, Stale answers that were not sent because of that.
	TakenOver, Stale atomic.Uint64
	// ConnectTimeouts counts CONNECTs that the log did not decide in time.
	ConnectTimeouts atomic.Uint64
	// CutOffs counts the times the node sent its clients away for want of a leader.
	CutOffs atomic.Uint64
	// ProgressCommands and ProgressItems count reports of acknowledgements.
	ProgressCommands, ProgressItems atomic.Uint64
}
