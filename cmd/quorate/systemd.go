package main

import (
	"log/slog"
	"net"
	"strings"
)

// notifier tells systemd how the service is (sd_notify(3), Type=notify). Without systemd it does nothing.
type notifier struct{ socket string }

func newNotifier(environ []string) notifier {
	for _, e := range environ {
		if path, ok := strings.CutPrefix(e, "NOTIFY_SOCKET="); ok {
			return notifier{path}
		}
	}
	return notifier{}
}

// tell sends one state. A failure is logged: the service works, but systemd may wait for it in vain.
func (n notifier) tell(logger *slog.Logger, state string) {
	if n.socket == "" {
		return
	}
	// A leading @ is an abstract socket; package net knows that convention too.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		logger.Warn("systemd cannot be told", "err", err)
		return
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		logger.Warn("systemd cannot be told", "err", err)
	}
}
