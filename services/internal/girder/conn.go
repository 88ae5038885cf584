package girder

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// patientConn lets an answer win over a write that failed: a server that refuses
// a large request without reading it answers and resets the connection, and
// net/http would give up the answer for the error of its writing side. So once
// part of a request is written, what the other end will not take is dropped, and
// the reading side tells how it ended: with an answer, or with the same error.
type patientConn struct {
	net.Conn
	begun  atomic.Bool // part of the request is written
	reset  atomic.Bool // the other end takes no more
	closed atomic.Bool
}

func (c *patientConn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// begin says that another request begins on a connection.
func begin(on net.Conn) {
	for secure, ok := on.(*tls.Conn); ok; secure, ok = on.(*tls.Conn) { // two where a proxy speaks TLS, too
		on = secure.NetConn()
	}
	if c, ok := on.(*patientConn); ok {
		c.begun.Store(false)
	}
}

func (c *patientConn) Write(p []byte) (int, error) {
	if c.reset.Load() {
		return c.dropped(p)
	}
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.begun.Store(true)
	}
	// Of a request that has not begun net/http knows that it can be sent again.
	if err != nil && c.begun.Load() && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		c.reset.Store(true)
		return c.dropped(p)
	}
	return n, err
}

func (c *patientConn) dropped(p []byte) (int, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	return len(p), nil
}

// outBuffers are for bodies that are sent. Buffers larger than what io.Copy uses
// save three system calls in four.
var outBuffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

// ReadFrom is what net/http copies a body with.
func (c *patientConn) ReadFrom(from io.Reader) (int64, error) {
	buffer := outBuffers.Get().(*[128 << 10]byte)
	defer outBuffers.Put(buffer)
	return io.CopyBuffer(writerOnly{c}, readerOnly{from}, buffer[:])
}

// writerOnly and readerOnly hide what else they have from io.CopyBuffer, which
// would not use the buffer.
type (
	writerOnly struct{ io.Writer }
	readerOnly struct{ io.Reader }
)
