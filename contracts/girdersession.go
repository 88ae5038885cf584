package contracts

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// GirderSession says how to reach a Girder server, in the names and forms of
// Python requests' session, which Girder's own client has. Where it names a file,
// that is one on the node of transfer and on the host of job-tracker, whose
// setting session_files allows it or not; a PEM text works everywhere.
type GirderSession struct {
	// Verify says how the server's certificate is checked; by default against the
	// system's authorities.
	Verify *Verify `json:"verify,omitempty"`
	// Cert is the client's own certificate.
	Cert ClientCert `json:"cert,omitzero"`
	// Proxies has the URL of a proxy for one host as in "https://girder.example.org",
	// for "http" and "https", and for "all"; the first of these that is there counts.
	// Hosts in "no_proxy" are reached without one. Absent: what the service's
	// environment says.
	Proxies map[string]Secret `json:"proxies,omitempty"`
}

// String says what the session has without its secrets.
func (s GirderSession) String() string {
	verify := "true"
	switch {
	case s.Verify != nil && s.Verify.Off:
		verify = "false"
	case s.Verify != nil && s.Verify.Authorities != "":
		verify = "own authorities"
	}
	return fmt.Sprintf("session with verify %s, own certificate %t, %d proxies", verify, !s.Cert.IsZero(), len(s.Proxies))
}

// GoString hides the secrets from %#v.
func (s GirderSession) GoString() string { return s.String() }

// Verify is true, false, or a string: the path of a PEM file with the
// authorities to trust instead of the system's, or such text itself.
type Verify struct {
	Off         bool
	Authorities string
}

// MarshalJSONTo writes the shortest form.
func (v Verify) MarshalJSONTo(enc *jsontext.Encoder) error {
	if v.Authorities != "" {
		return enc.WriteToken(jsontext.String(v.Authorities))
	}
	return enc.WriteToken(jsontext.Bool(!v.Off))
}

// UnmarshalJSONFrom reads a boolean or a string.
func (v *Verify) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	switch token.Kind() {
	case 't', 'f':
		*v = Verify{Off: token.Kind() == 'f'}
	case '"':
		if token.String() == "" {
			return errors.New("is empty; leave it out to trust the system's authorities")
		}
		*v = Verify{Authorities: token.String()}
	default:
		return errors.New("must be true, false, or the path or text of a PEM file with certificate authorities")
	}
	return nil
}

// ClientCert is a certificate and its key: paths of PEM files, or their text. On
// the wire it is one string with both, or a list of two.
type ClientCert struct {
	Cert Secret
	Key  Secret // empty: beside the certificate
}

// IsZero reports whether there is no certificate.
func (c ClientCert) IsZero() bool { return c == ClientCert{} }

// MarshalJSONTo writes the form that was read.
func (c ClientCert) MarshalJSONTo(enc *jsontext.Encoder) error {
	if c.Key == "" {
		return json.MarshalEncode(enc, c.Cert)
	}
	return json.MarshalEncode(enc, []Secret{c.Cert, c.Key})
}

// UnmarshalJSONFrom reads a string or a list of two.
func (c *ClientCert) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == 'n' {
		*c = ClientCert{}
		return dec.SkipValue()
	}
	list, err := listOr(dec, func(text string) []string { return []string{text} })
	if err != nil {
		return err
	}
	switch {
	case len(list) == 1 && list[0] != "":
		*c = ClientCert{Cert: Secret(list[0])}
	case len(list) == 2 && list[0] != "" && list[1] != "":
		*c = ClientCert{Cert: Secret(list[0]), Key: Secret(list[1])}
	default:
		return fmt.Errorf("must be one string with certificate and key, or a list of the two, has %d", len(list))
	}
	return nil
}

// IsPEM tells PEM text from the path of a file.
func IsPEM(text string) bool { return strings.Contains(text, "-----BEGIN ") }

// ParseProxy reads the URL of a proxy, or a host and port that speak HTTP. Its
// error does not show the text, which may have a password.
func ParseProxy(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	proxy, err := url.Parse(text)
	if err != nil || proxy.Hostname() == "" {
		return nil, errors.New("is not the URL of a proxy such as http://proxy.example.org:3128")
	}
	switch proxy.Scheme {
	case "http", "https", "socks5", "socks5h":
		return proxy, nil
	default:
		return nil, errors.New("has a scheme that is not supported; known are http, https, socks5 and socks5h")
	}
}

// SessionFor returns the session that goes with the API URL of [Task.GirderFor]:
// the task's, except for another server.
func (t *Task) SessionFor(own *GirderAccess) *GirderSession {
	if t.Girder == nil {
		return nil
	}
	if own != nil && t.Girder.APIURL != "" && !sameHost(t.GirderFor(own).APIURL, t.Girder.APIURL) {
		return nil
	}
	return t.Girder.Session
}

func sameHost(a, b string) bool {
	one, err := url.Parse(a)
	other, otherErr := url.Parse(b)
	return err == nil && otherErr == nil && strings.EqualFold(one.Host, other.Host)
}

// sessionPath is where the session stands in a task.
const sessionPath = "girder.session"

// visitSecrets is [Task.visitSecrets] for a session.
func (s *GirderSession) visitSecrets(replace func(path string, secret Secret) Secret) {
	s.Cert.Cert = replace(sessionPath+".cert[0]", s.Cert.Cert)
	s.Cert.Key = replace(sessionPath+".cert[1]", s.Cert.Key)
	for name, proxy := range s.Proxies {
		s.Proxies[name] = replace(sessionPath+".proxies."+name, proxy)
	}
}

// Resolve returns a copy whose references are replaced by what they stand for.
// nil stays nil.
func (s *GirderSession) Resolve(values Secrets) (*GirderSession, error) {
	if s == nil {
		return nil, nil
	}
	resolved := *s
	resolved.Proxies = maps.Clone(s.Proxies)
	var problems []error
	resolved.visitSecrets(func(_ string, secret Secret) Secret {
		value, err := secret.Resolve(values)
		problems = append(problems, err)
		return Secret(value)
	})
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("%s: %w", sessionPath, err)
	}
	return &resolved, nil
}
