// Package session holds the QoS 1 and QoS 2 exchanges of one Session as pure logic: packet identifiers, inflight
// windows, what may be sent now, what has to be committed first, and what is to be reported to the log. It has no net,
// no clock and no lock: its owner serialises the calls and does the encoding.
//
// Outbound is the side from the broker to the client, Inbound the side from the client to the broker.
//
// # Two kinds of outbound messages
//
// A durable message (Seq > 0) lives in the replicated state under a sequence; any node resends it after a fail-over with
// the same Packet Identifier, which is 1 + Seq mod 65535. Its identifier is free again only once the command that ended
// its exchange is committed: a node that took over earlier would still send the old message under it.
// A local message (Seq 0) lives and dies with its connection; it takes any free identifier.
//
// # Why not one queue per Session
//
// What is waiting for a Session is in the replicated streams already. Outbound therefore holds only a window of it
// (see Room), so that a Session with a million waiting messages costs no more memory than one with ten.
package session

// PacketID returns the Packet Identifier of the durable message with the given sequence.
func PacketID(seq uint64) uint16 { return uint16(1 + seq%65535) }
