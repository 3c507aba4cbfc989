package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"quorate/node"
	"quorate/node/config"
)

// shutdownGrace comes on top of the time that the node gives itself.
const shutdownGrace = 5 * time.Second

// serve runs one node until a signal ends it in good order, or it cannot go on.
func serve(ctx context.Context, con console, args []string) int {
	cfg, ok := loadConfig(con, args)
	if !ok {
		return exitUsage
	}
	logger := newLogger(con.err, &cfg)
	// A first signal ends the node in good order, a second one at once.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGHUP) // reserved for reading the settings again; without this it would end the process
	context.AfterFunc(ctx, stop)

	if err := runNode(ctx, con, cfg, logger); err != nil {
		logger.Error("node failed", "err", err)
		return exitFailed
	}
	return exitOK
}

// runNode runs a node from its first to its last breath.
func runNode(ctx context.Context, con console, cfg config.Config, logger *slog.Logger) (err error) {
	n, err := node.New(node.Options{
		Config: cfg, Version: release, Logger: logger,
		// The node has logged why. What is not on the disk by now must not get there: so no orderly end.
		Fatal: func(error) { os.Exit(exitFailed) },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if err := n.Start(); err != nil {
		return err
	}
	systemd := newNotifier(con.environ)
	// Type=notify waits for the process to be up, not for a cluster: that may need machines not started yet.
	systemd.tell(logger, "READY=1\nSTATUS=serving clients as soon as there is a leader")
	err = n.Wait(ctx)
	systemd.tell(logger, "STOPPING=1")
	// Close keeps to its time as far as it can; whatever should hang beyond must not keep the process.
	time.AfterFunc(cfg.ShutdownTimeout+shutdownGrace, func() {
		logger.Error("the orderly end takes too long, ending now")
		os.Exit(exitFailed)
	})
	return err
}

// newLogger writes to w as the settings say.
func newLogger(w io.Writer, cfg *config.Config) *slog.Logger {
	opt := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}

// loadConfig reads the settings of serve. It reports problems itself.
func loadConfig(con console, args []string) (config.Config, bool) {
	// Without a name of its own the host is called quorate; that is no error.
	hostname, _ := os.Hostname()
	cfg, err := config.Load(config.Source{Args: args, Environ: con.environ, Hostname: hostname})
	if err != nil {
		fmt.Fprintf(con.err, "quorate: %v\n", err)
		return cfg, false
	}
	return cfg, true
}
