package docker_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// proxy stands between an Engine and the Docker engine, and misbehaves on
// request.
type proxy struct {
	t      *testing.T
	socket string
	engine *httputil.ReverseProxy

	mu     sync.Mutex
	server *http.Server
	group  sync.WaitGroup
	seen   map[string]chan struct{} // by a part of a request's URL, closed when one arrives

	// intercept answers a request instead of the engine if it returns true.
	intercept func(w http.ResponseWriter, r *http.Request) bool
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "proxy") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	target := &url.URL{Scheme: "http", Host: "docker"}
	p := &proxy{t: t, socket: filepath.Join(dir, "s"), seen: map[string]chan struct{}{}, engine: httputil.NewSingleHostReverseProxy(target)}
	transport := &http.Transport{DialContext: dialDocker}
	p.engine.Transport = transport
	p.engine.FlushInterval = -1
	p.engine.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	p.up()
	t.Cleanup(func() {
		p.down()
		transport.CloseIdleConnections()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return p
}

func dialDocker(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", "/var/run/docker.sock")
}

func (p *proxy) host() string { return "unix://" + p.socket }

// arrival returns a channel that is closed when a request arrives whose path or
// query has a part.
func (p *proxy) arrival(part string) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := make(chan struct{})
	p.seen[part] = c
	return c
}

// untilStopped is in the request that tells of a container's end. The engine is
// asked for its removal as well, before that.
const untilStopped = "/wait?condition=not-running"

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	for part, c := range p.seen {
		if strings.Contains(r.URL.RequestURI(), part) {
			close(c)
			delete(p.seen, part)
		}
	}
	intercept := p.intercept
	p.mu.Unlock()
	if intercept == nil || !intercept(w, r) {
		p.engine.ServeHTTP(w, r)
	}
}

// up begins to listen.
func (p *proxy) up() {
	p.t.Helper()
	listener, err := net.Listen("unix", p.socket)
	if err != nil {
		p.t.Fatal(err)
	}
	server := &http.Server{Handler: p}
	p.mu.Lock()
	p.server = server
	p.mu.Unlock()
	p.group.Go(func() { _ = server.Serve(listener) }) // ends with Close
}

// down cuts all connections and refuses new ones.
func (p *proxy) down() {
	p.mu.Lock()
	server := p.server
	p.mu.Unlock()
	_ = server.Close() // a connection that is closed already is fine
	p.group.Wait()
}
