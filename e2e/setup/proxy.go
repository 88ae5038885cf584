package setup

import (
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
)

// Proxy is an HTTP proxy that makes tunnels (CONNECT) for those who know its
// password. It alone knows where a host is: whoever reaches that came through it.
type Proxy struct {
	// URL has user and password in it.
	URL string

	auth    string
	hosts   map[string]string
	server  *http.Server
	serving sync.WaitGroup

	mu     sync.Mutex // guards what follows
	asked  []string
	conns  map[net.Conn]bool
	closed bool
}

// StartProxy starts a proxy that finds each of the hosts, such as
// girder.example:443, at its address. Others are refused.
func StartProxy(t testing.TB, user, password string, hosts map[string]string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start proxy: %v", err)
	}
	p := &Proxy{
		URL: "http://" + user + ":" + password + "@" + listener.Addr().String(), hosts: hosts, conns: map[net.Conn]bool{},
		auth: "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)),
	}
	p.server = &http.Server{Handler: http.HandlerFunc(p.connect)}
	p.serving.Go(func() {
		if err := p.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the proxy ended: %v", err)
		}
	})
	t.Cleanup(p.close)
	return p
}

// Asked are the hosts that tunnels were wanted to, in order.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

func (p *Proxy) close() {
	_ = p.server.Close()
	p.mu.Lock()
	p.closed = true
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.serving.Wait()
}

func (p *Proxy) connect(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Host)
	p.mu.Unlock()
	to, known := p.hosts[r.Host]
	switch {
	case r.Method != http.MethodConnect:
		http.Error(w, "only tunnels", http.StatusMethodNotAllowed)
		return
	case r.Header.Get("Proxy-Authorization") != p.auth:
		http.Error(w, "no", http.StatusProxyAuthRequired)
		return
	case !known:
		http.Error(w, "no such host", http.StatusBadGateway)
		return
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = server.Close()
		return
	}
	p.tunnel(client, server)
}

// tunnel moves bytes both ways until both ends are closed.
func (p *Proxy) tunnel(client, server net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	if err != nil || p.closed {
		_ = errors.Join(client.Close(), server.Close())
		return
	}
	p.conns[client], p.conns[server] = true, true
	p.serving.Go(func() { p.carry(server, client) })
	p.serving.Go(func() { p.carry(client, server) })
}

func (p *Proxy) carry(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = errors.Join(to.Close(), from.Close())
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, from)
}
