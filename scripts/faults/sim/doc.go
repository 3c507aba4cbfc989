// Package sim runs whole clusters in a testing/synctest bubble: three nodes
// with their Raft, gossip and mesh, on a network and disks in memory, and
// clients of every kind, while faults are injected that a seed chooses. Then
// it heals the cluster, lets it drain, and hands the history to package check.
//
//	go test ./scripts/faults/sim                        some seeds, in less than a minute
//	go test ./scripts/faults/sim -seeds 1000            more of them
//	go test ./scripts/faults/sim -run Seeds -seed 17    one again
//
// Time is virtual: two minutes of faults take about a second. What a seed
// chooses is the faults, their times, and what the clients do; the order in
// which goroutines run is not repeatable, so a failing seed keeps its history
// in a file that scripts/faults/recheck reads.
//
// What is not simulated: a process that is stopped and goes on (the network of
// the host stands still instead), a disk that lies, and the operating system's
// network. The process tier has these.
package sim
