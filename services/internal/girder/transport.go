package girder

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

var apiRoot = regexp.MustCompile(`/api/v[0-9]+\b`)

// Limits of time that do not depend on how much is transferred.
const (
	connectTimeout = 10 * time.Second
	answerDefault  = time.Minute
	idleDefault    = time.Minute
	// Servers close a connection that was idle for some seconds, often five or
	// ten. Letting go first spares a request that is lost on a closed connection.
	keepIdle = 4 * time.Second
	// As many connections are kept as files are moved at a time, and more.
	keepPerHost = 64
)

// newTransport speaks HTTP/1.1 alone: each file has a connection of its own, and
// one that stands still or breaks concerns no other.
func newTransport(config *tls.Config, proxies usedProxies) *http.Transport {
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy: proxies.of,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &patientConn{Conn: conn}, nil
		},
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    connectTimeout,
		ResponseHeaderTimeout:  answerDefault,
		IdleConnTimeout:        keepIdle,
		MaxIdleConnsPerHost:    keepPerHost,
		WriteBufferSize:        64 << 10,
		ReadBufferSize:         16 << 10, // what takes more at a time reads past it
		OnProxyConnectResponse: proxies.checkTunnel,
	}
}

// errRedirected refuses a redirect that would turn a write into a read, which
// would then pass for a write that succeeded, or that leads it to where its token
// may not go.
var errRedirected = errors.New("the server redirects this request, which would lose it; use the URL that it redirects to as the API URL")

const maxRedirects = 5

// redirects returns the policy for a client's requests that carry these headers:
// they go to the host that was asked and to no other. Files that are links, or that
// lie in an object store, are redirects to another host.
func redirects(client *http.Client, secret http.Header, traffic *Traffic) func(*http.Request, []*http.Request) error {
	return func(next *http.Request, via []*http.Request) error {
		first := via[0]
		away := func(r *http.Request) bool { return !sameServer(first.URL, r.URL) }
		leaves := away(next) || slices.ContainsFunc(via, away)
		switch {
		case next.Method != first.Method, leaves && next.Method != http.MethodGet && next.Method != http.MethodHead:
			return errRedirected
		case len(via) > maxRedirects:
			return fmt.Errorf("more than %d redirects", maxRedirects)
		case !leaves:
			return nil
		}
		for name := range secret {
			next.Header.Del(name)
		}
		next.Header.Del("Referer")
		w, watched := next.Context().Value(watchKey{}).(*watch)
		if traffic == nil || !watched {
			return nil
		}
		return w.redirected(func() error { return traffic.pass(next.Context(), HostKey(client, next.URL)) })
	}
}

// sameServer reports whether what was asked of one URL may be asked of the other,
// token and all: it is the same one, or the same one by TLS.
func sameServer(asked, other *url.URL) bool {
	if strings.EqualFold(asked.Host, other.Host) && asked.Scheme == other.Scheme {
		return true
	}
	return asked.Scheme == "http" && other.Scheme == "https" && strings.EqualFold(asked.Hostname(), other.Hostname()) &&
		portOf(asked) == "80" && portOf(other) == "443"
}

// HostKey names who answers a client that asks for a URL: the host, and the proxy
// before it. What a task's own proxy says, and how slow it is, is not the host's,
// and nobody else is to wait for it.
func HostKey(client *http.Client, u *url.URL) string {
	host := net.JoinHostPort(strings.ToLower(u.Hostname()), portOf(u))
	transport := transportOf(client)
	if transport == nil || transport.Proxy == nil {
		return host
	}
	proxy, err := transport.Proxy(&http.Request{URL: u})
	if err != nil || proxy == nil {
		return host
	}
	return host + " by " + proxy.Host // its user and password are nobody's business
}
