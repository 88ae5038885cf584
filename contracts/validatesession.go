package contracts

import (
	"fmt"
	"net/url"
	"path"
	"strings"
)

func (v *validator) session(s *GirderSession) {
	if s.Verify != nil {
		v.secret(sessionPath+".verify", Secret(s.Verify.Authorities)) // it is none, and would never be resolved
		v.pem(sessionPath+".verify", s.Verify.Authorities, certificateBlock)
	}
	if cert := sessionPath + ".cert"; s.Cert.Key == "" {
		v.secret(cert, s.Cert.Cert)
		v.pem(cert, string(s.Cert.Cert), certificateBlock, keyBlock)
	} else {
		v.secret(cert+"[0]", s.Cert.Cert)
		v.pem(cert+"[0]", string(s.Cert.Cert), certificateBlock)
		v.secret(cert+"[1]", s.Cert.Key)
		v.pem(cert+"[1]", string(s.Cert.Key), keyBlock)
	}
	for name, proxy := range s.Proxies {
		v.secret(sessionPath+".proxies."+name, proxy)
		v.proxy(sessionPath+".proxies."+name, name, string(proxy))
	}
}

// What a PEM text must have, as it stands in the lines that begin its parts.
const (
	certificateBlock = "BEGIN CERTIFICATE-----"
	keyBlock         = "PRIVATE KEY-----"
)

var blockNames = map[string]string{certificateBlock: "certificate", keyBlock: "private key"}

// pem checks a PEM text or the path of such a file, and shows nothing of it: it
// may be a secret, and what is no PEM text may be meant as one.
func (v *validator) pem(at, text string, blocks ...string) {
	switch {
	case text == "" || v.reserved(text):
		return
	case !IsPEM(text):
		if !path.IsAbs(text) || strings.ContainsAny(text, "\x00\n\r") {
			v.fail(at, "is neither PEM text nor the absolute path of a PEM file")
		}
		return
	}
	for _, block := range blocks {
		if !strings.Contains(text, block) {
			v.fail(at, "has no %s", blockNames[block])
		}
	}
	if strings.Contains(text, "ENCRYPTED") {
		v.fail(at, "has an encrypted key; it must be one without a password")
	}
}

// reserved reports whether [validator.secret] refuses a text.
func (v *validator) reserved(text string) bool { return Secret(text).IsReference() }

// proxy checks a proxy and what it is for.
func (v *validator) proxy(at, name, text string) {
	switch problem := proxyName(name); {
	case problem != nil:
		v.fail(at, "%v", problem)
	case bypassNames[name], text == "", v.reserved(text):
	default:
		if _, err := ParseProxy(text); err != nil {
			v.fail(at, "%v", err)
		}
	}
}

// bypassNames are those of hosts that are reached without a proxy. "no" is what
// Python makes of the environment's NO_PROXY.
var bypassNames = nameSet("no_proxy", "no")

// proxyName refuses what no proxy of a Girder server is ever found by, such as a
// name that is misspelled. "ftp" stands for all that Python finds in an environment.
func proxyName(name string) error {
	scheme, rest, ofHost := strings.Cut(name, "://")
	switch {
	case !nameSet("http", "https", "all", "ftp", "no_proxy", "no")[scheme], ofHost && scheme[0] == 'n':
		return fmt.Errorf("%q is not what a proxy is for; known are http, https, all, no_proxy, and a host as in https://girder.example.org", name)
	case !ofHost:
		return nil
	}
	if u, err := url.Parse(name); err != nil || u.Hostname() == "" || u.Host != rest || u.Port() != "" {
		return fmt.Errorf("%q names no host; write it without a port or a path, as in https://girder.example.org", name)
	}
	return nil
}
