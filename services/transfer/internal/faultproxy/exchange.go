package faultproxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"

	"golang.org/x/sys/unix"
)

// client is one connection to the proxy.
type client struct {
	*Proxy
	conn   net.Conn
	reader *bufio.Reader
}

// asked is one request on its way.
type asked struct {
	*http.Request
	fault
	route Route
	began string // the upload whose id the answer tells
}

// exchange deals with one request and reports whether the connection can take another.
func (c *client) exchange() (more bool) {
	r, err := http.ReadRequest(c.reader)
	if err != nil {
		return false
	}
	q := &asked{Request: r, route: routeOf(r)}
	c.account.came(r, q.route)
	q.fault = c.plan.next(q.route, r.ContentLength > 0)
	refusal, isRefused := refusals[q.kind]
	switch {
	case !c.goesOn(false):
		return false
	case isRefused && (q.kind == RateLimited || !q.done):
		return c.refuse(q, refusal)
	case q.kind == CutRequest:
		return c.passPart(q)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false
	}
	got, err := c.deliver(q, body)
	if err != nil || !c.goesOn(true) {
		return false
	}
	return c.reply(q, got)
}

// refuse answers for Girder, which does not hear of the request.
func (c *client) refuse(q *asked, refusal answer) (more bool) {
	c.account.count(q)
	if q.early && q.ContentLength > 0 {
		c.send(refusal.raw(len(refusal.body)))
		return false // and so resets the connection, with a body that nobody reads
	}
	if _, err := io.Copy(io.Discard, q.Body); err != nil {
		return false
	}
	return c.send(refusal.raw(len(refusal.body)))
}

// passPart lets the connection break in the request's body.
func (c *client) passPart(q *asked) (more bool) {
	part, err := io.ReadAll(io.LimitReader(q.Body, int64(q.at*float64(q.ContentLength))))
	if err != nil {
		return false
	}
	_, _ = c.pass(q.Request, broken(part), q.ContentLength) // Girder may have refused it before
	c.account.count(q)
	if q.route == Artifact {
		c.account.partAttached()
	}
	return c.hangUp(q)
}

// deliver has Girder do what is asked.
func (c *client) deliver(q *asked, body []byte) (answer, error) {
	switch {
	case len(body) == 0:
	case q.kind == ShortBody:
		body = body[:int(q.at*float64(len(body)))]
		c.account.count(q)
	case q.kind == CorruptUpload:
		body = spoiled(body, q.at)
		c.account.count(q)
	}
	got, err := c.passOn(q, body)
	makes := q.Method == http.MethodPost && (q.route == Empty || q.route == Artifact)
	if err == nil && makes && got.status/100 == 2 && c.isGone() {
		c.account.madeTwice(q.Request) // it may have looked before the file was there, and asks again
	}
	if err != nil || q.kind != Duplicate {
		return got, err
	}
	first, began := got, q.began
	if got, err = c.passOn(q, body); err != nil {
		return got, err
	}
	c.account.count(q)
	if makes && first.status/100 == 2 && got.status/100 == 2 {
		c.account.madeTwice(q.Request)
	}
	if !q.second {
		got, q.began = first, began
	}
	return got, nil
}

// isGone reports whether the client has given up a connection that is not cut.
func (c *client) isGone() bool {
	on, ok := c.conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := on.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Read(func(fd uintptr) bool {
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		gone = n == 0 && err == nil || err != nil && !errors.Is(err, unix.EAGAIN)
		return true
	})
	return gone && err == nil
}

// passOn passes on a request as it is now, and notes the upload that it begins.
func (c *client) passOn(q *asked, body []byte) (answer, error) {
	got, err := c.pass(q.Request, bytes.NewReader(body), int64(len(body)))
	if err == nil {
		c.account.answered(q.Request, got)
	}
	if err == nil && q.route == Begin {
		q.began = c.account.begun(got)
	}
	return got, err
}

// pass sends a request to Girder, whether or not its client waits any longer.
func (c *client) pass(r *http.Request, body io.Reader, length int64) (answer, error) {
	to := *r.URL
	to.Scheme, to.Host = c.target.Scheme, c.target.Host
	out, err := http.NewRequestWithContext(context.Background(), r.Method, to.String(), body)
	if err != nil {
		return answer{}, err
	}
	out.Header, out.ContentLength = r.Header.Clone(), length
	out.Header.Del("Connection")
	if length == 0 {
		out.Body = http.NoBody
	}
	resp, err := c.transport.RoundTrip(out)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	got := answer{status: resp.StatusCode, header: resp.Header}
	got.body, err = io.ReadAll(resp.Body)
	return got, err
}

// reply passes the answer on, or what is made of it.
func (c *client) reply(q *asked, got answer) (more bool) {
	switch q.kind {
	case ServerError, BadGateway, Page:
		c.account.count(q)
		return c.send(refusals[q.kind].raw(len(refusals[q.kind].body)))
	case LostAnswer:
		c.account.count(q)
		return c.hangUp(q)
	case CutAnswer, Stall:
		return c.replyInPart(q, got)
	case LongLength:
		c.account.count(q)
		c.send(got.raw(len(got.body) + q.size))
		return false
	case ShortLength, CorruptDocument, CorruptDownload:
		if len(got.body) > 0 {
			return c.replyFalsely(q, got)
		}
	}
	if !c.send(got.raw(len(got.body))) {
		return false
	}
	c.account.told(q.began)
	return q.kind != IdleReset || c.resetIdle(q)
}

// replyInPart breaks the connection in the answer, or lets it stand still until
// the client goes.
func (c *client) replyInPart(q *asked, got answer) (more bool) {
	c.account.count(q)
	whole := got.raw(len(got.body))
	c.send(whole[:int(q.at*float64(len(whole)))])
	if q.kind == Stall {
		_, _ = io.Copy(io.Discard, c.reader)
		return false
	}
	return c.hangUp(q)
}

// replyFalsely passes on an answer with another length or other bytes.
func (c *client) replyFalsely(q *asked, got answer) (more bool) {
	c.account.count(q)
	length := len(got.body)
	switch q.kind {
	case ShortLength:
		length = int(q.at * float64(length))
	case CorruptDocument:
		got.body = blotted(got.body, q.at, q.size)
	case CorruptDownload:
		got.body = spoiled(got.body, q.at)
	}
	return c.send(got.raw(length))
}

// resetIdle ends a connection between two requests: at once, or so that the
// next one is lost on it.
func (c *client) resetIdle(q *asked) (more bool) {
	if !q.gentle {
		if _, err := c.reader.Peek(1); err != nil {
			return false
		}
	}
	c.account.count(q)
	return c.hangUp(q)
}

func (c *client) send(data []byte) bool {
	_, err := c.conn.Write(data)
	return err == nil
}

// hangUp ends the connection.
func (c *client) hangUp(q *asked) (more bool) {
	if tcp, ok := c.conn.(*net.TCPConn); ok && !q.gentle {
		_ = tcp.SetLinger(0) // a reset
	}
	return false
}
