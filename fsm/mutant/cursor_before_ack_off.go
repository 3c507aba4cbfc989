//go:build !mutant_cursor_before_ack

package mutant

// CursorBeforeAck: the cursor of a session moves when a message is sent (breaks P1).
const CursorBeforeAck = false
