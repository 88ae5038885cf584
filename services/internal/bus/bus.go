// Package bus is the services' side of JetStream: appending to a job's life
// under optimistic concurrency, reading revokes and secrets, working through a
// consumer with leases, announcing an instance. It is built on
// contracts/client and, with it, the only package of the services that speaks
// NATS.
package bus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

// requestTimeout bounds one request to JetStream; a request that gets no
// answer is tried again as long as its caller's context lasts.
const requestTimeout = 5 * time.Second

// silentWait is how long a start waits for NATS, or for the dispatcher, before
// it says so.
const silentWait = 3 * time.Second

// Bus is one service's connection. All methods may be called by many
// goroutines at once.
type Bus struct {
	*client.Client
	// Source is the author of entries: docker-executor/<id>.
	Source string

	mu      sync.Mutex
	said    saidOnce
	streams map[string]jetstream.Stream
	// connectedSince is when the connection was last made, and connection ends
	// when it is lost.
	connectedSince time.Time
	connection     context.Context
	disconnect     context.CancelFunc

	// renewed is when the last renewal was sent that JetStream has stored.
	renewed atomic.Pointer[time.Time]

	waits waits
	// closed ends, with why, when the connection is closed for good; announced says
	// that Announce waits for that, closing that it is Close that does it.
	closed    context.Context
	giveUp    context.CancelCauseFunc
	announced atomic.Bool
	closing   atomic.Bool
}

// Open connects, waiting for a NATS server and for its topology, which the
// dispatcher applies. Close ends the connection.
func Open(ctx context.Context, cfg client.Config, service, instance string) (*Bus, error) {
	cfg.Wait = true
	cfg.Name = service + "/" + instance
	waiting := time.AfterFunc(silentWait, func() {
		zerolog.Ctx(ctx).Warn().Str("nats_url", client.WithoutUserInfo(cfg.URL)).Msg("no connection to NATS yet, trying on")
	})
	defer waiting.Stop()
	c, err := client.Connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	b := &Bus{Client: c, Source: cfg.Name, streams: map[string]jetstream.Stream{}}
	b.waits.after, b.waits.log = sayWait, zerolog.Ctx(ctx)
	b.closed, b.giveUp = context.WithCancelCause(context.Background())
	b.watchConnection(ctx)
	return b, nil
}

// AwaitTopology returns when every stream and bucket is there.
func (b *Bus) AwaitTopology(ctx context.Context) error {
	waiting := time.AfterFunc(silentWait, func() {
		zerolog.Ctx(ctx).Warn().Msg("streams are not all there yet, waiting for the dispatcher to make them")
	})
	defer waiting.Stop()
	for _, name := range client.StreamNames() { // each for itself: a slow server gets there, too
		err := b.persist(ctx, func(ctx context.Context) error {
			_, err := b.stream(ctx, name)
			return err
		}, "$JS.API.STREAM.INFO")
		if err != nil {
			return err
		}
	}
	return nil
}

// DeclareTopology applies the topology, waiting for NATS if need be.
func (b *Bus) DeclareTopology(ctx context.Context, replicas int) error {
	said := ""                                       // what keeps it is told once, not at each try
	for _, step := range b.TopologySteps(replicas) { // each for itself: a slow server gets there, too
		err := b.persist(ctx, func(ctx context.Context) error {
			err := step.Do(ctx)
			if err != nil && isOutage(err) && ctx.Err() == nil && err.Error() != said {
				said = err.Error()
				zerolog.Ctx(ctx).Warn().Err(err).Msg("topology not applied yet, waiting for NATS")
			}
			return err
		}, "$JS.API")
		if err != nil {
			return err
		}
	}
	return nil
}

// DeclareConsumer creates or updates a durable consumer.
func (b *Bus) DeclareConsumer(ctx context.Context, consumer contracts.Consumer) error {
	return b.persist(ctx, func(ctx context.Context) error {
		_, err := b.ApplyConsumer(ctx, consumer)
		return err
	}, "$JS.API.CONSUMER.CREATE."+consumer.Stream)
}

// Connected reports whether the connection to NATS stands.
func (b *Bus) Connected() error {
	if b.Conn().IsConnected() {
		return nil
	}
	if err := b.LastTry(); errors.Is(err, client.ErrNotAuthorized) {
		return err
	}
	return errors.New("no connection to NATS")
}

