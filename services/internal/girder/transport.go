package girder

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"time"
)

var apiRoot = regexp.MustCompile(`/api/v[0-9]+\b`)

// Verify says how the server's certificate is checked. The zero value checks
// it against the system's authorities.
type Verify struct {
	Off    bool   // accept any certificate
	CAFile string // PEM file with the authorities to trust instead of the system's
}

// Limits of time that do not depend on how much is transferred.
const (
	connectTimeout = 10 * time.Second
	headerTimeout  = time.Minute
	idleDefault    = time.Minute
	// Servers close a connection that was idle for some seconds, often five or
	// ten. Letting go first spares a request that is lost on a closed connection.
	keepIdle = 4 * time.Second
)

// NewHTTPClient builds what several clients can share as Options.HTTPClient.
func NewHTTPClient(v Verify) (*http.Client, error) {
	config, err := v.tlsConfig()
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   connectTimeout,
		ResponseHeaderTimeout: headerTimeout,
		IdleConnTimeout:       keepIdle,
		MaxIdleConnsPerHost:   8,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
		ForceAttemptHTTP2:     true,
	}}, nil
}

func (v Verify) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: v.Off} // #nosec: only where the operator or the task says so
	if v.CAFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(v.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read certificate authorities: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read certificate authorities: no certificate in %s", v.CAFile)
	}
	return config, nil
}

// errRedirected refuses a redirect that would turn a write into a read, which
// would then pass for a write that succeeded.
var errRedirected = errors.New("the server redirects this request, which would lose it; use the URL that it redirects to as the API URL")

const maxRedirects = 5

// redirects returns the policy for requests that carry these headers: they go
// to the host that was asked and to no other. Files that are links, or that lie
// in an object store, are redirects to another host.
func redirects(secret http.Header) func(*http.Request, []*http.Request) error {
	return func(next *http.Request, via []*http.Request) error {
		if next.Method != via[0].Method {
			return errRedirected
		}
		if len(via) > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		elsewhere := func(r *http.Request) bool {
			return r.URL.Scheme != via[0].URL.Scheme || r.URL.Host != via[0].URL.Host
		}
		if elsewhere(next) || slices.ContainsFunc(via, elsewhere) {
			for name := range secret {
				next.Header.Del(name)
			}
			next.Header.Del("Referer")
		}
		return nil
	}
}
