package girder

import (
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

// session sends requests with one set of headers and retries them.
type session struct {
	http   *http.Client
	header http.Header // what authorizes us; for the asked host only
	retry  Retry
	idle   time.Duration
	log    zerolog.Logger
}

func newSession(o Options, header http.Header) (*session, error) {
	client := http.Client{}
	if o.HTTPClient == nil {
		built, err := NewHTTPClient(o.Verify)
		if err != nil {
			return nil, err
		}
		client = *built
	} else {
		client = *o.HTTPClient
	}
	client.CheckRedirect = redirects(header)
	s := &session{http: &client, header: header, retry: o.Retry.withDefaults(), idle: o.Idle, log: o.Logger}
	if s.idle == 0 {
		s.idle = idleDefault
	}
	return s, nil
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
	again  bool      // may be sent again after an unknown finish
}

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
			return fmt.Errorf("%s %s: the answer is not what Girder sends: %w", c.method, c.path, err)
		}
		return nil
	})
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
	req, err := s.request(watched, c, w)
	if err != nil {
		w.end()
		return nil, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		err = unreachable(watched, c, err)
		w.end()
		return nil, err
	}
	resp.Body = &answer{body: resp.Body, watch: w, ctx: watched, call: c}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	refusal := readError(c, resp, time.Now())
	refusal.Message = s.redact(refusal.Message)
	return nil, refusal
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
		body = w.sending(c.body)
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

// redact keeps what authorizes us out of a message that echoes it.
func (s *session) redact(message string) string {
	for _, values := range s.header {
		for _, secret := range values {
			if len(secret) >= 8 {
				message = strings.ReplaceAll(message, secret, "***")
			}
		}
	}
	return message
}

// unreachable tells the caller's end apart from the network's. The URL that
// net/http puts into its errors is left out.
func unreachable(ctx context.Context, c *call, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errStill):
		return &Unreachable{Method: c.method, Path: c.path, Err: errStill}
	case cause != nil:
		return fmt.Errorf("%s %s: %w", c.method, c.path, cause)
	case errors.Is(err, errRedirected):
		return fmt.Errorf("%s %s: %w", c.method, c.path, errRedirected)
	}
	return &Unreachable{Method: c.method, Path: c.path, Err: err}
}
