package command

import (
	"fmt"

	"quorate/fsm/internal/codec"
)

// Subscription is one Topic Filter of a SUBSCRIBE with its options.
type Subscription struct {
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	// RetainHandling: 0 send retained messages, 1 only if the subscription is new, 2 do not.
	RetainHandling byte
}

// Subscribe adds or replaces subscriptions. Of a transient session the machine keeps only the shared ones and the routes.
type Subscribe struct {
	Ref Ref
	// ID is the Subscription Identifier, 0 for none.
	ID            uint32
	Subscriptions []Subscription
	// Routes are filters whose first live subscriber on the batch's node this is.
	Routes []string
}

// Kind implements Command.
func (*Subscribe) Kind() Kind { return KindSubscribe }

// Append implements Command.
func (s *Subscribe) Append(dst []byte) []byte {
	dst = appendRef(appendKind(dst, KindSubscribe), s.Ref)
	dst = codec.AppendUvarint(dst, s.ID)
	dst = codec.AppendUvarint(dst, len(s.Subscriptions))
	for i := range s.Subscriptions {
		b := &s.Subscriptions[i]
		dst = append(dst, b.QoS&3|flags(b.NoLocal, b.RetainAsPublished)<<2|b.RetainHandling<<4)
		dst = codec.AppendString(dst, b.Filter)
	}
	return appendStrings(dst, s.Routes)
}

func (s *Subscribe) decode(c *codec.Cursor) {
	*s = Subscribe{Ref: decodeRef(c), ID: c.Uint32()}
	n := c.Count(2)
	if n > 0 {
		s.Subscriptions = make([]Subscription, 0, n)
	}
	for range n {
		f := decodeFlags(c, 6)
		b := Subscription{QoS: f & 3, NoLocal: f&4 != 0, RetainAsPublished: f&8 != 0, RetainHandling: f >> 4, Filter: c.String()}
		if b.QoS == 3 || b.RetainHandling == 3 {
			c.Fail(fmt.Errorf("subscription options %#x: %w", f, codec.ErrValue))
		}
		s.Subscriptions = append(s.Subscriptions, b)
	}
	s.Routes = decodeStrings(c)
}

// Unsubscribe ends subscriptions; what was started under them is completed [MQTT-3.10.4-3].
type Unsubscribe struct {
	Ref     Ref
	Filters []string
	// Routes are filters that lost their last live subscriber on the batch's node.
	Routes []string
}

// Kind implements Command.
func (*Unsubscribe) Kind() Kind { return KindUnsubscribe }

// Append implements Command.
func (u *Unsubscribe) Append(dst []byte) []byte {
	dst = appendRef(appendKind(dst, KindUnsubscribe), u.Ref)
	dst = appendStrings(dst, u.Filters)
	return appendStrings(dst, u.Routes)
}

func (u *Unsubscribe) decode(c *codec.Cursor) {
	*u = Unsubscribe{Ref: decodeRef(c), Filters: decodeStrings(c), Routes: decodeStrings(c)}
}
