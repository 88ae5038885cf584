package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// connectTime is more than a machine with a lot to do stands still: the next
	// try is the next attempt's.
	connectTime = 30 * time.Second
	// lastWords is how long an answer is waited for that a server may have sent
	// before it broke the connection, and how long its text may take.
	lastWords = 2 * time.Second
	maxSays   = 200
)

// Post is one POST with chunked transfer encoding. It is HTTP 1.1 over a
// connection of its own, without a proxy; each read of the pipe is sent as one
// chunk, at once.
type Post struct {
	url     *url.URL
	header  http.Header
	secrets []string
	tls     *tls.Config // nil: the system's authorities
	wait    time.Duration
	words   time.Duration // lastWords, or what tests say in which they always come

	// Paced bounds how fast the bytes are read; such a reader ends its waits with
	// the context. May be nil.
	Paced func(ctx context.Context, from io.Reader) io.Reader
}

// ours are the headers that belong to the request itself.
var ours = []string{"Connection", "Content-Length", "Expect", "Host", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// NewPost checks the URL. The headers' values are secrets. wait is how long the
// server may take to answer after it has everything, and to take what is sent.
func NewPost(raw string, headers map[string]string, wait time.Duration) (*Post, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, ErrBadURL // the parser's error would repeat what may be a secret
	}
	p := &Post{url: u, header: http.Header{"User-Agent": {"gantry"}, "Content-Type": {"application/octet-stream"}}, wait: wait, words: lastWords}
	for name, value := range headers {
		p.header.Set(name, value)
		p.keepSecret(value)
	}
	for _, name := range ours {
		p.header.Del(name)
	}
	p.keepSecret(u.RawQuery)
	for _, values := range u.Query() {
		p.keepSecret(values...)
	}
	if u.User != nil && p.header.Get("Authorization") == "" {
		password, _ := u.User.Password()
		request := http.Request{Header: p.header}
		request.SetBasicAuth(u.User.Username(), password)
		p.keepSecret(password, p.header.Get("Authorization"))
	}
	slices.SortFunc(p.secrets, func(a, b string) int { return len(b) - len(a) }) // one may be a part of another
	return p, nil
}

// keepSecret takes in what no message may repeat. A server may name the token
// alone that came as "Bearer <token>".
func (p *Post) keepSecret(values ...string) {
	for _, value := range values {
		if len(value) >= 4 {
			p.secrets = append(p.secrets, value)
		}
		for _, part := range strings.Fields(value) {
			if len(part) >= 8 {
				p.secrets = append(p.secrets, part)
			}
		}
	}
}

// Where is the URL without what may be secret.
func (p *Post) Where() string { return p.url.Host + p.url.Path }

// Drain sends all that a container writes. The connection is made for the first
// byte, or for the end where there is none. Without an error the server has
// everything and said so.
func (p *Post) Drain(ctx context.Context, from *Outlet) error {
	defer from.until(ctx)()
	err := p.drain(ctx, from)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return err
}

func (p *Post) drain(ctx context.Context, from *Outlet) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body := p.body(ctx, from)
	defer body.stop()
	if err := body.begin(); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url.String(), body)
	if err != nil {
		return ErrBadURL
	}
	req.Header, req.ContentLength = p.header, -1
	resp, err := p.transport(body).RoundTrip(req)
	sent := body.ended.Load()
	if err != nil {
		body.finish()
		return p.broken(err, body.err)
	}
	answer := &Refused{Where: p.Where(), Status: resp.StatusCode, Early: !sent}
	if resp.StatusCode/100 != 2 {
		timer := time.AfterFunc(p.words, cancel)
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4*maxSays)) // as much as came
		timer.Stop()
		answer.Says = p.says(text)
	}
	_ = resp.Body.Close() // its connection ends with it
	body.finish()
	if resp.StatusCode/100 != 2 || !sent {
		return answer
	}
	return nil
}

