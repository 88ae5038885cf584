package girdersim

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// private is a server that speaks TLS and demands a certificate, and who signs.
func private(t *testing.T) (*Server, *Authority) {
	t.Helper()
	authority := must[*Authority](t)(NewAuthority("test authority"))
	pair := must[Pair](t)(authority.Issue("girder", "127.0.0.1", "localhost"))
	return start(t, Options{
		TLS:         &TLS{Certificate: must[tls.Certificate](t)(pair.TLS()), ClientAuthorities: authority.Pool()},
		ObjectStore: &ObjectStore{},
	}), authority
}

// version asks over a connection of its own.
func version(t *testing.T, sim *Server, config *tls.Config) error {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(sim.APIURL() + "/system/version")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("version: %s", resp.Status)
	}
	return nil
}

func TestTLSDemandsACertificateOfTheAuthority(t *testing.T) {
	t.Parallel()
	sim, authority := private(t)
	if !strings.HasPrefix(sim.APIURL(), "https://") || !strings.HasPrefix(sim.ObjectStoreURL(), "https://") {
		t.Errorf("API at %s, objects at %s", sim.APIURL(), sim.ObjectStoreURL())
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(authority.PEM())) {
		t.Fatal("the authority's text is no certificate")
	}
	client := must[tls.Certificate](t)(must[Pair](t)(authority.Issue("client")).TLS())
	if err := version(t, sim, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{client}}); err != nil {
		t.Errorf("with both: %v", err)
	}
	var unknown x509.UnknownAuthorityError
	if err := version(t, sim, &tls.Config{Certificates: []tls.Certificate{client}}); !errors.As(err, &unknown) {
		t.Errorf("without the authority: %v", err)
	}
	if err := version(t, sim, &tls.Config{RootCAs: roots}); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %v", err)
	}
	strange := must[tls.Certificate](t)(must[Pair](t)(must[*Authority](t)(NewAuthority("another")).Issue("client")).TLS())
	config := &tls.Config{RootCAs: roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &strange, nil }}
	if err := version(t, sim, config); err == nil {
		t.Error("a certificate of another authority was taken")
	}
}

// TestTheObjectStoreDemandsNoCertificate: an assetstore knows nothing of those
// of Girder's clients.
func TestTheObjectStoreDemandsNoCertificate(t *testing.T) {
	t.Parallel()
	sim, authority := private(t)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool()}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(sim.ObjectStoreURL() + "/elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("unsigned: %s", resp.Status)
	}
}

// TestAJobIsReportedToOverTLS: the URL in a job is the one that it was made at.
func TestAJobIsReportedToOverTLS(t *testing.T) {
	t.Parallel()
	sim, authority := private(t)
	alice := must[User](t)(sim.CreateUser("alice", "password"))
	token := must[string](t)(sim.UserToken(alice.ID, ScopeCreateJob))
	client := must[tls.Certificate](t)(must[Pair](t)(authority.Issue("client")).TLS())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool(), Certificates: []tls.Certificate{client}}}
	defer transport.CloseIdleConnections()
	req := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodPost, sim.APIURL()+"/job?title=a&type=b", http.NoBody))
	req.Header.Set("Girder-Token", token)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body := must[[]byte](t)(io.ReadAll(resp.Body))
	if want := `"url": "` + sim.APIURL() + "/job/"; !strings.Contains(string(body), want) {
		t.Errorf("%s: %s, want %s", resp.Status, body, want)
	}
}
