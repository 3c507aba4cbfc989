//go:build mutant_ack_before_commit

package mutant

// AckBeforeCommit: PUBACK and PUBREC are sent before the message is committed (breaks P1).
const AckBeforeCommit = true
