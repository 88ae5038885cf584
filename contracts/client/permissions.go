package client

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
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
	// deaf says when the server refused a subscription last, on which subjects: it
	// stays refused as long as the connection lasts.
	deaf map[string]time.Time
	// waiting are those who wait for an answer, with what tells them.
	waiting map[*waiter]context.CancelCauseFunc
}

type waiter struct{ subjects []string }

// waitsFor reports whether a refusal is of one of the subjects, or of one below.
func waitsFor(subjects []string, refused string) bool {
	return slices.ContainsFunc(subjects, func(subject string) bool {
		return refused == subject || strings.HasPrefix(refused, subject+".")
	})
}

func (c *Client) notPermitted(do, subject string) error {
	return fmt.Errorf("%w to %s %s: it is %s", ErrNotPermitted, do, subject, c.config.describe())
}

// describe says who connects where, and which settings say so.
func (cfg Config) describe() string {
	who, setting := cfg.identity()
	return fmt.Sprintf("%s (%s) at %s", who, setting, WithoutUserInfo(cfg.URL))
}

// maxRefusals bounds what is remembered: there are as many subjects as jobs.
const maxRefusals = 1000

var refusedSubject = regexp.MustCompile(`(?i)Permissions Violation for (Publish|Subscription) to "([^"]+)"`)

// inboxes begin the subjects of answers. What is refused there concerns one
// answer, which its asker waits for no more.
const inboxes = "_INBOX"

// refusal returns the subject of a refusal, and whether it is one.
func refusal(err error) (subject string, subscription, is bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", false, false
	}
	match := refusedSubject.FindStringSubmatch(err.Error())
	if match == nil {
		return "", false, false
	}
	return match[2], strings.EqualFold(match[1], "subscription"), true
}

func remember(refused *map[string]time.Time, subject string) {
	if *refused == nil || len(*refused) >= maxRefusals {
		*refused = map[string]time.Time{}
	}
	(*refused)[subject] = time.Now()
}

func (r *refusals) tell(w *waiter, tell context.CancelCauseFunc) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		r.waiting = map[*waiter]context.CancelCauseFunc{}
	}
	r.waiting[w] = tell
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiting, w)
	}
}

// NoteError remembers what the server said outside of any request. Connect
// makes it the connection's error handler; whoever sets another calls it.
func (c *Client) NoteError(err error) {
	if isRejection(err) { // of a try to connect again, which is told here alone
		c.noteTry(err)
		return
	}
	subject, subscription, is := refusal(err)
	if !is {
		return
	}
	r := &c.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	if subscription {
		remember(&r.deaf, subject)
		return
	}
	remember(&r.at, subject)
	for w, tell := range r.waiting {
		if waitsFor(w.subjects, subject) {
			tell(c.notPermitted("publish to", subject))
		}
	}
}

// RefusedAny returns [ErrNotPermitted] if the server has lately refused a message,
// or, since connected, a subscription, on whatever subject; nil otherwise.
func (c *Client) RefusedAny(lately, connected time.Time) error {
	r := &c.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	for subject, at := range r.deaf {
		if !at.Before(connected) {
			return c.notPermitted("subscribe to", subject)
		}
	}
	for subject, at := range r.at {
		if !at.Before(lately) && !at.Before(connected) && !strings.HasPrefix(subject, inboxes) {
			return c.notPermitted("publish to", subject)
		}
	}
	return nil
}

// ExplainRefusal says what the NATS user may not do and who that is, as an
// [ErrNotPermitted], and names the kind of thing, which is the same for all
// jobs; "" and nil for what is no refusal.
func (c *Client) ExplainRefusal(err error) (kind string, explained error) {
	subject, subscription, is := refusal(err)
	if !is {
		return "", nil
	}
	do := "publish to"
	if subscription {
		do = "subscribe to"
	}
	kind = do + subject
	const most = 3
	if tokens := strings.SplitN(subject, ".", most); len(tokens) == most && tokens[0] != "$JS" {
		kind = do + tokens[0] + "." + tokens[1]
	}
	return kind, c.notPermitted(do, subject)
}

// Refused returns [ErrNotPermitted] if the server has refused a message since
// start, on one of the given subjects or below one, and nil otherwise.
func (c *Client) Refused(start time.Time, subjects ...string) error {
	c.refusals.mu.Lock()
	defer c.refusals.mu.Unlock()
	for refused, at := range c.refusals.at {
		if !at.Before(start) && waitsFor(subjects, refused) {
			return c.notPermitted("publish to", refused)
		}
	}
	return nil
}

// UntilRefused returns a context for requests on some subjects: it ends, with
// [ErrNotPermitted] as its cause, when the server refuses a message on one of
// them or below one. Cancel it when the requests are done.
func (c *Client) UntilRefused(ctx context.Context, subjects ...string) (context.Context, context.CancelFunc) {
	ctx, tell := context.WithCancelCause(ctx)
	stop := c.refusals.tell(&waiter{subjects}, tell)
	return ctx, func() {
		stop()
		tell(nil)
	}
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
