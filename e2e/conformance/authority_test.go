package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority signed the certificate of the one server that all services of the
// tests trust: its file is their SSL_CERT_FILE.
var authority = newAuthority()

type certificates struct {
	file   string
	server tls.Certificate
}

func newAuthority() certificates {
	dir, err := os.MkdirTemp("", "gantry-e2e-ca-")
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "conformance"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(err)
	file := filepath.Join(dir, "ca.pem")
	must(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(errors.Join(os.Chmod(file, 0o644), os.Chmod(dir, 0o755))) // services of any user read it
	return certificates{file: file, server: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
