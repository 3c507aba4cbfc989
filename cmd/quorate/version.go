package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is the version of a release, set by the linker: -ldflags "-X main.release=1.2.3".
var release = "dev"

// version prints what this binary is.
func version(_ context.Context, con console, _ []string) int {
	commit := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				commit = " " + s.Value[:min(12, len(s.Value))] + commit
			case "vcs.modified":
				if s.Value == "true" {
					commit += " (modified)"
				}
			}
		}
	}
	fmt.Fprintf(con.out, "quorate %s%s %s %s/%s\n", release, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return exitOK
}