// ConnectedSince returns when the connection was last made.
func (b *Bus) ConnectedSince() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.connectedSince
}

// ErrClosed is the end of a service whose connection to NATS was closed for good:
// the library does so after an error of the server that it does not know. Who
// supervises the service starts it again.
var ErrClosed = errors.New("the connection to NATS was closed for good")

// Close ends the connection.
func (b *Bus) Close() {
	b.closing.Store(true)
	b.Conn().SetClosedHandler(nil)
	b.Client.Close()
}

// watchConnection notes each reconnect, and reports when the connection is lost
// and made again, and what the server says outside of any request, above all
// that a subject is not permitted.
func (b *Bus) watchConnection(ctx context.Context) {
	b.connectedSince = time.Now()
	b.connection, b.disconnect = context.WithCancel(context.Background())
	b.Conn().SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		b.report(ctx, err)
	})
	b.OnTry(func(err error) { b.reportTry(ctx, err) })
	b.Conn().SetDisconnectErrHandler(func(conn *nats.Conn, err error) {
		b.mu.Lock()
		b.disconnect()
		b.connection, b.disconnect = context.WithCancel(context.Background())
		b.mu.Unlock()
		if !conn.IsClosed() {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("connection to NATS lost, trying on")
		}
	})
	b.Conn().SetReconnectHandler(func(conn *nats.Conn) {
		b.mu.Lock()
		b.connectedSince = time.Now()
		b.mu.Unlock()
		b.said.forget()
		zerolog.Ctx(ctx).Info().Str("server", conn.ConnectedServerName()).Msg("connected to NATS again")
	})
	b.Conn().SetClosedHandler(func(conn *nats.Conn) {
		err := fmt.Errorf("%w: %w", ErrClosed, conn.LastError())
		zerolog.Ctx(ctx).Error().Err(err).Msg("no connection to NATS any more, the service ends")
		b.giveUp(err)
	})
}

// stream returns the handle of a stream. It is fetched once.
func (b *Bus) stream(ctx context.Context, name string) (jetstream.Stream, error) {
	b.mu.Lock()
	known, ok := b.streams[name]
	b.mu.Unlock()
	if ok {
		return known, nil
	}
	stream, err := b.JetStream().Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("find stream %s: %w", name, err)
	}
	b.mu.Lock()
	b.streams[name] = stream
	b.mu.Unlock()
	return stream, nil
}

// lastMessage returns the last message on a subject, read from the leader, or
// nil if there is none.
func (b *Bus) lastMessage(ctx context.Context, streamName, subject string) (*jetstream.RawStreamMsg, error) {
	var last *jetstream.RawStreamMsg
	err := b.persist(ctx, func(ctx context.Context) error {
		stream, err := b.stream(ctx, streamName)
		if err != nil {
			return err
		}
		last, err = stream.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			last = nil
			return nil
		}
		return err
	}, onStream(streamName)...)
	return last, err
}

