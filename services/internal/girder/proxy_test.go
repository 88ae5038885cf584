package girder_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// forwarder leads every host name to one address, and notes the names. Names that
// only it knows can be reached through it alone.
type forwarder struct {
	t  *testing.T
	to string

	mu    sync.Mutex
	asked []string
}

func (f *forwarder) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf(format, args...))
}

// names returns what was asked for since the last call.
func (f *forwarder) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

func (f *forwarder) dial() (net.Conn, error) { return net.Dial("tcp", f.to) }

// join copies both ways until one ends.
func join(one, other net.Conn) {
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		_ = to.Close()
		_ = from.Close()
	}
	both.Go(func() { pass(one, other) })
	both.Go(func() { pass(other, one) })
	both.Wait()
}

// httpProxy speaks HTTP, with user "u" and password "hidden" if it is guarded.
type httpProxy struct {
	*forwarder
	*httptest.Server
	guarded bool
	refusal int // of every CONNECT; 0: none
	tunnels sync.WaitGroup
}

func startHTTPProxy(t *testing.T, to string, guarded bool) *httpProxy {
	t.Helper()
	p := &httpProxy{forwarder: &forwarder{t: t, to: to}, guarded: guarded}
	p.Server = httptest.NewUnstartedServer(p)
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Server.Close()
		p.tunnels.Wait()
	})
	return p
}

func (p *httpProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.note("%s %s", r.Method, r.Host)
	const wanted = "Basic dTpoaWRkZW4=" // u:hidden
	if p.guarded && r.Header.Get("Proxy-Authorization") != wanted {
		http.Error(w, "who are you", http.StatusProxyAuthRequired)
		return
	}
	if r.Method == http.MethodConnect {
		p.tunnel(w)
		return
	}
	r.Header.Del("Proxy-Authorization")
	r.URL.Host, r.RequestURI = p.to, ""
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

func (p *httpProxy) tunnel(w http.ResponseWriter) {
	if p.refusal != 0 {
		w.WriteHeader(p.refusal)
		return
	}
	to, err := p.dial()
	if err != nil {
		p.t.Error(err)
		return
	}
	from, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.t.Error(err)
		_ = to.Close()
		return
	}
	_, _ = io.WriteString(from, "HTTP/1.1 200 Connection established\r\n\r\n")
	p.tunnels.Go(func() { join(from, to) })
}

// startSOCKS speaks SOCKS5, with the same user and password if it is guarded, and
// returns its address.
func startSOCKS(t *testing.T, to string, guarded bool) (*forwarder, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{t: t, to: to}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				if err := f.socks(conn, guarded); err != nil {
					return // a client that went away
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		all.Wait()
	})
	return f, listener.Addr().String()
}

func (f *forwarder) socks(conn net.Conn, guarded bool) error {
	in := bufio.NewReader(conn)
	read := func(n int) []byte {
		p := make([]byte, n)
		_, _ = io.ReadFull(in, p) // what is short is zeros, which lead nowhere
		return p
	}
	read(int(read(2)[1])) // the ways to say who one is
	way := byte(0)
	if guarded {
		way = 2
	}
	if _, err := conn.Write([]byte{5, way}); err != nil {
		return err
	}
	if guarded {
		user := string(read(int(read(2)[1])))
		password := string(read(int(read(1)[0])))
		if user != "u" || password != "hidden" {
			_, err := conn.Write([]byte{1, 1})
			return err
		}
		if _, err := conn.Write([]byte{1, 0}); err != nil {
			return err
		}
	}
	kind := read(4)[3]
	if kind != 3 {
		return fmt.Errorf("asked for an address of kind %d, wanted a name", kind)
	}
	name := string(read(int(read(1)[0])))
	f.note("SOCKS %s:%d", name, binary.BigEndian.Uint16(read(2)))
	to, err := f.dial()
	if err != nil {
		return err
	}
	if _, err := conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
		_ = to.Close()
		return err
	}
	join(conn, to)
	return nil
}

// hostOf is the address in a URL.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err) // it is a simulated Girder's
	}
	return u.Host
}

func serverTLS(t *testing.T, pair girdersim.Pair) *tls.Config {
	t.Helper()
	certificate, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
}
