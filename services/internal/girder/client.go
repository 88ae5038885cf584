package girder

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// TokenHeader carries the token.
const TokenHeader = "Girder-Token"

// Options of a [Client] or a [JobClient].
type Options struct {
	APIURL string // e.g. https://girder.example.org/api/v1; not used by a JobClient
	Token  string // empty: anonymous; not used by a JobClient

	// HTTPClient is shared between clients so that they share connections; see
	// [Clients]. nil: a new one for the usual way. Its own redirect policy is not used.
	HTTPClient *http.Client
	Traffic    *Traffic // nil: no bounds

	Retry  Retry          // zero fields: DefaultRetry's
	Idle   time.Duration  // a body in either direction that stands still for so long is given up; 0: one minute
	Answer time.Duration  // a request that is sent and not answered for so long is given up; 0: one minute, which is the most
	Logger zerolog.Logger // retries are told at debug level
}

// Client speaks to one Girder with one token.
type Client struct {
	s   *session
	api string
}

// New checks the options and builds a client. It does not connect.
func New(o Options) (*Client, error) {
	api := strings.TrimRight(o.APIURL, "/")
	header := http.Header{}
	if o.Token != "" {
		header.Set(TokenHeader, o.Token)
	}
	s, err := newSession(o, api, header)
	if err != nil {
		return nil, fmt.Errorf("girder API URL: %w", err)
	}
	return &Client{s: s, api: api}, nil
}

// CloseIdle closes the connections that nobody uses.
func (c *Client) CloseIdle() { c.s.http.CloseIdleConnections() }

// call begins a request below the API URL.
func (c *Client) call(method, path string) *call {
	return &call{method: method, url: c.api + "/" + path, path: path, again: method == http.MethodGet || method == http.MethodDelete}
}

// checkURL wants an absolute http or https URL without credentials in it.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return errors.New("is not a URL") // the parser's error would repeat what may be a secret
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return fmt.Errorf("%q is not an http or https URL", redactURLs(u.Redacted()))
	case u.User != nil:
		return fmt.Errorf("%q must not contain a user name or password", redactURLs(u.Redacted()))
	}
	return nil
}

// Rewrite replaces everything up to and including /api/v<n> in one of Girder's
// URLs by base, for workers that reach Girder by another name than its users
// do. An empty base changes nothing.
func Rewrite(raw, base string) (string, error) {
	if base == "" {
		return raw, nil
	}
	if err := checkURL(raw); err != nil {
		return "", fmt.Errorf("rewrite girder URL: %w", err)
	}
	head, query, asked := strings.Cut(raw, "?")
	at := apiRoot.FindStringIndex(head)
	if at == nil {
		return "", errors.New("rewrite girder URL: its path has no /api/v1")
	}
	out := strings.TrimRight(base, "/") + head[at[1]:]
	if asked {
		out += "?" + query
	}
	return out, nil
}
