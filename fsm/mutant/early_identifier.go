//go:build mutant_early_identifier

package mutant

// EarlyIdentifier: PUBCOMP is sent before the release of the identifier is committed (breaks P3).
const EarlyIdentifier = true
