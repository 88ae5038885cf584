package setup

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Gate is the way of the node's transfer to Girder. It counts the bytes that
// pass, and lets no more than so many through until it is opened: whoever waits
// for a number of bytes meets a transfer in the middle of a file, however fast
// the machine is.
type Gate struct {
	// URL is the API URL behind the gate.
	URL string
	// Answers are the bytes from Girder, Requests those to it.
	Answers, Requests *Flow

	listener net.Listener
	server   string
	all      sync.WaitGroup

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]bool
}

// startGate puts a gate before an API.
func startGate(t testing.TB, api string) *Gate {
	t.Helper()
	u, err := url.Parse(api)
	if err != nil {
		t.Fatalf("start gate: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start gate: %v", err)
	}
	g := &Gate{listener: listener, server: u.Host, conns: map[net.Conn]bool{}, Answers: newFlow(t), Requests: newFlow(t)}
	u.Host = listener.Addr().String()
	g.URL = u.String()
	g.all.Go(g.accept)
	t.Cleanup(g.close)
	return g
}

func (g *Gate) close() {
	_ = g.listener.Close() // it accepts no more
	g.Answers.Open()
	g.Requests.Open()
	g.mu.Lock()
	for conn := range g.conns {
		_ = conn.Close()
	}
	g.mu.Unlock()
	g.all.Wait()
}

func (g *Gate) accept() {
	for {
		conn, err := g.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			g.all.Go(func() { g.serve(conn) })
		}
	}
}

// own notes a connection until it is closed.
func (g *Gate) own(conn net.Conn) func() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[conn] = true
	return func() {
		_ = conn.Close()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.conns, conn)
	}
}

func (g *Gate) serve(from net.Conn) {
	defer g.own(from)()
	to, err := net.Dial("tcp", g.server)
	if err != nil {
		return
	}
	defer g.own(to)()
	var both sync.WaitGroup
	defer both.Wait()
	both.Go(func() { g.Answers.carry(from, to) })
	both.Go(func() { g.Requests.carry(to, from) })
}

// step is how many bytes pass before they are counted: that much more than it
// was told may come through a gate, on each connection.
const step = 1 << 20

// Flow is one direction of a gate.
type Flow struct {
	t testing.TB

	mu      sync.Mutex
	passed  int64
	limit   int64         // no limit if negative
	changed chan struct{} // closed and replaced with each change
}

func newFlow(t testing.TB) *Flow { return &Flow{t: t, limit: -1, changed: make(chan struct{})} }

// HoldAt lets no byte through once so many have passed from now on.
func (f *Flow) HoldAt(bytes int64) { f.change(func() { f.passed, f.limit = 0, bytes }) }

// Open lets everything through.
func (f *Flow) Open() { f.change(func() { f.limit = -1 }) }

// Passed is how many bytes have passed since [Flow.HoldAt].
func (f *Flow) Passed() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.passed
}

// Await waits until so many bytes have passed.
func (f *Flow) Await(ctx context.Context, bytes int64) {
	f.t.Helper()
	for {
		f.mu.Lock()
		passed, changed := f.passed, f.changed
		f.mu.Unlock()
		if passed >= bytes {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			f.t.Fatalf("%d bytes came through the gate, and %d were waited for", passed, bytes)
		}
	}
}

func (f *Flow) change(to func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	to()
	close(f.changed)
	f.changed = make(chan struct{})
}

// admitted waits until bytes may pass.
func (f *Flow) admitted() {
	for {
		f.mu.Lock()
		held, changed := f.limit >= 0 && f.passed >= f.limit, f.changed
		f.mu.Unlock()
		if !held {
			return
		}
		<-changed
	}
}

// carry moves bytes until either end is closed. In steps: what is copied between
// connections need not come through this process.
func (f *Flow) carry(to, from net.Conn) {
	defer to.Close() //nolint:errcheck // its owner closes it again
	for {
		f.admitted()
		n, err := io.CopyN(to, from, step)
		f.change(func() { f.passed += n })
		if err != nil {
			return
		}
	}
}
