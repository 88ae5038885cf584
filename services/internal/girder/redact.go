package girder

import (
	"regexp"
	"strconv"
	"strings"
)

// hidden is an error whose own text would show a secret.
type hidden struct {
	text string
	err  error
}

func (h *hidden) Error() string { return h.text }
func (h *hidden) Unwrap() error { return h.err }

// hide keeps what authorizes somebody out of an error of the network, which may
// repeat an URL: where we were redirected to, or that of a proxy.
func (s *session) hide(err error) error {
	text := err.Error()
	if shown := s.redact(text); shown != text {
		return &hidden{shown, err}
	}
	return err
}

// redact keeps what authorizes us, or somebody else, out of a text that echoes it.
func (s *session) redact(text string) string {
	for _, values := range s.header {
		for _, secret := range values {
			if len(secret) >= 8 {
				text = strings.ReplaceAll(text, secret, "***")
			}
		}
	}
	return redactURLs(text)
}

var (
	// A quoted text may have blanks in it, as the password of an URL that is none.
	quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	// What net/url quotes of an URL beside the URL.
	urlPart  = regexp.MustCompile(`(invalid URL escape|invalid port) "(?:[^"\\]|\\.)*"`)
	urlUser  = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s"'<>]*@`)
	urlQuery = regexp.MustCompile(`(://[^\s"'<>?]*\?)[^\s"'<>]+`)
	// Parameters without their URL's host, as pages of errors show them.
	parameter = regexp.MustCompile(`(?i)([a-z0-9_.-]*(?:token|key|keyid|secret|signature|sig|password|passwd|credential|auth)=)[^&;\s"'<>]+`)
)

// redactURLs leaves users, passwords and queries out of the URLs in a text, and
// the values of parameters that authorize.
func redactURLs(text string) string {
	if !strings.ContainsAny(text, "@=?") && !strings.Contains(text, "invalid ") {
		return text
	}
	text = urlPart.ReplaceAllString(text, "$1")
	text = quoted.ReplaceAllStringFunc(text, redactQuoted)
	text = urlUser.ReplaceAllString(text, "$1***@")
	text = urlQuery.ReplaceAllString(text, "$1***")
	return parameter.ReplaceAllString(text, "$1***")
}

// redactQuoted leaves a user and a password out of an address without a scheme,
// as that of a proxy may be.
func redactQuoted(text string) string {
	before, host, found := cutLast(strings.Trim(text, `"`), "@")
	if !found || !strings.Contains(before, ":") {
		return text
	}
	scheme, _, absolute := strings.Cut(before, "://")
	if absolute {
		return strconv.Quote(scheme + "://***@" + host)
	}
	return strconv.Quote("***@" + host)
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	if at := strings.LastIndex(s, separator); at >= 0 {
		return s[:at], s[at+len(separator):], true
	}
	return s, "", false
}
