// Package acceptance holds no code. Its tests run clusters of real quorate processes (package processes) through what an
// operator's week brings: a node that joins, one that was away, one that needs a snapshot, one whose disk was replaced, a
// leader that is killed, and a node that is drained. They are left out with -short.
//
// What a test says of time is a generous bound for a busy machine; scripts/acceptance/recovery measures.
package acceptance
