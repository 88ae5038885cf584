package girder

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/gantry-worker/gantry/contracts"
)

// way is how a Girder is reached, with the content of files instead of their paths.
type way struct {
	unverified  bool
	authorities string // PEM; empty: the system's
	cert, key   string // PEM; empty: none
	proxies     proxies
	paths       []string // of the files that were read
}

// readSession returns nil for the usual way.
func readSession(s *contracts.GirderSession, folders []string) (*way, error) {
	if s == nil {
		return nil, nil
	}
	files := sessionFiles(folders)
	w := &way{paths: sessionPaths(s)}
	var err error
	if v := s.Verify; v != nil {
		w.unverified = v.Off
		if w.authorities, err = files.text("verify", v.Authorities); err != nil {
			return nil, err
		}
	}
	if w.cert, err = files.text("cert", string(s.Cert.Cert)); err != nil {
		return nil, err
	}
	if w.key, err = files.text("cert", string(s.Cert.Key)); err != nil {
		return nil, err
	}
	if w.key == "" {
		w.key = w.cert
	}
	if w.proxies, err = readProxies(s.Proxies); err != nil {
		return nil, err
	}
	if !w.unverified && w.authorities == "" && w.cert == "" && w.proxies.empty() {
		return nil, nil
	}
	return w, nil
}

// sum is the same for those that reach Girder in the same way, by the same files.
func (w *way) sum() [sha256.Size]byte {
	sum := sha256.New()
	parts := append([]string{fmt.Sprint(w.unverified), w.authorities, w.cert, w.key}, w.proxies.list()...)
	parts = append(parts, w.paths...)
	for _, part := range parts {
		_ = binary.Write(sum, binary.BigEndian, int64(len(part))) // a hash takes everything
		sum.Write([]byte(part))
	}
	return [sha256.Size]byte(sum.Sum(nil))
}

// client returns the client for a way, which read reads again where it has files.
func (w *way) client(read func() (*way, error)) (*http.Client, error) {
	if len(w.paths) > 0 {
		transport, err := newRenewing(w, read)
		if err != nil {
			return nil, err
		}
		return &http.Client{Transport: transport}, nil
	}
	transport, err := w.transport()
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport}, nil
}

func (w *way) transport() (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: w.unverified} // #nosec: only where the task says so
	if w.authorities != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(w.authorities)) {
			return nil, &SessionError{Field: "verify", Err: errors.New("has no certificate in it that can be read")}
		}
	}
	if w.cert != "" {
		own, err := w.ownCertificate()
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{own}
	}
	return newTransport(config, taskProxies(w.proxies)), nil
}

func (w *way) ownCertificate() (tls.Certificate, error) {
	if strings.Contains(w.key, "ENCRYPTED") {
		return tls.Certificate{}, &SessionError{Field: "cert", Err: errors.New("the key is encrypted; it must be one without a password")}
	}
	own, err := tls.X509KeyPair([]byte(w.cert), []byte(w.key))
	if err != nil { // it speaks of what is missing or does not fit, and shows nothing
		return tls.Certificate{}, &SessionError{Field: "cert", Err: fmt.Errorf("is not a certificate with its key: %w", err)}
	}
	return own, nil
}
