package girder

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// session sends requests with one set of headers to one server and retries them.
type session struct {
	http    *http.Client
	server  *url.URL    // the API's or the job's
	host    string      // who answers, as in [HostKey]
	header  http.Header // what authorizes us; for that server only
	retry   Retry
	traffic *Traffic
	idle    time.Duration
	answer  time.Duration
	log     zerolog.Logger
}

func newSession(o Options, address string, header http.Header) (*session, error) {
	if err := checkURL(address); err != nil {
		return nil, err
	}
	server, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if o.HTTPClient == nil {
		o.HTTPClient = newHTTPClient(nil, environmentProxies)
	}
	client := *o.HTTPClient
	client.CheckRedirect = redirects(o.HTTPClient, header, o.Traffic)
	return &session{
		http: &client, server: server, host: HostKey(o.HTTPClient, server), header: header, retry: o.Retry.withDefaults(), traffic: o.Traffic,
		idle: cmp.Or(o.Idle, idleDefault), answer: cmp.Or(o.Answer, answerDefault), log: o.Logger,
	}, nil
}

// call is one request to Girder.
type call struct {
	method string
	url    string // without the query
	path   string // how errors name it
	query  url.Values
	form   url.Values
	body   io.Reader // raw bytes, sent once
	length int64     // of body
	accept string    // empty: JSON
	from   int64     // first byte of a file that is wanted
	again  bool      // may be sent again after an unknown finish
}

// movesFile tells what is a file's bytes from documents.
func (c *call) movesFile() bool { return c.body != nil || c.accept != "" }

// maxDocument is the largest JSON answer that is read: a job's log may have the 16 MiB of a document, escaped.
const maxDocument = 128 << 20

// ask sends the call and returns its answer's document.
func ask[T any](ctx context.Context, s *session, c *call) (T, error) {
	var doc T
	err := s.json(ctx, c, &doc)
	return doc, err
}

// json sends the call and decodes its answer into out, unless that is nil.
func (s *session) json(ctx context.Context, c *call, out any) error {
	return s.patiently(ctx, c, func() error {
		resp, err := s.send(ctx, c)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
		if err != nil || out == nil {
			return err
		}
		if err := json.Unmarshal(body, out); err != nil {
			return s.garbled(c, resp, err)
		}
		return nil
	})
}

// garbled is for an answer that was cut or corrupted on its way, or that something
// before Girder made. What the server did is not known.
func (s *session) garbled(c *call, resp *http.Response, err error) error {
	return &Unreachable{
		Method: c.method, Path: c.path, Host: s.elsewhere(resp.Request.URL),
		Err: fmt.Errorf("the answer is not what Girder sends: %w", s.hide(err)),
	}
}

// open sends the call and leaves the answer's body to the caller.
func (s *session) open(ctx context.Context, c *call) (*http.Response, error) {
	var resp *http.Response
	err := s.patiently(ctx, c, func() (err error) {
		resp, err = s.send(ctx, c)
		return err
	})
	return resp, err
}

func (s *session) patiently(ctx context.Context, c *call, try func() error) error {
	if !c.again {
		return try()
	}
	waiting := func(err error, wait time.Duration) {
		s.log.Debug().Err(err).Dur("wait", wait).Msg("girder request is tried again")
	}
	return s.retry.Do(ctx, waiting, func() (bool, error) { return false, try() })
}

// send sends the call once. An answer other than a success is an [*Error].
func (s *session) send(ctx context.Context, c *call) (*http.Response, error) {
	watched, cancel := context.WithCancelCause(ctx)
	w := newWatch(s.idle, cancel)
	began := time.Now()
	leave, err := s.traffic.enter(watched, s.host, c.movesFile())
	if err != nil {
		w.end()
		return nil, fmt.Errorf("%s %s: %w", c.method, c.path, err)
	}
	if s.traffic != nil {
		w.waited(time.Since(began))
	}
	resp, err := s.sendNow(watched, c, w)
	if err != nil {
		w.end()
		leave()
		return nil, err
	}
	resp.Body = &answer{body: resp.Body, watch: w, ctx: watched, call: c, from: s.elsewhere(resp.Request.URL), session: s, leave: leave}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusProxyAuthRequired {
		return nil, s.unreachable(watched, c, w, proxyRefusal(s.http, resp))
	}
	return nil, s.refusal(c, resp, w)
}

