package girder

import (
	"bytes"
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
	// ErrElsewhere: another server than Girder, to which Girder redirected us for a
	// file's bytes, refused the request. Our token did not go there.
	ErrElsewhere = errors.New("refused by the server to which Girder redirects")
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
	Host       string        // who answered, where that is not Girder
	Waited     time.Duration // by our own bounds on traffic, before the answer
	Size       int64         // of the file of which a range was refused, where the server says it
	Diverted   bool          // another path than ours was asked last, to which Girder redirected
}

// Error says what was asked and how it was refused, in one line.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s %s: %s%d %s", e.Method, e.Path, from(e.Host), e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// from names a host that Girder redirected us to.
func from(host string) string {
	if host == "" {
		return ""
	}
	return "redirected to " + host + ": "
}

// Is tells the class of the refusal.
func (e *Error) Is(target error) bool {
	return target == e.class()
}

func (e *Error) class() error {
	switch {
	case e.Host != "" && e.Status < 500 && e.Status != http.StatusTooManyRequests:
		return ErrElsewhere
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

// tooMuch reports whether the server has more to do than it can.
func (e *Error) tooMuch() bool {
	return e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable
}

// Unreachable means that a request got no complete answer: no connection, a
// connection that broke, a server that fell silent, or an answer that cannot be
// read. Whether the server carried the request out is not known.
type Unreachable struct {
	Method string
	Path   string
	Err    error
	Host   string        // who was asked, where that is not Girder
	Waited time.Duration // by our own bounds on traffic
}

// Error says what was asked and what broke.
func (e *Unreachable) Error() string {
	return fmt.Sprintf("%s %s: %s%v", e.Method, e.Path, from(e.Host), e.Err)
}

// Unwrap gives the network's own error.
func (e *Unreachable) Unwrap() error { return e.Err }

// IsTemporary reports whether the same request may succeed later: a server
// error, a rate limit, or no complete answer. A refusal, an ended context and
// a [SessionError] are not temporary.
func IsTemporary(err error) bool {
	var broken *Unreachable // a refusal in it is what the answer looked like
	var session *SessionError
	if errors.As(err, &broken) {
		return !errors.As(err, &session)
	}
	var refusal *Error
	return errors.As(err, &refusal) && refusal.temporary()
}

// IsForeign reports whether a refusal was made by something between us and
// Girder, such as a proxy whose Girder is being restarted: it lacks the JSON that
// Girder's own have. Those that speak of the request itself count as Girder's,
// which sends some of them as HTML or plain text. Girder also answers 404 as HTML
// for a resource that it does not have: whoever asks this knows that it has it.
//
// What a server says to which Girder redirects, as an object store, is its own word
// about the request.
func IsForeign(err error) bool {
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Type != "" || refusal.Host != "" || refusal.Diverted {
		return false
	}
	switch refusal.Status {
	case http.StatusBadRequest, http.StatusLengthRequired, http.StatusRequestEntityTooLarge,
		http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge, http.StatusRequestedRangeNotSatisfiable:
		return false
	case http.StatusMovedPermanently, http.StatusPermanentRedirect: // not followed: the URL is the wrong one
		return false
	default:
		return true
	}
}

// IsOutage reports whether an error says nothing about the request itself: it is
// temporary, or something before Girder answered in its place.
func IsOutage(err error) bool { return IsTemporary(err) || IsForeign(err) }

// maxErrorBody is how much of an error's body is read. Girder's are far shorter.
const maxErrorBody = 64 << 10

// maxMessage is how much of an error's text is kept.
const maxMessage = 2000

// readError makes an [*Error] of an answer whose status is not a success. An error
// is of reading it, or a [*json.SyntaxError] of what was cut or corrupted on its way.
func readError(c *call, resp *http.Response, now time.Time) (*Error, error) {
	e := &Error{Method: c.method, Path: c.path, Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), now)}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return nil, err
	}
	var doc struct{ Type, Field, Message, Identifier string }
	var syntax *json.SyntaxError
	// Girder sends some HTML bodies with the content type of JSON, so only the body tells.
	err = json.Unmarshal(body, &doc)
	switch {
	case err == nil:
		e.Type, e.Field, e.Identifier, e.Message = doc.Type, doc.Field, doc.Identifier, doc.Message
	case errors.As(err, &syntax) && bytes.HasPrefix(body, []byte("{")) && len(body) < maxErrorBody:
		return nil, err
	default:
		e.Message = plainText(string(body), e.Status)
	}
	e.Message = shorten(strings.Join(strings.Fields(e.Message), " "))
	return e, nil
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
	// What else an object store says is about signatures and keys.
	storeError = regexp.MustCompile(`(?s)<Error>.*?<Code>(.*?)</Code>.*?<Message>(.*?)</Message>`)
)

// plainText makes a sentence of an HTML error page, without the status that its
// heading repeats, or of an object store's error.
func plainText(page string, status int) string {
	if found := storeError.FindStringSubmatch(page); found != nil {
		page = found[1] + ": " + found[2]
	}
	text := htmlTag.ReplaceAllString(htmlUnseen.ReplaceAllString(page, " "), " ")
	text = strings.Join(strings.Fields(html.UnescapeString(text)), " ")
	return strings.TrimSpace(strings.TrimPrefix(text, fmt.Sprintf("%d %s", status, http.StatusText(status))))
}

// longestRetryAfter is longer than anybody's patience.
const longestRetryAfter = 365 * 24 * time.Hour

// retryAfter reads the header of that name: seconds or a date.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		return time.Duration(min(seconds, int(longestRetryAfter.Seconds()))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil && at.After(now) {
		return min(at.Sub(now), longestRetryAfter)
	}
	return 0
}
