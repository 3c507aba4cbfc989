//go:build !mutant_no_epoch_check

package mutant

// NoEpochCheck: commands of an old connection of a session are applied (breaks P3 and P4).
const NoEpochCheck = false
