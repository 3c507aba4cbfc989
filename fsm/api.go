package fsm

import (
	"quorate/fsm/command"
	"quorate/protocol/packet"
)

// Limits are the bounds of the replicated state; see command.Limits for each and what happens there.
type Limits = command.Limits

// DefaultLimits are the limits of a cluster that was never configured.
func DefaultLimits() Limits { return command.DefaultLimits() }

// Observer is told what happened, on the apply goroutine, after the changes of the entry are visible and with the
// machine unlocked, in log order. Calls must not block and must not call Apply or Restore; reading is fine.
type Observer interface {
	// BatchApplied gives the results of a batch of the machine's own node, one for each command. The slice and what it
	// points to are valid only during the call.
	BatchApplied(incarnation, number uint64, results []Result)
	// BatchGap says that a batch of the own node was not taken: resend from number expected. An expected of 0 says that
	// this incarnation has ended (another node declared it dead): only a new one is listened to.
	BatchGap(incarnation, expected, got uint64)
	// ConnectionEnded says that a connection of this node no longer owns its session: take-over (SessionTakenOver),
	// NodeDown (ServerUnavailable: the node was declared dead), Kick (its reason). A Disconnect is not reported.
	ConnectionEnded(ref command.Ref, node command.NodeID, reason packet.ReasonCode)
	// Published gives every message that went through the log, at its place in the order, for the live subscribers of
	// this node.
	Published(m *Message)
	// Wake says that something entered the private list of a session connected to this node: Pull it.
	Wake(ref command.Ref)
	// Restored says that a snapshot replaced the whole state: check every Ref again.
	Restored()
}

// EntryObserver is an Observer that gathers what it is told of one entry.
type EntryObserver interface {
	// EntryApplied follows the other calls of an entry, if there were any. Like them it is made on the apply goroutine.
	EntryApplied()
}

// Message is a message as the machine hands it out. It is valid only during the call that gives it.
type Message struct {
	// Seq is the message's place in the order of the log; never 0.
	Seq uint64
	// Body is the stored form (command.ParseBody); Topic, Forwarded and Payload are its parts.
	Body               []byte
	Topic              string
	Forwarded, Payload []byte
	QoS                byte
	Retain             bool
	// Publisher is the Serial of the publisher's session, 0 for none: for No Local.
	Publisher uint64
	// Deadline is the stamp in milliseconds at which the message expires, 0 for never.
	Deadline uint64
	// Origin is the node that proposed the message; empty when the machine published it (a will, a delayed message).
	Origin command.NodeID
	// Local says that the origin node has already delivered to its own live subscribers.
	Local bool
}

// Result is the outcome of one command.
type Result struct {
	Code packet.ReasonCode
	// Stale: the Ref's epoch has ended. Nothing was done and nothing may be acknowledged (P4).
	Stale bool
	// Duplicate: the QoS 2 packet identifier was already held; the message was not published again.
	Duplicate bool
	// Newer: the session is owned by a connection that the node had not heard of when it proposed the Connect. Nothing
	// was done: the node asks again if its client still waits.
	Newer bool
	// Ref, Serial, Present and Persistent answer a Connect.
	Ref        command.Ref
	Serial     uint64
	Present    bool
	Persistent bool
	// ExpirySeconds is the Session Expiry Interval that holds after a Connect: the limit may have changed it.
	ExpirySeconds uint32
	// Codes answer Subscribe and Unsubscribe filter by filter, and SendMark sequence by sequence: there
	// PacketIdentifierNotFound means that the session does not hold the message and it must not be sent.
	Codes []packet.ReasonCode
	// Existed answers Subscribe filter by filter (the subscription was there before: Retain Handling 1), and Kick.
	Existed []bool
	// Seq is the sequence of a published message, the place of a Subscribe in the order (messages above it come live or
	// by stream), or 0.
	Seq uint64
	// Matched: somebody subscribes to the published message: a persistent session, a shared group or a live route.
	Matched bool
}

