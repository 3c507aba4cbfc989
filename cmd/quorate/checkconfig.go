package main

import (
	"context"
	"fmt"

	"quorate/node/config"
)

// checkConfig prints the settings and where they come from.
func checkConfig(_ context.Context, con console, args []string) int {
	cfg, ok := loadConfig(con, args)
	if !ok {
		return exitUsage
	}
	for _, k := range config.Keys() {
		value := k.Text(cfg)
		if value == "" {
			value = "-"
		}
		fmt.Fprintf(con.out, "%-20s %-32s %s\n", k.Name, value, cfg.Origin(k.Name))
	}
	fmt.Fprintln(con.out, "the configuration is good")
	return exitOK
}
