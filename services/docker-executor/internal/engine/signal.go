package engine

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// SignalOf names the signal that an exit code stands for: a process that
// signal n killed ends with 128 + n. Empty for all other codes.
func SignalOf(code int) string {
	if code <= 128 || code > 128+64 {
		return ""
	}
	return unix.SignalName(syscall.Signal(code - 128))
}
