package girder

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
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

// tunnelRefusal is a proxy's refusal to let us through that stays as it is.
type tunnelRefusal struct{ problem string }

func (e *tunnelRefusal) Error() string { return e.problem }

// sessionFault gives an error of the network the name of the field of a session
// that would change it, if there is one.
func sessionFault(err error) error {
	var refused *tunnelRefusal
	var untrusted *tls.CertificateVerificationError
	var alert *net.OpError
	switch {
	case errors.As(err, &refused):
		return &SessionError{Field: "proxies", Err: err}
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
