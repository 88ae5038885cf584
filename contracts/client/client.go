// Package client is Gantry's Go client on top of package contracts: it
// connects to NATS, declares the topology, submits tasks, follows jobs, reads
// their results and logs, revokes them, and asks the services' queries.
//
//	c, err := client.Connect(ctx, client.Config{URL: "nats://127.0.0.1:4222", Token: token})
//	job, err := c.Submit(ctx, &contracts.Task{…})
//	end, err := c.Wait(ctx, job)
package client

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Config says how to reach NATS. The tags name the flags and the environment
// of programs that parse it.
type Config struct {
	URL      string `help:"URL of the NATS server." default:"nats://127.0.0.1:4222"`
	Token    string `help:"Token of the NATS server." secret:""`
	User     string `help:"User name at the NATS server."`
	Password string `help:"Password at the NATS server." secret:""`
	Creds    string `help:"File with NATS credentials (.creds)."`
	NKey     string `help:"File with an nkey seed." name:"nkey"`
	CA       string `help:"File with the certificate authorities of the NATS server." name:"ca"`
	Cert     string `help:"File with the client certificate."`
	Key      string `help:"File with the client certificate's key."`
	// Name shows in the server's list of connections.
	Name string `kong:"-"`
	// Wait makes Connect wait for a server that does not answer yet, as
	// services do, instead of returning an error.
	Wait bool `kong:"-"`
	// Patience is how long a server may take to answer where a request's context
	// does not say it, and a cluster to elect a leader; 0 for some seconds. Tests
	// set it, for machines that stand still.
	Patience time.Duration `kong:"-"`
	// Dialer replaces the network, in tests.
	Dialer nats.CustomDialer `kong:"-"`
}

// Client is a connection to NATS. It reconnects by itself. All methods may be
// called by many goroutines at once.
type Client struct {
	conn     *nats.Conn
	js       jetstream.JetStream
	streams  sync.Map // handles by name
	config   Config
	lastTry  atomic.Pointer[error]
	tried    chan error // to connect, in vain
	onTry    atomic.Pointer[func(error)]
	patience time.Duration // of [Config]
	refusals refusals
}

// ErrUnreachable is returned by Connect when no server answers.
var ErrUnreachable = errors.New("NATS does not answer")

// Connect connects to NATS. Close ends the connection.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	options, err := cfg.options()
	if err != nil {
		return nil, err
	}
	c := &Client{config: cfg, patience: cfg.Patience, tried: make(chan error, 1)}
	// Without a handler the library prints what it is told outside of requests.
	options = append(options, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.NoteError(err) }))
	options = append(options, nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.noteTry(err) }))
	conn, err := nats.Connect(cfg.URL, options...)
	if err != nil {
		return nil, cfg.explainConnect(err)
	}
	if cfg.Wait {
		if err := c.awaitConnected(ctx, conn); err != nil {
			conn.Close()
			if errors.Is(err, ErrNotAuthorized) {
				return nil, err
			}
			return nil, cfg.explainConnect(err)
		}
	}
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(max(usualPatience, cfg.Patience)))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	c.conn, c.js = conn, js
	return c, nil
}

var userInfo = regexp.MustCompile(`([a-zA-Z]+://)?[^\s,"(]+@`)

// WithoutUserInfo masks the names, passwords and tokens of the URLs in a text.
func WithoutUserInfo(text string) string { return userInfo.ReplaceAllString(text, "${1}***@") }

// A server that refuses, or is not there, says so at once; one that is slow, or
// its machine, is given time. Of several servers, one whose machine is gone costs
// connectPatience before the next is tried.
const (
	connectPatience = 10 * time.Second
	usualPatience   = 30 * time.Second
)

func (cfg Config) options() ([]nats.Option, error) {
	options := []nats.Option{
		nats.Name(cfg.Name),
		nats.Timeout(max(connectPatience, cfg.Patience)),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 500*time.Millisecond),
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.RetryOnFailedConnect(cfg.Wait),
		// A password that is changed at the server first, or for a moment, ends no
		// service.
		nats.IgnoreAuthErrorAbort(),
	}
	if cfg.Dialer != nil {
		options = append(options, nats.SetCustomDialer(cfg.Dialer))
	}
	if cfg.Token != "" {
		options = append(options, nats.Token(cfg.Token))
	}
	if cfg.User != "" {
		// Replies carry what was asked for, secrets too: an inbox of its own keeps
		// them from other users, where the server's permissions say so.
		options = append(options, nats.UserInfo(cfg.User, cfg.Password), nats.CustomInboxPrefix("_INBOX_"+cfg.User))
	}
	if cfg.Creds != "" {
		options = append(options, nats.UserCredentials(cfg.Creds))
	}
	if cfg.NKey != "" {
		option, err := nats.NkeyOptionFromSeed(cfg.NKey)
		if err != nil {
			return nil, fmt.Errorf("nkey %s: %w", cfg.NKey, err)
		}
		options = append(options, option)
	}
	if cfg.CA != "" {
		options = append(options, nats.RootCAs(cfg.CA))
	}
	if cfg.Cert != "" {
		options = append(options, nats.ClientCert(cfg.Cert, cfg.Key))
	}
	return options, nil
}

// awaitConnected waits for a server that does not answer yet, and not for one that
// refuses: who started this is to know that.
func (c *Client) awaitConnected(ctx context.Context, conn *nats.Conn) error {
	changed := conn.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer conn.RemoveStatusListener(changed)
	for !conn.IsConnected() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-c.tried:
			if errors.Is(err, ErrNotAuthorized) {
				return err
			}
		case status := <-changed:
			if status == nats.CLOSED {
				return conn.LastError()
			}
		}
	}
	return nil
}

// Close ends the connection.
func (c *Client) Close() { c.conn.Close() }

// Conn returns the connection, for services.
func (c *Client) Conn() *nats.Conn { return c.conn }

// JetStream returns the JetStream context of the connection, for services.
func (c *Client) JetStream() jetstream.JetStream { return c.js }
