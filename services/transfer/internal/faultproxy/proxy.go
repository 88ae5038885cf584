package faultproxy

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
)

// Options of a [Proxy]. Their zero value passes everything on.
type Options struct {
	Seed   uint64
	Rate   float64        // of the requests that go wrong, of 1
	Most   int            // how many may go wrong in all
	Kinds  []Kind         // nil: all
	Always map[Route]Kind // what happens to every request of a route, without a limit
}

func (o Options) kinds() []Kind {
	if o.Kinds == nil {
		return Kinds
	}
	return o.Kinds
}

// Proxy is a running proxy. Its methods may be called at any time.
type Proxy struct {
	target    *url.URL
	listener  net.Listener
	transport *http.Transport
	plan      plan
	account   *account
	accepting sync.WaitGroup

	mu        sync.Mutex
	changed   *sync.Cond // conns
	conns     map[net.Conn]bool
	down      bool
	interrupt *interrupt
}

// interrupt is something to do at a request.
type interrupt struct {
	left     int // requests until then
	answered bool
	do       func()
}

// Start listens on the loopback interface, in front of the Girder whose API URL
// is given. Close ends what Start began.
func Start(apiURL string, o Options) (*Proxy, error) {
	target, err := url.Parse(apiURL)
	if err != nil {
		return nil, fmt.Errorf("target of the proxy: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		target: target, listener: listener, transport: &http.Transport{MaxIdleConnsPerHost: 8},
		plan: plan{options: o, seen: map[Route]uint64{}}, account: newAccount(), conns: map[net.Conn]bool{},
	}
	p.changed = sync.NewCond(&p.mu)
	p.accepting.Go(p.accept)
	return p, nil
}

// APIURL is the API URL behind the proxy.
func (p *Proxy) APIURL() string { return "http://" + p.listener.Addr().String() + p.target.Path }

// Close breaks all connections and returns when nothing is under way any more.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.accepting.Wait()
	p.Cut()
	p.mu.Lock()
	p.settle()
	p.mu.Unlock()
	p.transport.CloseIdleConnections()
	return err
}

// Cut breaks all connections, and each new one, until Mend. What has reached
// Girder goes on there.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for conn := range p.conns {
		_ = conn.Close()
	}
}

// Mend ends Cut, as soon as no request from before is under way.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		p.settle()
	}
	p.down = false
}

// settle waits until no connection is left of those that were cut.
func (p *Proxy) settle() {
	for len(p.conns) > 0 {
		p.changed.Wait()
	}
}

// Interrupt calls do, once, at the next request behind so many others: before
// it is passed on or, answered, when Girder has answered and the client has
// not heard of it. A request that is lost otherwise does not count. An earlier
// Interrupt is forgotten, and with no do there is none.
func (p *Proxy) Interrupt(behind int, answered bool, do func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interrupt = &interrupt{left: behind, answered: answered, do: do}
}

// moment returns what is to be done at a request, before or after Girder has it.
func (p *Proxy) moment(answered bool) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.interrupt
	if i == nil || i.do == nil || i.answered != answered {
		return func() {}
	}
	if i.left--; i.left >= 0 {
		return func() {}
	}
	p.interrupt = nil
	return i.do
}

// goesOn does what is to be done at a request and reports whether the
// connections are still there then.
func (p *Proxy) goesOn(answered bool) bool {
	p.moment(answered)()
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.down
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		if !p.enter(conn) {
			_ = conn.Close()
			continue
		}
		go func() { // settle waits for it
			defer p.leave(conn)
			c := &client{Proxy: p, conn: conn, reader: bufio.NewReader(conn)}
			for c.exchange() {
			}
		}()
	}
}

func (p *Proxy) enter(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return false
	}
	p.conns[conn] = true
	return true
}

func (p *Proxy) leave(conn net.Conn) {
	_ = conn.Close() // may be closed already
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	p.changed.Broadcast()
}
