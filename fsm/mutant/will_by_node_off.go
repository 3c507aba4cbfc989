//go:build !mutant_will_by_node

package mutant

// WillByNode: a will is sent when the node that holds the connection says so, and dies with it (breaks P6).
const WillByNode = false
