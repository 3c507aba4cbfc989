package command

import "quorate/fsm/internal/codec"

// Limits are the bounds of the replicated state. They are part of it (Configure), because every node must come to the
// same decision. What happens at a bound is said at each.
type Limits struct {
	// MaxQueuedMessages and MaxQueuedBytes bound each stream (one per filter with persistent subscribers) and each
	// shared group's backlog: the oldest message goes, and the sessions that had not got it count it as dropped.
	MaxQueuedMessages uint64
	MaxQueuedBytes    uint64
	// MaxStoredBytes and MaxStoredMessages bound all bodies that the machine keeps: a PUBLISH that would have to be
	// stored gets Quota exceeded (0x97) and does nothing.
	MaxStoredBytes    uint64
	MaxStoredMessages uint64
	// MaxRetained bounds the topics with a retained message: a PUBLISH to one more gets Quota exceeded.
	MaxRetained uint64
	// MaxDelayed bounds the messages that wait for their delay: one more gets Quota exceeded.
	MaxDelayed uint64
	// MaxSessions bounds the sessions, connected or not: a CONNECT that needs one more gets Quota exceeded.
	MaxSessions uint64
	// MaxSubscriptionsPerSession bounds what the machine keeps of one session: further filters get Quota exceeded.
	MaxSubscriptionsPerSession uint32
	// MaxSpans bounds the spans of one subscription: a re-subscribe beyond gets Quota exceeded until older spans are done.
	MaxSpans uint32
	// MaxGroupMembers bounds one shared group: a further member gets Quota exceeded.
	MaxGroupMembers uint32
	// MaxSessionExpirySeconds caps the Session Expiry Interval; 0xFFFFFFFF is no cap.
	MaxSessionExpirySeconds uint32
	// MaxReceiveWindow caps how many shared messages one member holds unfinished, whatever its Receive Maximum.
	MaxReceiveWindow uint16
	// ReassignOnDisconnect gives the unfinished QoS 1 messages of a shared group's member to another member when its
	// connection ends, instead of when its session does.
	ReassignOnDisconnect bool
}

// DefaultLimits are the limits of a cluster that was never configured.
func DefaultLimits() Limits {
	return Limits{
		MaxQueuedMessages:          1_000_000,
		MaxQueuedBytes:             1 << 30,
		MaxStoredBytes:             16 << 30,
		MaxStoredMessages:          20_000_000,
		MaxRetained:                5_000_000,
		MaxDelayed:                 1_000_000,
		MaxSessions:                5_000_000,
		MaxSubscriptionsPerSession: 1_000,
		MaxSpans:                   16,
		MaxGroupMembers:            10_000,
		MaxSessionExpirySeconds:    0xFFFFFFFF,
		MaxReceiveWindow:           1_024,
	}
}

// AppendLimits appends the encoding of l, as Configure and the snapshot hold it.
func AppendLimits(dst []byte, l *Limits) []byte {
	for _, v := range []uint64{
		l.MaxQueuedMessages, l.MaxQueuedBytes, l.MaxStoredBytes, l.MaxStoredMessages, l.MaxRetained, l.MaxDelayed, l.MaxSessions,
		uint64(l.MaxSubscriptionsPerSession), uint64(l.MaxSpans), uint64(l.MaxGroupMembers), uint64(l.MaxSessionExpirySeconds),
		uint64(l.MaxReceiveWindow),
	} {
		dst = codec.AppendUvarint(dst, v)
	}
	return append(dst, flags(l.ReassignOnDisconnect))
}

// DecodeLimits reads what AppendLimits wrote.
func DecodeLimits(c *codec.Cursor) Limits {
	return Limits{
		MaxQueuedMessages:          c.Uvarint(),
		MaxQueuedBytes:             c.Uvarint(),
		MaxStoredBytes:             c.Uvarint(),
		MaxStoredMessages:          c.Uvarint(),
		MaxRetained:                c.Uvarint(),
		MaxDelayed:                 c.Uvarint(),
		MaxSessions:                c.Uvarint(),
		MaxSubscriptionsPerSession: c.Uint32(),
		MaxSpans:                   c.Uint32(),
		MaxGroupMembers:            c.Uint32(),
		MaxSessionExpirySeconds:    c.Uint32(),
		MaxReceiveWindow:           c.Uint16(),
		ReassignOnDisconnect:       decodeFlags(c, 1)&1 != 0,
	}
}

// Configure replaces the limits. What is already stored is not touched until something is added to it.
type Configure struct{ Limits Limits }

// Kind implements Command.
func (*Configure) Kind() Kind { return KindConfigure }

// Append implements Command.
func (f *Configure) Append(dst []byte) []byte {
	return AppendLimits(appendKind(dst, KindConfigure), &f.Limits)
}

func (f *Configure) decode(c *codec.Cursor) { f.Limits = DecodeLimits(c) }
