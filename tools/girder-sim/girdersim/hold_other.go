//go:build !linux

package girdersim

import (
	"fmt"
	"net"
)

// hold is the port of a server. Between Down and Up somebody else can take it
// here: only on Linux a port can be bound and listened on by two sockets.
type hold struct{ addr string }

func newHold(addr string) (*hold, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, err
	}
	return &hold{addr: net.JoinHostPort(host, port)}, l.Close()
}

func (h *hold) close() {}
