// Package fsm is Quorate's replicated state machine: sessions, subscriptions, queued, retained, delayed and will
// messages, shared groups, and which node owns what. Machine applies committed log entries; every node that applies the
// same entries has the same state and the same digest. The package touches no network, file, clock or randomness:
// time is the stamp of the entries, bodies lie behind the Bodies interface, what happened is told to an Observer.
//
// # What it keeps
//
// A message that must be kept is one slot of a slab, whatever the number of sessions that wait for it; the slot counts
// its holders. A stream is the list of slots of one filter with persistent subscribers. A session has no queue: it has
// a cursor, the sequences done above it, its QoS 2 messages in flight, and a private list for what is its alone
// (retained copies it is owed, shared messages assigned to it). A publish therefore costs the same for one and for a
// million sessions on a filter (P11).
//
// # Why not the obvious other way
//
//   - Not a queue per session: a broadcast to a million sessions would be a million appends.
//   - Not a minimum over the cursors for trimming: streams count positions per bucket of 1,024 sequences, and whether all
//     subscribers have caught up, so that moving one cursor is O(1).
//   - Not last-in-first-out free lists: slots are reused lowest first, so that the free set follows from the used one and
//     has no place in a snapshot.
//   - Not one heap for message expiry: lists per second, whose entries leave in O(1) when a message goes early.
//   - Not a persistent (immutable) tree for snapshots: an object not yet written is captured when it is first changed.
//   - Heaps, bucket counts, work queue and free sets are derived: a snapshot holds objects only, and Restore rebuilds them.
package fsm
