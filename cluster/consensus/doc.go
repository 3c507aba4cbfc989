// Package consensus replicates the broker's state machine with hashicorp/raft: it takes commands from this node, brings
// them into the one log in order and exactly once, and tells when a read of the local machine is fresh. It knows
// nothing of MQTT; what a command means is package fsm's.
//
// # Proposals
//
// A node's commands form one ordered stream of batches (incarnation, number), see window. While one or two batches are
// under way the next one fills, so batches grow with the load and nothing waits for a timer. The leader packs the
// batches of all nodes into entries, see packer. The answer is that the node's own machine applied the batch. Whenever
// something may have been lost (another leader or term, a nack, a gap seen by the machine, a new connection, a second
// without progress) the window is simply sent again: the machine takes only the next number.
//
// Why not wait for the futures of raft.Apply? A lost reply, ErrLeadershipLost and a crash of the leader would each need
// their own way out, and the origin would still have to wait until its own machine has got there.
//
// # Reads
//
// A read index is asked of the leader: an entry of its own term is committed, it notes the commit index, and then a
// majority of the voters say, each after it was asked, that they are in no later term, see verifier. The reader waits
// until its own machine has applied that index. There is no clock in this argument.
//
// Why not raft.VerifyLeader? It counts the answers of non-voters, and it counts answers that were sent before the
// question: a leader that was stopped while a heartbeat's answer lay in its socket verifies itself with it after it was
// deposed. TestRaftVerifyLeaderTakesAnOldAnswer shows it. Our own round also waits for no disk.
//
// # What is Raft's, and what is kept away from it
//
// The heartbeat fast path is never installed (hashicorp/raft #695: state machines diverge), LeadershipTransfer is used
// only at shutdown (#696), NotifyCh, BatchApplyCh, VerifyLeader, Barrier and RestoreCommittedLogs never. An empty
// command entry stands in for the barrier, because a machine does not see barriers and its index would stay behind.
package consensus
