// Package packet holds the MQTT Control Packets: one type for each, for MQTT 3.1
// (MQIsdp, level 3), 3.1.1 and 5.0 together, and the Reader that decodes them
// from a Network Connection. The same code serves the broker (FromClient) and
// the clients, tests and load generators (FromServer).
//
// A packet is decoded whole: what a receiver can check without knowing the state
// of the connection is checked here, and refused with an *Error that carries the
// Reason Code for the answer. What depends on state (packet identifiers in use,
// Topic Alias Maximum, quotas, access) is the caller's.
//
// MQTT 3.1.1 and 5.0 are taken strictly. For level 3 the unused bits of headers
// and flags are tolerated, as its text asks for no close; strings follow the
// rules of 3.1.1 in every version.
//
// It is not a client or a session: nothing is sent, kept or answered here.
package packet

import (
	"fmt"
	"strconv"
)

// Version is a protocol level as CONNECT has it.
type Version byte

// The protocol levels.
const (
	V31  Version = 3 // MQTT 3.1, protocol name MQIsdp
	V311 Version = 4
	V5   Version = 5
)

// String returns the version as people write it, such as "3.1.1".
func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V5:
		return "5.0"
	}
	return "unknown version " + strconv.Itoa(int(v))
}

// Type is an MQTT Control Packet type, bits 7 to 4 of the first byte.
type Type byte

// The Control Packet types (MQTT 5.0 table 2-1).
const (
	TypeConnect Type = iota + 1
	TypeConnack
	TypePublish
	TypePuback
	TypePubrec
	TypePubrel
	TypePubcomp
	TypeSubscribe
	TypeSuback
	TypeUnsubscribe
	TypeUnsuback
	TypePingreq
	TypePingresp
	TypeDisconnect
	TypeAuth
)

// String returns the name of the standard, such as "CONNECT".
func (t Type) String() string {
	names := [...]string{"RESERVED", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE",
		"SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"}
	if int(t) < len(names) {
		return names[t]
	}
	return "type " + strconv.Itoa(int(t))
}

// Side says who sent the packets that a Reader decodes.
type Side byte

// The two directions.
const (
	FromClient Side = iota // the reader is a server
	FromServer             // the reader is a client
)

// Packet is one Control Packet. All implementations are pointers to the types of
// this package.
type Packet interface {
	// Type returns the Control Packet type.
	Type() Type
	// Append appends the whole Control Packet as version v has it. What v cannot
	// express (properties and reason codes before 5.0) is left out. It panics when
	// a field cannot be encoded at all (a string above 65,535 bytes, more than
	// 268,435,455 bytes in all); decoded packets always can.
	Append(dst []byte, v Version) []byte
}

// UserProperty is one name and value pair of property 0x26.
type UserProperty struct{ Name, Value string }

// Error is why a packet was refused. Every error of a decoder is an *Error; what
// the connection itself returned is not.
type Error struct {
	Reason ReasonCode // for the CONNACK or DISCONNECT that a version 5 peer gets
	Text   string     // what was wrong, without bytes of the peer that are unprintable
}

// Error returns the text with the name of the Reason Code.
func (e *Error) Error() string {
	return fmt.Sprintf("%s (0x%02X): %s", e.Reason, byte(e.Reason), e.Text)
}

func malformed(format string, args ...any) *Error {
	return &Error{Reason: MalformedPacket, Text: fmt.Sprintf(format, args...)}
}

func protocolError(format string, args ...any) *Error {
	return &Error{Reason: ProtocolError, Text: fmt.Sprintf(format, args...)}
}

func refuse(reason ReasonCode, format string, args ...any) *Error {
	return &Error{Reason: reason, Text: fmt.Sprintf(format, args...)}
}
