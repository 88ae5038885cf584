package girder

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Classes of refusals. An [*Error] matches them with errors.Is.
var (
	// ErrUnauthorized: no user could be told from the token (401), or the token lacks the scope.
	ErrUnauthorized = errors.New("not authorized")
	// ErrForbidden: the user is known but has no access (403).
	ErrForbidden = errors.New("forbidden")
	// ErrNotFound: the document named by an id does not exist. Girder says so with 400.
	ErrNotFound = errors.New("not found")
	// ErrValidation: a parameter or a status change was refused (400); Field may name it.
	ErrValidation = errors.New("refused")
	// ErrNoRoute: this server has no such endpoint, or there is no Girder at this URL.
	ErrNoRoute = errors.New("no such endpoint")
	// ErrRateLimited: too many requests (429).
	ErrRateLimited = errors.New("too many requests")
	// ErrServer: the server failed (5xx).
	ErrServer = errors.New("server error")
)

// Error is an answer of Girder, or of a proxy before it, that refuses a request.
type Error struct {
	Method     string
	Path       string // without the API URL and without the query
	Status     int
	Type       string // Girder's word: rest, validation, access, girder, internal; empty for HTML and plain text
	Field      string // the refused field of a validation error, if Girder names it
	Identifier string // a stable name that some server errors carry
	Message    string
	RetryAfter time.Duration // how long the server asked to wait, 0 if it did not
}

// Error says what was asked and how it was refused, in one line.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s %s: %d %s", e.Method, e.Path, e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Is tells the class of the refusal.
func (e *Error) Is(target error) bool {
	return target == e.class()
}

func (e *Error) class() error {
	switch {
	case e.Status == http.StatusUnauthorized:
		return ErrUnauthorized
	case e.Status == http.StatusForbidden:
		return ErrForbidden
	case e.Status == http.StatusTooManyRequests:
		return ErrRateLimited
	case e.Status >= 500:
		return ErrServer
	case e.Status == http.StatusNotFound, strings.HasPrefix(e.Message, "No matching route"):
		return ErrNoRoute
	case e.missing():
		return ErrNotFound
	default:
		return ErrValidation
	}
}

var missingID = regexp.MustCompile(`^Invalid [a-z]+ id \(|^Invalid ObjectId: |^No such [a-z]+: |^Path not found`)

// missing reports whether Girder says, with its usual 400, that a document does not exist.
func (e *Error) missing() bool {
	return e.Status == http.StatusGone || e.Status == http.StatusBadRequest && missingID.MatchString(e.Message)
}

// lostBytes ends the identifier of the 500 for a file whose bytes the server no longer has.
const lostBytes = "file-does-not-exist"

func (e *Error) temporary() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusInsufficientStorage:
		return false
	}
	return e.Status >= 500 && !strings.HasSuffix(e.Identifier, lostBytes)
}

// Unreachable means that a request got no complete answer: no connection, a
// connection that broke, or a server that fell silent. Whether the server
// carried the request out is not known.
type Unreachable struct {
	Method string
	Path   string
	Err    error
}

// Error says what was asked and what broke.
func (e *Unreachable) Error() string { return fmt.Sprintf("%s %s: %v", e.Method, e.Path, e.Err) }

// Unwrap gives the network's own error.
func (e *Unreachable) Unwrap() error { return e.Err }

// IsTemporary reports whether the same request may succeed later: a server
// error, a rate limit, or no complete answer. A refusal, an ended context and
// a certificate that cannot be verified are not temporary.
func IsTemporary(err error) bool {
	var refusal *Error
	if errors.As(err, &refusal) {
		return refusal.temporary()
	}
	var broken *Unreachable
	var cert *tls.CertificateVerificationError
	return errors.As(err, &broken) && !errors.As(err, &cert)
}

// IsForeign reports whether a refusal was made by something between us and
// Girder, such as a proxy whose Girder is being restarted: it lacks the JSON that
// Girder's own have. Those that speak of the request itself count as Girder's,
// which sends some of them as HTML or plain text. Girder also answers 404 as HTML
// for a resource that it does not have: whoever asks this knows that it has it.
func IsForeign(err error) bool {
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Type != "" {
		return false
	}
	switch refusal.Status {
	case http.StatusBadRequest, http.StatusLengthRequired, http.StatusRequestEntityTooLarge,
		http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge:
		return false
	default:
		return true
	}
}

// maxErrorBody is how much of an error's body is read. Girder's are far shorter.
const maxErrorBody = 64 << 10

// maxMessage is how much of an error's text is kept.
const maxMessage = 2000

// readError makes an [*Error] of an answer whose status is not a success.
func readError(c *call, resp *http.Response, now time.Time) *Error {
	e := &Error{Method: c.method, Path: c.path, Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), now)}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil && len(body) == 0 {
		return e
	}
	var doc struct{ Type, Field, Message, Identifier string }
	// Girder sends some HTML bodies with the content type of JSON, so only the body tells.
	if json.Unmarshal(body, &doc) == nil {
		e.Type, e.Field, e.Identifier, e.Message = doc.Type, doc.Field, doc.Identifier, doc.Message
	} else {
		e.Message = plainText(string(body), e.Status)
	}
	e.Message = shorten(strings.Join(strings.Fields(e.Message), " "))
	return e
}

func shorten(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage], "") + " …"
}

var (
	htmlUnseen = regexp.MustCompile(`(?is)<(style|script|head)\b.*?</(style|script|head)>|<p><i>Powered by.*?</p>`)
	htmlTag    = regexp.MustCompile(`(?s)<[^>]*>`)
)

// plainText makes a sentence of an HTML error page, without the status that its heading repeats.
func plainText(page string, status int) string {
	text := htmlTag.ReplaceAllString(htmlUnseen.ReplaceAllString(page, " "), " ")
	text = strings.Join(strings.Fields(html.UnescapeString(text)), " ")
	return strings.TrimSpace(strings.TrimPrefix(text, fmt.Sprintf("%d %s", status, http.StatusText(status))))
}

// retryAfter reads the header of that name: seconds or a date.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}