// broken tells what ended a request without an answer: the pipe, or the network.
func (p *Post) broken(err, pipe error) error {
	left := false
	for _, end := range []error{errAnswered, io.EOF, io.ErrUnexpectedEOF} {
		left = left || errors.Is(err, end)
	}
	switch {
	case pipe != nil && !errors.Is(pipe, errAnswered):
		return pipe
	case left:
		return fmt.Errorf("POST %s: the server closed the connection without an answer", p.Where())
	}
	if certificate := new(tls.CertificateVerificationError); errors.As(err, &certificate) {
		return fmt.Errorf("POST %s: %w", p.Where(), err)
	}
	return fmt.Errorf("POST %s: %s", p.Where(), p.says([]byte(err.Error()))) // net/http repeats what it cannot read
}

// transport is for one request. It follows no redirect, as no transport does.
func (p *Post) transport(body *body) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	config := p.tls
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	dialer := net.Dialer{Timeout: connectTime, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Protocols: protocols, DisableKeepAlives: true, DisableCompression: true,
		TLSClientConfig: config, TLSHandshakeTimeout: connectTime, ResponseHeaderTimeout: p.wait, WriteBufferSize: buffer,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &conn{Conn: c, body: body, wait: p.wait, words: p.words, closed: make(chan struct{})}, nil
		},
	}
}

// says makes one line of the beginning of what a server sent, without our secrets.
func (p *Post) says(text []byte) string {
	line := strings.Join(strings.Fields(strings.ToValidUTF8(string(text), "\uFFFD")), " ")
	for _, secret := range p.secrets {
		line = strings.ReplaceAll(line, secret, "***")
	}
	if len(line) > maxSays {
		line = strings.ToValidUTF8(line[:maxSays], "") + " …"
	}
	return line
}

// errAnswered interrupts a pipe whose server has spoken, or has left.
var errAnswered = errors.New("answered")

// body is what a request reads, and waits for: the transport's goroutine does.
type body struct {
	ended  atomic.Bool // everything was read
	once   sync.Once
	closed chan struct{}

	pipe interface{ Interrupt(error) }
	stop func() // ends the reader's waits

	mu    sync.Mutex // the transport may close what it still reads
	from  io.Reader
	first []byte // read before there was a connection
	err   error  // why there is no more
}

// body reads an outlet as fast as it may.
func (p *Post) body(ctx context.Context, from *Outlet) *body {
	b := &body{closed: make(chan struct{}), pipe: from.Pipe, from: from, stop: func() {}}
	if p.Paced != nil {
		ctx, cancel := context.WithCancelCause(ctx)
		b.stop = func() { cancel(errAnswered) }
		b.from = p.Paced(ctx, from)
	}
	return b
}

// interrupt ends a read that waits.
func (b *body) interrupt() {
	b.pipe.Interrupt(errAnswered)
	b.stop()
}

// begin waits for the first bytes, or for the end where there are none.
func (b *body) begin() error {
	p := make([]byte, buffer)
	n, err := b.from.Read(p)
	if b.first = p[:n]; n > 0 || errors.Is(err, io.EOF) {
		return nil // an end comes again with the next read
	}
	return err
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.closed:
		return 0, errAnswered
	default:
	}
	if len(b.first) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	n, err := b.from.Read(p)
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
	} else if err != nil {
		b.err = err
	}
	return n, err
}

// finish returns when nobody reads any more.
func (b *body) finish() {
	b.interrupt()
	<-b.closed
	b.mu.Lock()
	defer b.mu.Unlock()
}

// Close is called by the transport, always, and sometimes more than once.
func (b *body) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// conn makes the transport see what a server says and does while the container
// stands still, or while its bytes are not taken any more.
type conn struct {
	net.Conn
	body   *body
	wait   time.Duration
	words  time.Duration
	once   sync.Once
	closed chan struct{}
}

// Write gives a server up that takes nothing any more, and leaves one that broke
// the connection the time to have said why.
func (c *conn) Write(p []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(c.wait)) // fails only for what is closed
	n, err := c.Conn.Write(p)
	if err != nil {
		timer := time.NewTimer(c.words)
		defer timer.Stop()
		select {
		case <-c.closed:
		case <-timer.C:
		}
	}
	return n, err
}

// Close ends the wait for what the container writes, too.
func (c *conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.body.interrupt()
	return c.Conn.Close()
}
