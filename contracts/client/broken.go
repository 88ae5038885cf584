package client

import (
	"errors"
	"io"
	"net"
)

// ConnectionBroke reports whether an error is one of the connection's socket.
// nats.go returns those as they are where a message fills its write buffer (32
// KiB) just when the connection breaks, before it knows itself that it is not
// connected any more. Whether the server has the message is open.
func ConnectionBroke(err error) bool {
	var network net.Error
	return errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, io.ErrShortWrite)
}
