// Package service is the dispatcher as a value: Config and Run.
//
// The dispatcher owns intake, routing, retries, dead letters and the end of
// revoked jobs that wait. Any number may run: they share the consumers of
// submissions and due messages, and whatever else one of them does is decided
// on a life's last entry, so a second one finds it done.
package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/cancel"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/deadletter"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/intake"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/lost"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/queues"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/retry"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/sweep"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/config"
	"github.com/gantry-worker/gantry/services/internal/telemetry"
)

// Config is the dispatcher's configuration.
type Config struct {
	telemetry.Settings
	NATS client.Config `embed:"" prefix:"nats-"`

	Replicas   int               `help:"Replicas of every stream: 1, or 3 on a cluster." default:"1" enum:"1,3"`
	Queues     []contracts.Queue `help:"Queues that take tasks, besides those that executors announce." default:"default"`
	OpenQueues bool              `help:"Take tasks for any queue, also one that nobody serves yet."`
	MaxQueued  int               `help:"Stop taking submissions while that many jobs wait." default:"1000000"`
	// SweepInterval is how long a job stands still before it is looked whether the
	// message is there that moves it on.
	SweepInterval time.Duration `help:"Look after jobs that have stood still that long." default:"60s"`

	LostAfter time.Duration `help:"Give up an attempt whose executor has been gone that long, where no other executor took it over." default:"15m"`
	// OnReady is called once, when the service takes work.
	OnReady func() `kong:"-"`
}

// Validate checks what flags cannot.
func (c *Config) Validate() error {
	for _, queue := range c.Queues {
		if _, err := contracts.ParseName[contracts.Queue](string(queue)); err != nil {
			return config.Invalid("queues", "%v", err)
		}
	}
	if c.MaxQueued <= 0 {
		return config.Invalid("max-queued", "must be at least 1, is %d", c.MaxQueued)
	}
	if c.SweepInterval <= 0 {
		return config.Invalid("sweep-interval", "must be longer than 0s, is %s", c.SweepInterval)
	}
	if c.LostAfter < contracts.InstanceTTL {
		return config.Invalid("lost-after", "must be %s or longer, is %s", contracts.InstanceTTL, c.LostAfter)
	}
	return nil
}

// intakeWorkers and dueWorkers are how many messages are handled at once.
const (
	intakeWorkers = 16
	dueWorkers    = 8
)

// Run is the dispatcher. It returns when the context ends and everything that
// it started has ended.
func Run(ctx context.Context, cfg Config) error {
	id := contracts.NewToken()[:8]
	b, err := bus.Open(ctx, cfg.NATS, "dispatcher", id)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.DeclareTopology(ctx, cfg.Replicas); err != nil {
		return fmt.Errorf("declare topology: %w", err)
	}
	known := queues.New(b, cfg.OpenQueues)
	if err := errors.Join(known.Recall(ctx), known.Require(ctx, cfg.Queues...)); err != nil {
		return err
	}
	presence := bus.NewPresence(b)
	d := &dispatcher{
		bus:     b,
		sweeper: &sweep.Sweeper{Bus: b, Interval: cfg.SweepInterval},
		lost:    &lost.Watch{Bus: b, Presence: presence, After: cfg.LostAfter, AskPause: lost.AskPause, Look: lost.Look},
		cfg:     cfg,
		ready:   make(chan struct{}),
		ended:   make(chan *bus.Seen, 256),
		setBack: make(chan struct{}, 1),
	}
	health := telemetry.NewHealth()
	health.Register("nats", b.Ready)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return health.Serve(ctx, cfg.HealthAddress) })
	g.Go(func() error {
		return b.Announce(ctx, func() contracts.Instance {
			return contracts.Instance{Service: "dispatcher", ID: id, Version: config.Version(), Started: started}
		})
	})
	g.Go(func() error { return presence.Run(ctx) })
	g.Go(func() error { return d.lost.Run(ctx) })
	g.Go(func() error { return known.Run(ctx) })
	g.Go(func() error { return d.watch(ctx) })
	g.Go(func() error { return d.renew(ctx, known) })
	g.Go(func() error { return d.followEnds(ctx) })
	g.Go(func() error { return d.sweeper.Run(ctx) })
	g.Go(func() error { return d.listenRevokes(ctx) })
	g.Go(func() error {
		return b.Work(ctx, contracts.DueConsumer, dueWorkers, func(ctx context.Context, msg *bus.Message) error {
			return retry.Handle(ctx, b, msg)
		})
	})
	g.Go(func() error { return d.takeSubmissions(ctx, &intake.Intake{Bus: b, Queues: known}) })
	g.Go(func() error { return deadletter.Serve(ctx, b) })
	return g.Wait()
}

