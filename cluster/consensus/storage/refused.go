package storage

import "fmt"

// RefusedError says why a data directory is not used, and how its node comes back.
type RefusedError struct {
	// Dir is the data directory.
	Dir string
	// Seen is what was found, in words.
	Seen string
	// Err is the cause, if there is one.
	Err error
	// Keep says that the data is well and the start was wrong: nothing is to be moved away.
	Keep bool
}

// Error implements error.
func (e *RefusedError) Error() string {
	text := fmt.Sprintf("data directory %s is refused: %s", e.Dir, e.Seen)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if !e.Keep && e.Dir != "" {
		text += fmt.Sprintf("; to bring this node back as a new server, run: mv %s %s.refused  and start it again as before", e.Dir, e.Dir)
	}
	return text
}

// Unwrap gives the cause.
func (e *RefusedError) Unwrap() error { return e.Err }
