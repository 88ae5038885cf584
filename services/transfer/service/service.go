package service

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/config"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/internal/node"
	"github.com/gantry-worker/gantry/services/internal/telemetry"
)

const serviceName = "transfer"

// lifeCheck is how often a running step makes sure that its attempt is still the current one.
const lifeCheck = 30 * time.Second

// transfer is the service while it runs.
type transfer struct {
	cfg       Config
	bus       *bus.Bus
	node      contracts.NodeID
	http      *http.Client
	running   *running
	unstored  *unstored
	notes     *notes
	lifeCheck time.Duration
	started   time.Time
}

// Run serves the steps of this node until the context ends, and returns when
// every step has stopped.
func Run(ctx context.Context, cfg Config) error {
	return run(ctx, cfg, lifeCheck)
}

func run(ctx context.Context, cfg Config, lifeCheck time.Duration) error {
	id, err := node.Open(cfg.WorkRoot)
	if err != nil {
		return err
	}
	shared, err := girder.NewHTTPClient(girder.Verify{})
	if err != nil {
		return err
	}
	defer shared.CloseIdleConnections()
	log := zerolog.Ctx(ctx).With().Str("node", string(id)).Logger()
	ctx = log.WithContext(ctx)
	b, err := bus.Open(ctx, cfg.NATS, serviceName, string(id))
	if err != nil {
		return err
	}
	defer b.Close()
	t := &transfer{
		cfg: cfg, bus: b, node: id, http: shared, running: newRunning(), unstored: newUnstored(), notes: newNotes(b),
		lifeCheck: lifeCheck, started: time.Now().UTC(),
	}
	if err := t.serve(ctx); !bus.IsStopped(ctx, err) {
		return fmt.Errorf("transfer of %s: %w", id, err)
	}
	return nil
}

// serve runs the parts of the service; the first that ends stops the others.
func (t *transfer) serve(ctx context.Context) error {
	if err := t.bus.AwaitTopology(ctx); err != nil {
		return err
	}
	consumer := contracts.TransferConsumer(t.node)
	if err := t.bus.DeclareConsumer(ctx, consumer); err != nil {
		return err
	}
	health := telemetry.NewHealth()
	health.Register("nats", func(context.Context) error { return t.bus.Connected() })

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
		return t.bus.Work(ctx, consumer, t.cfg.Concurrency, func(ctx context.Context, msg *bus.Message) error {
			return t.handle(ctx, msg.Subject, msg.Data)
		})
	})
	group.Go(func() error { return t.bus.Announce(ctx, t.describe) })
	group.Go(func() error { return health.Serve(ctx, t.cfg.HealthAddress) })
	return group.Wait()
}

func (t *transfer) describe() contracts.Instance {
	return contracts.Instance{
		Service: serviceName, ID: string(t.node), Node: t.node, Version: config.Version(), Started: t.started,
		Slots: t.cfg.Concurrency, Running: t.running.count(),
	}
}

func (t *transfer) revoked(r *contracts.Revoke) { t.running.abort(r.Job, revokedBy(r)) }
