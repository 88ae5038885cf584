package client

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// ErrNotPermitted is returned where the permissions of the NATS user do not
// allow a request. The server answers such a request with silence, and says why
// beside it.
var ErrNotPermitted = errors.New("the NATS user has no permission")

// refusals remembers on which subjects the server refused a message, and when
// it said so last.
type refusals struct {
	mu sync.Mutex
	at map[string]time.Time
}

// maxRefusals bounds what is remembered: there are as many subjects as jobs.
const maxRefusals = 1000

var refusedSubject = regexp.MustCompile(`(?i)Permissions Violation for Publish to "([^"]+)"`)

func (r *refusals) note(err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	match := refusedSubject.FindStringSubmatch(err.Error())
	if match == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at == nil || len(r.at) >= maxRefusals {
		r.at = map[string]time.Time{}
	}
	r.at[match[1]] = time.Now()
}

// since returns the refusal of a message on one of some subjects, or below it.
func (r *refusals) since(start time.Time, subjects []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for refused, at := range r.at {
		for _, subject := range subjects {
			if !at.Before(start) && (refused == subject || strings.HasPrefix(refused, subject+".")) {
				return fmt.Errorf("%w to publish to %s", ErrNotPermitted, refused)
			}
		}
	}
	return nil
}

// NoteError remembers what the server said outside of any request. Connect
// makes it the connection's error handler; whoever sets another calls it.
func (c *Client) NoteError(err error) { c.refusals.note(err) }

// Refused returns [ErrNotPermitted] if the server has refused a message since
// start, on one of the given subjects or below one, and nil otherwise.
func (c *Client) Refused(start time.Time, subjects ...string) error {
	return c.refusals.since(start, subjects)
}

// explain adds to the error of a request that it was refused, if it was.
func (c *Client) explain(err error, start time.Time, subject string) error {
	if err == nil {
		return nil
	}
	if refused := c.Refused(start, subject); refused != nil {
		return refused
	}
	return err
}
