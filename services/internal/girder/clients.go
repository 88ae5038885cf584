package girder

import (
	"crypto/sha256"
	"crypto/tls"
	"net/http"
	"sync"

	"github.com/gantry-worker/gantry/contracts"
)

// ClientLimits are an operator's bounds on what a task may say of its session.
type ClientLimits struct {
	// SessionFiles are the folders of which a session may name PEM files. None:
	// only PEM text is allowed.
	SessionFiles []string
}

// Clients are the HTTP clients of one service, for [Options.HTTPClient].
// Those who reach Girder in the same way share a client, and so its connections.
// One whose session names files reads those again that were renewed.
type Clients struct {
	limits ClientLimits
	common *http.Client

	mu       sync.Mutex
	sessions map[[sha256.Size]byte]*sessionClient
}

// sessionClient is dropped when its last user is done.
type sessionClient struct {
	client *http.Client
	users  int
}

// NewClients returns the clients of a service.
func NewClients(limits ClientLimits) *Clients {
	return &Clients{
		limits: limits, common: newHTTPClient(nil, environmentProxies), sessions: map[[sha256.Size]byte]*sessionClient{},
	}
}

// For returns the client for a session whose secrets are resolved; nil stands for
// the usual way. The caller calls done, once, when it has closed every answer. An
// error is a [*SessionError].
func (c *Clients) For(session *contracts.GirderSession) (client *http.Client, done func(), err error) {
	w, err := readSession(session, c.limits.SessionFiles)
	if err != nil {
		return nil, nil, err
	}
	if w == nil {
		return c.common, func() {}, nil
	}
	key := w.sum()
	c.mu.Lock()
	defer c.mu.Unlock()
	shared, ok := c.sessions[key]
	if !ok {
		client, err := w.client(func() (*way, error) { return readSession(session, c.limits.SessionFiles) })
		if err != nil {
			return nil, nil, err
		}
		shared = &sessionClient{client: client}
		c.sessions[key] = shared
	}
	shared.users++
	return shared.client, sync.OnceFunc(func() { c.done(key, shared) }), nil
}

func (c *Clients) done(key [sha256.Size]byte, shared *sessionClient) {
	c.mu.Lock()
	defer c.mu.Unlock()
	shared.users--
	if shared.users > 0 {
		return
	}
	shared.client.CloseIdleConnections()
	delete(c.sessions, key)
}

// Close closes the connections that nobody uses.
func (c *Clients) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.common.CloseIdleConnections()
	for _, shared := range c.sessions {
		shared.client.CloseIdleConnections()
	}
}

// newHTTPClient trusts the system's authorities where config is nil.
func newHTTPClient(config *tls.Config, proxies usedProxies) *http.Client {
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: newTransport(config, proxies)}
}
