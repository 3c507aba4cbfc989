package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// pub publishes the messages that its flags describe, and waits until the broker has acknowledged all of them.
func pub(ctx context.Context, con console, args []string) int {
	opt, err := parseClient("pub", args)
	if err != nil {
		return clientUsage(con, "pub", err)
	}
	m, err := newMQTTClient(con, opt)
	if err != nil {
		return clientUsage(con, "pub", err)
	}
	source, err := opt.payloads(con.in)
	if err != nil {
		m.complain("Error: %s", plain(err))
		return exitFailed
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := newPublisher(m, source)
	if err := p.run(ctx); err != nil {
		return m.fail(err)
	}
	return p.worst
}

// payloads returns a function that gives one payload after the other, and io.EOF after the last.
func (o *clientOptions) payloads(in io.Reader) (func() ([]byte, error), error) {
	var message []byte
	var err error
	switch o.pub.source {
	case "message":
		message = o.pub.message
	case "file":
		message, err = os.ReadFile(o.pub.file)
	case "stdin":
		message, err = io.ReadAll(in)
	case "lines":
		lines := bufio.NewReader(in)
		return func() ([]byte, error) {
			line, err := lines.ReadBytes('\n')
			if len(line) == 0 {
				return nil, err
			}
			if line[len(line)-1] == '\n' {
				line = line[:len(line)-1]
			}
			return line, nil // an error comes again with the next call
		}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	left := o.pub.repeat
	return func() ([]byte, error) {
		if left == 0 {
			return nil, io.EOF
		}
		left--
		return message, nil
	}, nil
}
