package girder

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// JobClient reads and updates the one job of a [JobSpec].
type JobClient struct {
	s      *session
	method string
	url    string
	path   string
}

// NewJobClient checks the specification and builds a client. It does not
// connect. The options' APIURL and Token are not used; see [Rewrite] for an URL
// that is reached by another name.
func NewJobClient(spec JobSpec, o Options) (*JobClient, error) {
	method := strings.ToUpper(spec.Method)
	switch method {
	case "":
		method = http.MethodPut
	case http.MethodPut, http.MethodPost, http.MethodPatch:
	default:
		return nil, fmt.Errorf("job method: %q cannot update a job", spec.Method)
	}
	header := http.Header{}
	for name, value := range spec.Headers {
		header.Set(name, value)
	}
	s, err := newSession(o, spec.URL, header)
	if err != nil {
		return nil, fmt.Errorf("job URL: %w", err)
	}
	if s.server.RawQuery != "" || s.server.Fragment != "" {
		return nil, errors.New("job URL: must end with the job's id")
	}
	path := s.server.Path
	if at := apiRoot.FindStringIndex(path); at != nil {
		path = path[at[1]:]
	}
	return &JobClient{s: s, method: method, url: spec.URL, path: strings.Trim(path, "/")}, nil
}

// Get reads the job with its log.
func (j *JobClient) Get(ctx context.Context) (Job, error) {
	return ask[Job](ctx, j.s, &call{method: http.MethodGet, url: j.url, path: j.path, again: true})
}

// Update changes the job and returns it, without its log.
func (j *JobClient) Update(ctx context.Context, u JobUpdate) (Job, error) {
	req := &call{method: j.method, url: j.url, path: j.path, form: u.form(), again: u.Retry}
	return ask[Job](ctx, j.s, req)
}

// CloseIdle closes the connections that nobody uses.
func (j *JobClient) CloseIdle() { j.s.http.CloseIdleConnections() }
