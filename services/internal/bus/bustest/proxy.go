// Package bustest breaks connections to NATS at a chosen message, for tests of
// what a service leaves behind that dies, or loses an answer, between any two
// of its steps.
package bustest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gantry-worker/gantry/contracts/client"
)

// Verdict is what becomes of a message that a client publishes; requests to
// JetStream are such messages too.
type Verdict int

// The verdicts.
const (
	// Pass lets the server have it.
	Pass Verdict = iota
	// Cut breaks the connection before the server has it.
	Cut
	// LoseAnswer breaks the connection after the server has it, and before the
	// client learns that.
	LoseAnswer
)

// Proxy stands between clients and a NATS server.
type Proxy struct {
	listener net.Listener
	server   string
	config   client.Config

	judging sync.Mutex
	judge   func(subject string) Verdict
	// steps judges in place of judge, where there is one: step counts, and before
	// is what the last one published.
	steps  func(step int, subject string) Verdict
	step   int
	before string

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]bool
	all    sync.WaitGroup
}

// Start starts a proxy in front of the server that config names, of a cluster
// the first. It ends with the test.
func Start(t testing.TB, config client.Config) *Proxy {
	t.Helper()
	first, _, _ := strings.Cut(config.URL, ",")
	u, err := url.Parse(first)
	if err != nil {
		t.Fatalf("parse the server's URL: %v", err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	config.URL = "nats://" + listener.Addr().String()
	p := &Proxy{listener: listener, server: u.Host, config: config, conns: map[net.Conn]bool{}}
	p.all.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Config says how to reach the server through the proxy.
func (p *Proxy) Config() client.Config { return p.config }

// Judge calls judge for each message that a client publishes from now on,
// one at a time, before the server has it. Nil lets all pass; the earlier judge
// is through with its last case when Judge returns.
func (p *Proxy) Judge(judge func(subject string) Verdict) {
	p.judging.Lock()
	defer p.judging.Unlock()
	p.judge, p.steps = judge, nil
}

// JudgeSteps is Judge for one who does one thing after the other: judge also gets
// the message's number, from 1 on. What is published again right away, as its
// answer does not come on a machine that stands still, is the same step.
func (p *Proxy) JudgeSteps(judge func(step int, subject string) Verdict) {
	p.judging.Lock()
	defer p.judging.Unlock()
	p.steps, p.step, p.before = judge, 0, ""
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.all.Wait()
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.all.Go(func() { p.serve(conn) })
	}
}

func (p *Proxy) own(conn net.Conn) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[conn] = true
	if p.closed {
		_ = conn.Close()
	}
	return func() {
		_ = conn.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, conn)
	}
}

func (p *Proxy) serve(from net.Conn) {
	defer p.own(from)()
	to, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer p.own(to)()
	var lost atomic.Bool
	var answers sync.WaitGroup
	answers.Go(func() {
		_, _ = io.Copy(unless(&lost, from), to)
		_ = from.Close()
	})
	p.forward(from, to, &lost)
	// The server reads to the end before it closes.
	_ = to.(*net.TCPConn).CloseWrite()
	_ = from.Close()
	answers.Wait()
}

// forward passes on what the client says until it ends or is cut off.
func (p *Proxy) forward(from, to net.Conn, lost *atomic.Bool) {
	reader := bufio.NewReader(from)
	for {
		op, subject, content, err := readOp(reader)
		if err != nil {
			return
		}
		verdict := p.verdict(subject, content)
		if verdict == Cut {
			return
		}
		if verdict == LoseAnswer {
			lost.Store(true)
		}
		if _, err := to.Write(op); err != nil || verdict == LoseAnswer {
			return
		}
	}
}

func (p *Proxy) verdict(subject string, content []byte) Verdict {
	p.judging.Lock()
	defer p.judging.Unlock()
	switch {
	case subject == "":
		return Pass
	case p.steps != nil:
		if message := subject + " " + string(content); message != p.before {
			p.before = message
			p.step++
		}
		return p.steps(p.step, subject)
	case p.judge != nil:
		return p.judge(subject)
	}
	return Pass
}

// readOp reads one operation of the client protocol; subject and content, with
// its headers, are those of a message, empty for any other operation.
func readOp(reader *bufio.Reader) (op []byte, subject string, content []byte, err error) {
	line, err := reader.ReadBytes('\n')
	if err != nil {
		return nil, "", nil, err
	}
	fields := bytes.Fields(line)
	if len(fields) < 3 || !bytes.Equal(fields[0], []byte("PUB")) && !bytes.Equal(fields[0], []byte("HPUB")) {
		return line, "", nil, nil
	}
	size, err := strconv.Atoi(string(fields[len(fields)-1]))
	if err != nil {
		return nil, "", nil, fmt.Errorf("size of a message: %w", err)
	}
	body := make([]byte, size+len("\r\n"))
	if _, err := io.ReadFull(reader, body); err != nil {
		return nil, "", nil, err
	}
	return append(line, body...), string(fields[1]), body, nil
}

// unless writes to w until stop is set, and then nowhere.
func unless(stop *atomic.Bool, w io.Writer) io.Writer {
	return writer(func(data []byte) (int, error) {
		if stop.Load() {
			return len(data), nil
		}
		n, err := w.Write(data)
		if errors.Is(err, net.ErrClosed) {
			return len(data), nil // read on: the server is to come to its end
		}
		return n, err
	})
}

type writer func([]byte) (int, error)

func (w writer) Write(data []byte) (int, error) { return w(data) }
