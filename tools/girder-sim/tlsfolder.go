package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// The files of a folder for TLS. Those with a certificate and its key have both.
const (
	caFile     = "ca.pem"
	serverFile = "server.pem"
	clientFile = "client.pem"
)

// openTLS reads the certificates of a folder, made for the given hosts if there
// are none yet.
func openTLS(dir string, demandClient bool, hosts ...string) (*girdersim.TLS, error) {
	if _, err := os.Stat(filepath.Join(dir, caFile)); errors.Is(err, fs.ErrNotExist) {
		if err := makeTLS(dir, hosts); err != nil {
			return nil, fmt.Errorf("make certificates: %w", err)
		}
	}
	server := filepath.Join(dir, serverFile)
	certificate, err := tls.LoadX509KeyPair(server, server)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", server, err)
	}
	found := &girdersim.TLS{Certificate: certificate}
	if !demandClient {
		return found, nil
	}
	ca := filepath.Join(dir, caFile)
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	found.ClientAuthorities = x509.NewCertPool()
	if !found.ClientAuthorities.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read %s: there is no certificate in it", ca)
	}
	return found, nil
}

// makeTLS makes an authority, a server and a client. The authority's file comes
// last: with it the folder is complete.
func makeTLS(dir string, hosts []string) error {
	// Another name than the server's: OpenSSL takes for self-signed what has its own name twice.
	authority, err := girdersim.NewAuthority("authority of girder-sim")
	if err != nil {
		return err
	}
	server, err := authority.Issue("girder-sim", hosts...)
	if err != nil {
		return err
	}
	client, err := authority.Issue("client of girder-sim")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, file := range []struct{ name, text string }{
		{serverFile, server.Cert + server.Key}, {clientFile, client.Cert + client.Key}, {caFile, authority.PEM()},
	} {
		if err := os.WriteFile(filepath.Join(dir, file.name), []byte(file.text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
