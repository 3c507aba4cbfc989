package consensus

import (
	"reflect"

	"github.com/hashicorp/raft"
)

// wait returns the future's outcome, or raft.ErrRaftShutdown when stop is closed first.
//
// A future of raft.Apply is never answered when Raft shuts down between handing the entry to the FSM goroutine and that
// goroutine taking it, and it cannot be abandoned: its Error waits for ever. The type has a field for exactly that,
// ShutdownCh, which Raft sets on other futures; it is set here through reflection. TestApplyFutureCanBeAbandoned fails
// when a new version of Raft has no such field; then wait would leak a goroutine at some shutdowns, and nothing worse.
func wait(f raft.Future, stop chan struct{}) error {
	if v := reflect.ValueOf(f); v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		if ch := v.Elem().FieldByName("ShutdownCh"); ch.IsValid() && ch.CanSet() && ch.Type() == reflect.TypeFor[chan struct{}]() {
			ch.Set(reflect.ValueOf(stop))
		}
	}
	return f.Error()
}