var started = time.Now().UTC()

type dispatcher struct {
	bus     *bus.Bus
	cfg     Config
	sweeper *sweep.Sweeper
	lost    *lost.Watch
	// ready is closed when the lives are known that were there at the start.
	ready chan struct{}
	ended chan *bus.Seen
	// setBack has room for one: that the server lost data since it was emptied.
	setBack chan struct{}
}

// watch follows all lives: it knows who stands still and whose attempt ended.
func (d *dispatcher) watch(ctx context.Context) error {
	live := false
	begin := func() {
		d.sweeper.Forget()
		d.lost.Forget()
		if !live {
			return
		}
		live = false
		select {
		case d.setBack <- struct{}{}:
		default: // the renewal that is due makes up for this loss, too
		}
	}
	known := sync.OnceFunc(func() { close(d.ready) })
	caughtUp := func() {
		live = true
		known()
	}
	return d.bus.WatchLives(ctx, begin, caughtUp, func(last *bus.Seen) {
		d.sweeper.Observe(last)
		d.lost.Observe(last)
		willRetry := last.Type == contracts.EntryFailed && !last.Terminal()
		endedNow := live && (last.Type == contracts.EntryFailed || last.Type == contracts.EntryCanceled)
		if !willRetry && !endedNow {
			return
		}
		select {
		case d.ended <- last:
		case <-ctx.Done():
		}
	})
}

// renew makes the consumers again that the server may have lost. Lives are watched
// meanwhile, however long it takes.
func (d *dispatcher) renew(ctx context.Context, all *queues.Queues) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.setBack:
		}
		if err := all.Renew(ctx); err != nil && ctx.Err() == nil {
			zerolog.Ctx(ctx).Error().Err(err).Msg("consumers not made again after the server lost data")
		}
	}
}

// followEnds plans the retry of attempts that ended and removes the steps that
// they asked of transfer.
func (d *dispatcher) followEnds(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case last := <-d.ended:
			err := retry.Plan(ctx, d.bus, last)
			if err == nil && last.Attempt > 0 {
				err = d.bus.Purge(ctx, contracts.StreamTransfers, contracts.TransferJobFilter(last.Job))
			}
			if err != nil && ctx.Err() == nil {
				zerolog.Ctx(ctx).Error().Err(err).Str("job", string(last.Job)).Msg("end of an attempt not handled")
			}
		}
	}
}

// listenRevokes begins with the revokes that are remembered: those that came
// while no dispatcher ran.
func (d *dispatcher) listenRevokes(ctx context.Context) error {
	return d.bus.FollowRevokes(ctx, func(revoke *contracts.Revoke) {
		if err := cancel.Waiting(ctx, d.bus, revoke); err != nil && ctx.Err() == nil {
			zerolog.Ctx(ctx).Error().Err(err).Str("job", string(revoke.Job)).Msg("revoke not applied")
		}
	})
}

// takeSubmissions begins when the lives are known that were there, and pauses
// while too many jobs wait.
func (d *dispatcher) takeSubmissions(ctx context.Context, in *intake.Intake) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-d.ready:
	}
	if d.cfg.OnReady != nil {
		d.cfg.OnReady()
	}
	return d.bus.Work(ctx, contracts.SubmitConsumer, intakeWorkers, func(ctx context.Context, msg *bus.Message) error {
		if err := d.awaitRoom(ctx); err != nil {
			return err
		}
		return in.Handle(ctx, msg)
	})
}

func (d *dispatcher) awaitRoom(ctx context.Context) error {
	for d.sweeper.Queued() >= d.cfg.MaxQueued {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}