// Delivery is one message for one session, as Pull gives it.
type Delivery struct {
	Seq                uint64
	Topic              string
	Forwarded, Payload []byte
	// QoS is the highest of the matching subscriptions, at most the message's own. A shared message assigned to a member
	// that subscribed with QoS 0 comes with QoS 0: sending it finishes it.
	QoS byte
	// Retain is the flag to send, by Retain As Published or because it is a retained copy.
	Retain bool
	// SubIDs are the Subscription Identifiers of all matching subscriptions.
	SubIDs []uint32
	// Deadline is the stamp in milliseconds at which the message expires, 0 for never.
	Deadline uint64
	// Marked: a QoS 2 message the session holds (SendMark). Received: its PUBREC came, PUBREL is owed; there is no
	// topic and payload then.
	Marked, Received bool
}

// OutState is a QoS 2 message that the session holds.
type OutState struct {
	Seq      uint64
	Received bool
}

// Subscription is a subscription as the machine keeps it.
type Subscription struct {
	command.Subscription
	// ID is the Subscription Identifier, 0 for none.
	ID uint32
	// Since is the sequence after which the subscription gets messages.
	Since uint64
}

// SessionState is what a node needs to serve a session's connection.
type SessionState struct {
	Serial         uint64
	ClientID       string
	Identity       string
	Version        byte
	Persistent     bool
	ExpirySeconds  uint32
	ReceiveMaximum uint16
	// Subscriptions are the current ones, in the order of their filters. Those of a transient session are known to its
	// node only, but for shared ones.
	Subscriptions []Subscription
	// Cursor: everything at or below is finished or among Out2.
	Cursor uint64
	// Done are the sequences finished above Cursor, in order.
	Done []uint64
	// Out2 are the QoS 2 messages held for sending, in order.
	Out2 []OutState
	// In2 are the packet identifiers of inbound QoS 2 messages not yet released, in order.
	In2 []uint16
	// ResendBound: messages at or below may have been sent before (DUP 1); those above were not.
	ResendBound uint64
	// Dropped counts the messages that a quota or an expiry took from the streams before the session got them.
	Dropped uint64
}

// SessionInfo is a session as an administrator sees it.
type SessionInfo struct {
	Ref            command.Ref
	Serial         uint64
	ClientID       string
	Identity       string
	Version        byte
	Persistent     bool
	ExpirySeconds  uint32
	ReceiveMaximum uint16
	Connected      bool
	// Node has or had the connection; empty when that node has no record any more.
	Node command.NodeID
	// ExpiresAt is the stamp at which a disconnected session ends, 0 when nothing is set.
	ExpiresAt     uint64
	Subscriptions int
	Inflight      int
	// Queued is the number of messages in its streams above its cursor and in its private list.
	Queued  uint64
	Dropped uint64
}

// Member is a member of a shared group.
type Member struct {
	Ref       command.Ref
	Node      command.NodeID
	Serial    uint64
	QoS       byte
	SubID     uint32
	RAP       bool
	Connected bool
}

// RouteMembersMax is how many members of a group Route gives: all of a group up to that size, and of a larger one
// connected ones only.
const RouteMembersMax = 64

// GroupTarget is a shared group that matches a topic.
type GroupTarget struct {
	Share, Filter string
	Members       []Member
}

// Route is where a message of one topic has to go. It may be used again for the next call.
type Route struct {
	// Stored: a persistent session subscribes to the topic with a QoS above 0.
	Stored bool
	// Peers are the live nodes with live subscribers of the topic, in order, the own one included.
	Peers []command.NodeID
	// Groups are the shared groups of the topic.
	Groups []GroupTarget
}

// NodeInfo is a node that the log knows.
type NodeInfo struct {
	ID          command.NodeID
	Name        string
	ClientAddr  string
	Format      byte
	Incarnation uint64
	// LastBatch is the number of the last batch taken.
	LastBatch   uint64
	Up          bool
	Connections int
}

// Stats are counters of the state, and of what it lost.
type Stats struct {
	Applied, Now                   uint64
	Sessions, Connected, Persisted int
	Filters, Streams, Routes       int
	Groups, Retained, Delayed      int
	StoredMessages                 int
	StoredBytes                    uint64
	// Dropped counts what quotas took from streams and groups, Expired the messages whose expiry came while stored.
	Dropped, Expired uint64
	// Refused counts the publishes that got Quota exceeded.
	Refused uint64
	// Work is the number of pieces of work that wait for a Tick.
	Work int
}
