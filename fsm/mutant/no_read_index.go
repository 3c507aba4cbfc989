//go:build mutant_no_read_index

package mutant

// NoReadIndex: a message off the log is acknowledged without a fresh read index (breaks P2).
const NoReadIndex = true
