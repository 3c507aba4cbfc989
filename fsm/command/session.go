package command

import "quorate/fsm/internal/codec"

// ExpiryNever is the Session Expiry Interval of a session that does not expire.
const ExpiryNever = 0xFFFFFFFF

// Will is a will message and how long it waits after the connection ended.
type Will struct {
	Message
	DelaySeconds uint32
}

// Connect gives the session of a client to a new connection of the batch's node, ending the ownership before it (P4),
// and decides Session Present (P7).
type Connect struct {
	ClientID string
	// Identity is whom the client authenticated as. A session belongs to the identity that made it.
	Identity string
	// Version is the protocol level: 3, 4 or 5.
	Version    byte
	CleanStart bool
	// ExpirySeconds is the Session Expiry Interval; ExpiryNever for a v3 client with CleanSession 0.
	ExpirySeconds uint32
	// ReceiveMaximum bounds the shared messages the client holds unfinished; 0 is 65,535.
	ReceiveMaximum uint16
	// Will is nil without one.
	Will *Will
	// Before is the first epoch that the node had not applied when it proposed this; 0 is no condition. A connection that
	// has that epoch or a later one keeps the session: the client asked for it later, as far as anybody can know.
	Before uint64
}

// Kind implements Command.
func (*Connect) Kind() Kind { return KindConnect }

// Append implements Command.
func (n *Connect) Append(dst []byte) []byte {
	dst = appendKind(dst, KindConnect)
	dst = append(dst, flags(n.CleanStart, n.Will != nil), n.Version)
	dst = codec.AppendString(dst, n.ClientID)
	dst = codec.AppendString(dst, n.Identity)
	dst = codec.AppendUvarint(dst, n.ExpirySeconds)
	dst = codec.AppendUvarint(dst, n.ReceiveMaximum)
	dst = codec.AppendUvarint(dst, n.Before)
	if n.Will != nil {
		dst = codec.AppendUvarint(dst, n.Will.DelaySeconds)
		dst = n.Will.append(dst)
	}
	return dst
}

func (n *Connect) decode(c *codec.Cursor) {
	f := decodeFlags(c, 2)
	*n = Connect{
		CleanStart: f&1 != 0, Version: c.Byte(), ClientID: c.String(), Identity: c.String(),
		ExpirySeconds: c.Uint32(), ReceiveMaximum: c.Uint16(), Before: c.Uvarint(),
	}
	if f&2 != 0 {
		n.Will = &Will{DelaySeconds: c.Uint32()}
		n.Will.decode(c)
	}
}

// Disconnect ends a connection, whatever ended it: a DISCONNECT, an error or a closed socket.
type Disconnect struct {
	Ref Ref
	// SendWill is false only after DISCONNECT 0x00 [MQTT-3.14.4-3].
	SendWill bool
	// HasExpiry says that the DISCONNECT changed the Session Expiry Interval to ExpirySeconds.
	HasExpiry     bool
	ExpirySeconds uint32
	// Sent is the highest sequence that may have been sent to the client, 0 when that is not known. It tells the next
	// connection which messages to send with DUP 1.
	Sent uint64
	// Abandoned says that the client never heard of its connection: it was refused, or gone before the CONNACK. The
	// connection has no will then, and the one that waited for its delay when it came waits on.
	Abandoned bool
}

// Kind implements Command.
func (*Disconnect) Kind() Kind { return KindDisconnect }

// Append implements Command.
func (d *Disconnect) Append(dst []byte) []byte {
	dst = appendKind(dst, KindDisconnect)
	dst = append(dst, flags(d.SendWill, d.HasExpiry, d.Abandoned))
	dst = appendRef(dst, d.Ref)
	dst = codec.AppendUvarint(dst, d.ExpirySeconds)
	return codec.AppendUvarint(dst, d.Sent)
}

func (d *Disconnect) decode(c *codec.Cursor) {
	f := decodeFlags(c, 3)
	*d = Disconnect{SendWill: f&1 != 0, HasExpiry: f&2 != 0, Abandoned: f&4 != 0, Ref: decodeRef(c), ExpirySeconds: c.Uint32(), Sent: c.Uvarint()}
}

// Kick ends a client's connection by an administrator's wish, and its session too when EndSession is set. The will is sent.
type Kick struct {
	ClientID   string
	EndSession bool
	// Reason is the Reason Code of the DISCONNECT that the client gets.
	Reason byte
}

// Kind implements Command.
func (*Kick) Kind() Kind { return KindKick }

// Append implements Command.
func (k *Kick) Append(dst []byte) []byte {
	dst = appendKind(dst, KindKick)
	dst = append(dst, flags(k.EndSession), k.Reason)
	return codec.AppendString(dst, k.ClientID)
}

func (k *Kick) decode(c *codec.Cursor) {
	f := decodeFlags(c, 1)
	*k = Kick{EndSession: f&1 != 0, Reason: c.Byte(), ClientID: c.String()}
}

// ProgressItem is what one session's client has finished.
type ProgressItem struct {
	Ref Ref
	// Cursor: everything at or below it is finished, or was handed over to the session by a SendMark. A cursor below
	// the session's is ignored.
	Cursor uint64
	// Done are finished sequences above the cursor: acknowledged QoS 1, and QoS 2 completed (those at any sequence).
	Done []uint64
	// Received are QoS 2 sequences whose PUBREC came: it must be committed before PUBREL is sent (P3).
	Received []uint64
}

// Progress is the lazily reported progress of many sessions of one node. A stale Ref skips its item only.
type Progress struct{ Items []ProgressItem }

// Kind implements Command.
func (*Progress) Kind() Kind { return KindProgress }

// Append implements Command.
func (p *Progress) Append(dst []byte) []byte {
	dst = appendKind(dst, KindProgress)
	dst = codec.AppendUvarint(dst, len(p.Items))
	for i := range p.Items {
		it := &p.Items[i]
		dst = appendRef(dst, it.Ref)
		dst = codec.AppendUvarint(dst, it.Cursor)
		dst = appendSeqs(dst, it.Done)
		dst = appendSeqs(dst, it.Received)
	}
	return dst
}

func (p *Progress) decode(c *codec.Cursor) {
	*p = Progress{}
	n := c.Count(5)
	if n > 0 {
		p.Items = make([]ProgressItem, 0, n)
	}
	for range n {
		p.Items = append(p.Items, ProgressItem{Ref: decodeRef(c), Cursor: c.Uvarint(), Done: decodeSeqs(c), Received: decodeSeqs(c)})
	}
}

// SendMark says that these QoS 2 messages are about to be sent: from now on the session itself holds them, and they
// are not expired, trimmed, unsubscribed or reassigned any more. Only those that the result confirms may be sent.
type SendMark struct {
	Ref  Ref
	Seqs []uint64
}

// Kind implements Command.
func (*SendMark) Kind() Kind { return KindSendMark }

// Append implements Command.
func (s *SendMark) Append(dst []byte) []byte {
	dst = appendRef(appendKind(dst, KindSendMark), s.Ref)
	return appendSeqs(dst, s.Seqs)
}

func (s *SendMark) decode(c *codec.Cursor) { *s = SendMark{Ref: decodeRef(c), Seqs: decodeSeqs(c)} }
