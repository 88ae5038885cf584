package girder

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// SessionError says what is wrong with how a task says that Girder is reached: a
// session that cannot be used, a certificate that the server or we do not accept,
// or a proxy that refuses. It names the field, never shows a secret, and is final.
type SessionError struct {
	Field string // "verify", "cert", "proxies.https"
	Err   error
}

// Error names the field as it stands in a task.
func (e *SessionError) Error() string { return fmt.Sprintf("girder.session.%s: %v", e.Field, e.Err) }

// Unwrap gives the cause.
func (e *SessionError) Unwrap() error { return e.Err }

// ProxyError says that a proxy refuses which the operator set in the service's
// environment. No task can change that; it is an outage until the operator does.
type ProxyError struct{ Err error }

// Error says where the proxy comes from.
func (e *ProxyError) Error() string {
	return fmt.Sprintf("the service's own proxy (HTTP_PROXY, HTTPS_PROXY, NO_PROXY in its environment): %v", e.Err)
}

// Unwrap gives the cause.
func (e *ProxyError) Unwrap() error { return e.Err }

// tunnelRefusal is a proxy's refusal to let us through that stays as it is.
type tunnelRefusal struct {
	problem string
	ofTask  bool // the proxy is one of a task's session
}

func (e *tunnelRefusal) Error() string { return e.problem }

// usedProxies are the proxies of a client of ours.
type usedProxies struct {
	of     func(*http.Request) (*url.URL, error)
	ofTask bool
}

// taskProxies are those of a session, which may leave it to the environment.
func taskProxies(p proxies) usedProxies {
	if len(p.byName) == 0 {
		return usedProxies{of: p.of}
	}
	return usedProxies{of: p.of, ofTask: true}
}

// environmentProxies are the operator's.
var environmentProxies = usedProxies{of: http.ProxyFromEnvironment}

// checkTunnel tells a proxy's refusals that asking again does not change.
func (p usedProxies) checkTunnel(_ context.Context, proxy *url.URL, _ *http.Request, answer *http.Response) error {
	switch answer.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusProxyAuthRequired:
		return p.refused(fmt.Sprintf("the proxy %s wants a user name and a password, which stand in its URL (%s)", proxy.Host, answer.Status))
	case http.StatusForbidden, http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return p.refused(fmt.Sprintf("the proxy %s does not let us through (%s)", proxy.Host, answer.Status))
	default:
		return fmt.Errorf("the proxy %s answers %s", proxy.Host, answer.Status)
	}
}

// proxyRefusal is what a proxy answered in place of the server that was asked.
func proxyRefusal(client *http.Client, answer *http.Response) error {
	transport := transportOf(client)
	if transport != nil && transport.Proxy != nil && transport.OnProxyConnectResponse != nil {
		if proxy, err := transport.Proxy(answer.Request); err == nil && proxy != nil {
			return transport.OnProxyConnectResponse(answer.Request.Context(), proxy, answer.Request, answer)
		}
	}
	return &tunnelRefusal{problem: "a proxy wants a user name and a password (" + answer.Status + ")"}
}

func (p usedProxies) refused(problem string) error {
	return &tunnelRefusal{problem: problem, ofTask: p.ofTask}
}

// sessionFault gives an error of the network the name of the field of a session
// that would change it, if there is one.
func sessionFault(err error) error {
	var refused *tunnelRefusal
	var untrusted *tls.CertificateVerificationError
	var alert *net.OpError
	switch {
	case errors.As(err, &refused) && refused.ofTask:
		return &SessionError{Field: "proxies", Err: err}
	case errors.As(err, &refused):
		return &ProxyError{Err: err}
	case errors.As(err, &untrusted):
		return &SessionError{Field: "verify", Err: fmt.Errorf("the server's certificate is not trusted: %w%s", err, remedy(err))}
	// What the other end of TLS says has no type, and most of it is about the
	// connection: only what is about a certificate is ours.
	case errors.As(err, &alert) && alert.Op == "remote error" && strings.Contains(alert.Err.Error(), "certificate"):
		return &SessionError{Field: "cert", Err: fmt.Errorf("the server does not accept our certificate: %w", err)}
	}
	return err
}

// remedy says what to do about a certificate whose authority nobody knows.
func remedy(err error) string {
	if errors.As(err, new(x509.UnknownAuthorityError)) {
		return "; set verify to the PEM text of its authority"
	}
	return ""
}