// persist does what it is given until it works, fails for good, or the context
// ends: an outage of NATS delays work and never loses it. subjects are those
// that it publishes to, or what they begin with: where one of them is not
// permitted, the server's silence is none that ends. What waits for long is told.
//
// A connection that is closed for good is an outage as long as the service is yet
// to end by that: what was under way was not refused, and goes on elsewhere.
func (b *Bus) persist(ctx context.Context, do func(context.Context) error, subjects ...string) (err error) {
	wait := wait{all: &b.waits, since: time.Now()}
	defer func() { wait.end(err == nil) }()
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 50*time.Millisecond, 2*time.Second
	for {
		start := time.Now()
		err = b.permitted(ctx, do, subjects)
		if err == nil {
			return nil
		}
		if refused := b.Refused(start, subjects...); refused != nil {
			return refused
		}
		if !isOutage(err) || b.isOver(err) {
			return err
		}
		if b.Connected() == nil { // that there is no connection was said
			wait.tell(err, subjects)
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// isOver reports whether an error says that the connection is closed, and nothing
// is to end the callers' contexts for it: Close did it, or it came before Announce.
func (b *Bus) isOver(err error) bool {
	return errors.Is(err, nats.ErrConnectionClosed) && (b.closing.Load() || !b.announced.Load())
}

// permitted does it once, until it is known to be refused.
func (b *Bus) permitted(ctx context.Context, do func(context.Context) error, subjects []string) error {
	ctx, cancel := b.UntilRefused(ctx, subjects...)
	defer cancel()
	return b.try(ctx, do)
}

// try does it once. An answer that was on its way when the connection was lost
// never comes: nobody waits for it.
func (b *Bus) try(ctx context.Context, do func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	connection := b.link()
	defer context.AfterFunc(connection, cancel)()
	err := do(limited)
	if errors.Is(err, context.Canceled) && ctx.Err() == nil && connection.Err() != nil {
		return fmt.Errorf("%w: %w", nats.ErrDisconnected, err)
	}
	return err
}

// link returns a context that ends when the present connection is lost.
func (b *Bus) link() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.connection
}

// onStream returns the subjects on which a stream is read and purged.
func onStream(name string) []string {
	return []string{"$JS.API.STREAM.INFO." + name, "$JS.API.STREAM.MSG.GET." + name, "$JS.API.STREAM.PURGE." + name}
}

// onBucket returns the subjects on which a bucket is read and written.
func onBucket(name string) []string {
	return []string{"$JS.API.STREAM.INFO.KV_" + name, "$JS.API.DIRECT.GET.KV_" + name, "$KV." + name}
}

// passing are the codes of errors that pass, beside those of the server's own
// trouble, which are from 500 on as with HTTP.
var passing = []jetstream.ErrorCode{
	10002, // the account's limit is reached
	10005, // no suitable peers for placement
	10158, // an earlier try with the same id is on its way, and may yet be lost
}

// refusing are the codes of errors from 500 on that are refusals nevertheless.
var refusing = []jetstream.ErrorCode{
	10052, // the stream's configuration is not valid
	10074, // several replicas, and one server
	10111, // a message is to take the place of others where that is not allowed
	10117, // there are too many subjects to list
}

// errUndecided says that a message of ours, or of somebody else, is on its way
// into a stream, and may yet be lost with the stream's leader.
var errUndecided = errors.New("what comes next is not decided yet")

// isOutage reports whether an error says that the server did not answer, as
// opposed to an answer that is a refusal.
func isOutage(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) && isPassing(api) {
		return true
	}
	for _, outage := range []error{
		errUndecided, jetstream.ErrJetStreamNotEnabled,
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrConnectionReconnecting,
		nats.ErrNoServers, jetstream.ErrNoStreamResponse, jetstream.ErrStreamNotFound, jetstream.ErrBucketNotFound,
		nats.ErrReconnectBufExceeded, nats.ErrConnectionClosed,
	} {
		if errors.Is(err, outage) {
			return true
		}
	}
	return client.ConnectionBroke(err)
}

func isPassing(err *jetstream.APIError) bool {
	return slices.Contains(passing, err.ErrorCode) ||
		err.Code >= http.StatusInternalServerError && !slices.Contains(refusing, err.ErrorCode) && !isFixed(err)
}

// consumerNotMade is the code of any error in making a consumer.
const consumerNotMade = 10012

// isFixed reports whether a consumer is there, and cannot become what is wanted.
// Only the text tells that from the trouble that has the same code.
func isFixed(err *jetstream.APIError) bool {
	return err.ErrorCode == consumerNotMade &&
		(strings.Contains(err.Description, "can not be updated") || strings.Contains(err.Description, "can not update"))
}

// Installation returns the id of this installation, making one the first time.
func (b *Bus) Installation(ctx context.Context) (string, error) {
	var id string
	err := b.persist(ctx, func(ctx context.Context) error {
		kv, err := b.JetStream().KeyValue(ctx, contracts.BucketInstallation)
		if err != nil {
			return err
		}
		_, err = kv.Create(ctx, contracts.InstallationKey, []byte(contracts.NewToken()))
		if err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
			return err
		}
		entry, err := b.key(ctx, contracts.BucketInstallation, contracts.InstallationKey)
		if errors.Is(err, jetstream.ErrKeyNotFound) { // the one that exists is still on its way
			return fmt.Errorf("%w: %w", errUndecided, err)
		}
		if err != nil {
			return err
		}
		id = string(entry.Data)
		return nil
	}, onBucket(contracts.BucketInstallation)...)
	if err != nil {
		return "", fmt.Errorf("read installation id: %w", err)
	}
	return id, nil
}
