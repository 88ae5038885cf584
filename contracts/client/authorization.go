package client

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/nats-io/nats.go"
)

// ErrNotAuthorized is returned by Connect where NATS does not let in who
// connects.
var ErrNotAuthorized = errors.New("NATS does not let us in")

// explainConnect says why there is no connection, and what to do about it.
func (cfg Config) explainConnect(err error) error {
	if isRejection(err) {
		who, setting := cfg.identity()
		return fmt.Errorf("%w: the server at %s refuses %s: check %s, and the server's own configuration: %w",
			ErrNotAuthorized, WithoutUserInfo(cfg.URL), who, setting, err)
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, WithoutUserInfo(cfg.URL), err)
}

func isRejection(err error) bool {
	for _, rejection := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, rejection) {
			return true
		}
	}
	return false
}

// identity says who connects, and which setting says so.
func (cfg Config) identity() (who, setting string) {
	switch {
	case cfg.Creds != "":
		return "the credentials in " + cfg.Creds, "GANTRY_NATS_CREDS"
	case cfg.NKey != "":
		return "the nkey in " + cfg.NKey, "GANTRY_NATS_NKEY"
	case cfg.User != "":
		return fmt.Sprintf("user %q", cfg.User), "GANTRY_NATS_USER and GANTRY_NATS_PASSWORD"
	case cfg.Token != "":
		return "the token", "GANTRY_NATS_TOKEN"
	}
	first, _, _ := strings.Cut(cfg.URL, ",")
	if u, err := url.Parse(first); err == nil && u.User != nil {
		if _, isUser := u.User.Password(); isUser {
			return fmt.Sprintf("user %q", u.User.Username()), "GANTRY_NATS_URL"
		}
		return "the token", "GANTRY_NATS_URL"
	}
	return "a client without a name", "GANTRY_NATS_USER and GANTRY_NATS_PASSWORD, or GANTRY_NATS_TOKEN"
}

// LastTry returns why the connection could not be made again the last time that
// it was tried; nil where it was not.
func (c *Client) LastTry() error {
	if err := c.lastTry.Load(); err != nil {
		return *err
	}
	return nil
}

// OnTry makes a function be called with why, each time that the connection could
// not be made again.
func (c *Client) OnTry(call func(error)) { c.onTry.Store(&call) }

// noteTry is called for each try to connect that fails, but for the first one of
// who does not wait.
func (c *Client) noteTry(err error) {
	explained := c.config.explainConnect(err)
	c.lastTry.Store(&explained)
	if call := c.onTry.Load(); call != nil {
		(*call)(explained)
	}
	select {
	case c.tried <- explained:
	default:
	}
}
