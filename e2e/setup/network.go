package setup

import (
	"errors"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Network is the way of a node's executor to NATS, which can be cut: what was
// sent goes nowhere and nothing comes, as with a cable that was pulled, and
// neither side is told.
type Network struct {
	// URL is where the executor connects to.
	URL string

	listener net.Listener
	server   string
	all      sync.WaitGroup

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]bool
	mend  chan struct{} // closed when the network is whole
}

func startNetwork(t testing.TB, server string) *Network {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("start network: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start network: %v", err)
	}
	n := &Network{
		URL: "nats://" + listener.Addr().String(), listener: listener, server: u.Host,
		conns: map[net.Conn]bool{}, mend: make(chan struct{}),
	}
	close(n.mend)
	n.all.Go(n.accept)
	t.Cleanup(n.close)
	return n
}

// Cut takes the network away.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mend = make(chan struct{})
}

// Mend brings the network back. What was on its way arrives.
func (n *Network) Mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.mend:
	default:
		close(n.mend)
	}
}

// whole is closed while the network is whole, or when it is again.
func (n *Network) whole() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mend
}

func (n *Network) close() {
	n.Mend()
	_ = n.listener.Close() // it accepts no more
	n.mu.Lock()
	for conn := range n.conns {
		_ = conn.Close()
	}
	n.mu.Unlock()
	n.all.Wait()
}

func (n *Network) accept() {
	for {
		conn, err := n.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			n.all.Go(func() { n.serve(conn) })
		}
	}
}

// own notes a connection until it is closed.
func (n *Network) own(conn net.Conn) func() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[conn] = true
	return func() {
		_ = conn.Close()
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.conns, conn)
	}
}

func (n *Network) serve(from net.Conn) {
	defer n.own(from)()
	<-n.whole()
	to, err := net.Dial("tcp", n.server)
	if err != nil {
		return
	}
	defer n.own(to)()
	var both sync.WaitGroup
	defer both.Wait()
	both.Go(func() { n.carry(from, to) })
	both.Go(func() { n.carry(to, from) })
}

// carry moves bytes one way until either end is closed.
func (n *Network) carry(to, from net.Conn) {
	defer to.Close() //nolint:errcheck // its owner closes it again
	buffer := make([]byte, 64<<10)
	for {
		got, err := from.Read(buffer)
		<-n.whole()
		if _, writeErr := to.Write(buffer[:got]); writeErr != nil || err != nil {
			return
		}
	}
}
