package service

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/config"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/internal/node"
	"github.com/gantry-worker/gantry/services/internal/telemetry"
	"github.com/gantry-worker/gantry/services/transfer/internal/cache"
	"github.com/gantry-worker/gantry/services/transfer/internal/journal"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

const (
	serviceName = "transfer"
	// inHand is how many steps may be known at a time, those that wait for
	// others included.
	inHand = 1000
)

// rhythm is how often the service looks at what nobody tells it.
type rhythm struct {
	life  time.Duration // is an attempt still the current one?
	holds time.Duration // are the folders of held pipes there?
	sweep time.Duration // which steps on disk does nobody work on?
	// place is from which wait on a step gives its place up for it.
	place time.Duration
	// fresh is for how long an attempt that was the current one is taken for it
	// before something that cannot be taken back.
	fresh time.Duration
}

var usualRhythm = rhythm{life: 10 * time.Second, holds: 2 * time.Second, sweep: 5 * time.Second, place: 2 * time.Second, fresh: time.Second}

// transfer is the service while it runs.
type transfer struct {
	cfg      Config
	sizes    sizes
	rhythm   rhythm
	bus      *bus.Bus
	node     contracts.NodeID
	ours     string   // the installation that NATS is of
	strange  sync.Map // folders of another one that were told of
	clients  *girder.Clients
	traffic  *girder.Traffic
	journal  *journal.Journal
	fetches  *stage.Fetches
	cache    *cache.Cache
	running  *running
	places   *places
	holds    *holds
	movers   *movers
	unstored *unstored
	notes    *notes
	health   *telemetry.Health
	started  time.Time
}

// Run serves the steps of this node until the context ends, and returns when
// every step has stopped.
func Run(ctx context.Context, cfg Config) error { return run(ctx, cfg, usualRhythm) }

func run(ctx context.Context, cfg Config, rhythm rhythm) error {
	id, err := node.Open(cfg.WorkRoot)
	if err != nil {
		return err
	}
	if cfg.WorkRoot, err = filepath.EvalSymlinks(cfg.WorkRoot); err != nil { // later no link is followed
		return fmt.Errorf("work folder: %w", err)
	}
	sizes, err := cfg.sizes()
	if err != nil {
		return err
	}
	clients := girder.NewClients(girder.ClientLimits{SessionFiles: cfg.SessionFiles})
	defer clients.Close()
	log := zerolog.Ctx(ctx).With().Str("node", string(id)).Logger()
	ctx = log.WithContext(ctx)
	t := &transfer{
		cfg: cfg, sizes: sizes, rhythm: rhythm, node: id, clients: clients,
		fetches: stage.NewFetches(), running: newRunning(), places: newPlaces(cfg.Concurrency, rhythm.place),
		traffic:  girder.NewTraffic(girder.TrafficLimits{PerHost: cfg.GirderConnections, BytesPerSecond: sizes.rate}),
		unstored: newUnstored(), movers: newMovers(), health: telemetry.NewHealth(), started: time.Now().UTC(),
	}
	t.health.Register("nats", func(context.Context) error { return errors.New("not connected yet") })
	t.health.Register("journal", func(context.Context) error { return errors.New("another transfer works in the work folder") })
	group, inside := errgroup.WithContext(ctx)
	group.Go(func() error { return t.health.Serve(inside, cfg.HealthAddress) })
	group.Go(func() error { return t.begin(inside) })
	if err := group.Wait(); !bus.IsStopped(ctx, err) {
		return fmt.Errorf("transfer of %s: %w", id, err)
	}
	return nil
}

// begin takes the journal, holds again what is to be held, and serves as soon
// as NATS is there.
func (t *transfer) begin(ctx context.Context) (err error) {
	t.journal, err = journal.Open(ctx, t.cfg.WorkRoot, func() {
		zerolog.Ctx(ctx).Warn().Str("work_root", t.cfg.WorkRoot).Msg("another transfer works in the work folder, waiting for its end")
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.journal.Close()) }()
	t.health.Register("journal", func(context.Context) error { return nil })

	t.holds = newHolds(t.cfg.WorkRoot, t.journal, func(step *contracts.Step) { t.running.drop(keyOf(step), errNotCurrent) })
	defer t.holds.close()
	if err := t.holds.again(ctx); err != nil {
		return err
	}
	if t.cache, err = cache.Open(filepath.Join(t.cfg.WorkRoot, "transfer", "cache"), t.sizes.cache, *zerolog.Ctx(ctx)); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("no file is kept for further tasks")
	}
	defer func() { err = errors.Join(err, t.cache.Close()) }()
	if t.bus, err = bus.Open(ctx, t.cfg.NATS, serviceName, string(t.node)); err != nil {
		return err
	}
	defer t.bus.Close()
	t.notes = newNotes(t.bus)
	t.health.Register("nats", t.bus.Ready)
	return t.serve(ctx)
}

// serve runs the parts of the service; the first that ends stops the others.
func (t *transfer) serve(ctx context.Context) error {
	if err := t.bus.AwaitTopology(ctx); err != nil {
		return err
	}
	if err := t.own(ctx); err != nil {
		return err
	}
	consumer := contracts.TransferConsumer(t.node)
	if err := t.bus.DeclareConsumer(ctx, consumer); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	listening := make(chan struct{})
	group.Go(func() error {
		return t.bus.ListenRevokes(ctx, func() { close(listening) }, t.revoked)
	})
	group.Go(func() error {
		// A step that began earlier could miss the revoke of its job.
		select {
		case <-listening:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		zerolog.Ctx(ctx).Info().Msg("serving steps")
		if t.cfg.OnReady != nil {
			t.cfg.OnReady()
		}
		group.Go(func() error { return t.sweep(ctx) })
		return t.bus.WorkAll(ctx, consumer, inHand, func(ctx context.Context, msg *bus.Message) error {
			return t.handle(ctx, msg.Subject, msg.Data)
		})
	})
	group.Go(func() error { return t.watchHolds(ctx) })
	group.Go(func() error { return t.bus.Announce(ctx, t.describe) })
	return group.Wait()
}

func (t *transfer) describe() contracts.Instance {
	return contracts.Instance{
		Service: serviceName, ID: string(t.node), Node: t.node, Version: config.Version(), Started: t.started,
		Slots: manyWays * t.cfg.Concurrency, Running: t.places.atWork(),
	}
}

func (t *transfer) revoked(r *contracts.Revoke) { t.running.abort(r.Job, revokedBy(r)) }