func (s *session) sendNow(watched context.Context, c *call, w *watch) (*http.Response, error) {
	req, err := s.request(w.awaiting(watched, s.answer), c, w)
	if err != nil {
		return nil, err
	}
	resp, err := s.http.Do(req)
	w.answered()
	if err == nil {
		return resp, nil
	}
	if resp != nil && errors.Is(err, errRedirected) {
		return nil, &Error{Method: c.method, Path: c.path, Status: resp.StatusCode, Message: errRedirected.Error()}
	}
	return nil, s.unreachable(watched, c, w, err)
}

// refusal reads what refuses the request. Of an answer that cannot be read, a part
// would be taken for a word of Girder.
func (s *session) refusal(c *call, resp *http.Response, w *watch) error {
	e, err := readError(c, resp, time.Now())
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return s.garbled(c, resp, err)
	case err != nil:
		return err
	}
	e.Diverted = resp.Request.Response != nil && resp.Request.URL.Path != asked(resp.Request).Path
	e.Host, e.Waited, e.Size = s.elsewhere(resp.Request.URL), w.sum(), sizeOf(resp.Header.Get("Content-Range"))
	e.Message = s.redact(e.Message)
	if resp.StatusCode/100 == 3 {
		e.Message = errRedirected.Error() // one that net/http does not follow, for want of a second body
	}
	s.traffic.refused(HostKey(s.http, resp.Request.URL), e)
	return e
}

// asked is the URL of the request before all redirects.
func asked(last *http.Request) *url.URL {
	for last.Response != nil {
		last = last.Response.Request
	}
	return last.URL
}

// elsewhere names the server that was asked last, where that is not Girder.
func (s *session) elsewhere(u *url.URL) string {
	if sameServer(s.server, u) {
		return ""
	}
	return u.Host
}

func (s *session) request(ctx context.Context, c *call, w *watch) (*http.Request, error) {
	target := c.url
	if len(c.query) > 0 {
		target += "?" + encode(c.query)
	}
	var body io.Reader
	switch {
	case c.form != nil:
		body = strings.NewReader(encode(c.form))
	case c.body != nil:
		body = w.sending(s.paid(ctx, w, c.body))
	}
	req, err := http.NewRequestWithContext(ctx, c.method, target, body)
	if err != nil {
		w.sent = nil // nobody will read it
		return nil, fmt.Errorf("%s %s: build the request: not a valid URL", c.method, c.path)
	}
	for name, values := range s.header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", "gantry")
	req.Header.Set("Accept", "application/json")
	if c.accept != "" {
		req.Header.Set("Accept", c.accept)
		req.Header.Set("Accept-Encoding", "identity") // so that lengths are those of the file
	}
	if c.from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", c.from))
	}
	switch {
	case c.form != nil:
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	case c.body != nil:
		req.Header.Set("Content-Type", "application/octet-stream")
		req.ContentLength = c.length
	}
	return req, nil
}

// encode is strict and its result is valid UTF-8 when decoded: Girder refuses
// anything else as a whole, and ends a value at a bare semicolon.
func encode(values url.Values) string {
	for _, list := range values {
		for i := range list {
			list[i] = strings.ToValidUTF8(list[i], "\uFFFD")
		}
	}
	return values.Encode()
}

// paid counts bytes of a file against the rate.
func (s *session) paid(ctx context.Context, w *watch, body io.Reader) io.Reader {
	if !s.traffic.limitsBytes() {
		return body
	}
	return &paidReader{ctx: ctx, from: body, traffic: s.traffic, waited: w.waited}
}

// unreachable tells the caller's end apart from the network's. The URL that
// net/http puts into its errors is left out, but for another host's name.
func (s *session) unreachable(ctx context.Context, c *call, w *watch, err error) error {
	host := ""
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
		if u, broken := url.Parse(wrapped.URL); broken == nil {
			host = s.elsewhere(u)
		}
	}
	return s.brokenBy(ctx, err, &Unreachable{Method: c.method, Path: c.path, Host: host, Waited: w.sum()})
}

// brokenBy completes an error with what broke, where that was not the caller.
func (s *session) brokenBy(ctx context.Context, err error, silence *Unreachable) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errStill), errors.Is(cause, errSilent):
		silence.Err = cause
	case cause != nil:
		return fmt.Errorf("%s %s: %w", silence.Method, silence.Path, cause)
	default:
		silence.Err = sessionFault(s.hide(err))
	}
	return silence
}
