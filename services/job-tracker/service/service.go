// Package service is the job-tracker: what people see of a job.
//
// Several may run. One of them leads: it keeps the projection and the mirrors in
// Girder and answers the gate. All of them answer queries.
package service

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/config"
	"github.com/gantry-worker/gantry/services/internal/telemetry"
	"github.com/gantry-worker/gantry/services/job-tracker/internal/mirror"
	"github.com/gantry-worker/gantry/services/job-tracker/internal/projection"
	"github.com/gantry-worker/gantry/services/job-tracker/internal/query"
	"github.com/gantry-worker/gantry/services/job-tracker/internal/retention"
)

const name = "job-tracker"

// Config of a job-tracker.
type Config struct {
	telemetry.Settings
	NATS client.Config `embed:"" prefix:"nats-"`

	GirderAPIURL     string        `name:"girder-api-url" help:"Replaces the base of every Girder URL in a task, where workers reach Girder by another name than its users do." placeholder:"URL"`
	SessionFiles     []string      `help:"Folders with the PEM files that a task's girder.session may name. None by default." placeholder:"DIR"`
	GirderLogLimit   int64         `help:"How much log Girder gets of one job, in bytes: the first half and, at the end, the last half." default:"8388608"`
	GirderPatience   time.Duration `name:"mirror-patience" help:"How long a Girder that does not answer is asked again. Its tokens live seven days." default:"168h"`
	SecretsRetention time.Duration `help:"How long the secrets of a failed job are kept." default:"24h"`
	Retention        time.Duration `help:"How long a job is kept after its end, with its log; 0 keeps it for ever." default:"720h"`
	LeaseTTL         time.Duration `help:"How soon a standby takes over from a leader that is gone." default:"6s" name:"lease-ttl"`

	// SweepInterval is the time between two looks for secrets and jobs to delete.
	SweepInterval time.Duration `kong:"-"`
	// LogPatience is how long the end of a log is waited for that is not there when
	// its job has ended.
	LogPatience time.Duration `kong:"-"`
	// OnReady is called once, when queries are answered.
	OnReady func() `kong:"-"`
}

// minLogLimit leaves room for both halves and the line between them.
const minLogLimit = 64 << 10

// Validate checks the options.
func (c Config) Validate() error {
	switch {
	case c.GirderLogLimit < minLogLimit || c.GirderLogLimit > 12<<20:
		return config.Invalid("girder-log-limit", "must be between 65536 and 12582912 (Girder's database takes no more), is %d", c.GirderLogLimit)
	case c.LeaseTTL < time.Second:
		return config.Invalid("lease-ttl", "must be 1s or more, is %s", c.LeaseTTL)
	case c.GirderPatience <= 0:
		return config.Invalid("mirror-patience", "must be a positive time such as 168h, is %s", c.GirderPatience)
	case slices.ContainsFunc(c.SessionFiles, func(folder string) bool { return !filepath.IsAbs(folder) }):
		return config.Invalid("session-files", "must be absolute paths of folders, has %q", strings.Join(c.SessionFiles, ","))
	case c.Retention < 0:
		return config.Invalid("retention", "must be a time such as 720h, or 0 to keep jobs for ever, is %s", c.Retention)
	}
	return nil
}

// Run tracks jobs until the context ends.
func Run(ctx context.Context, cfg Config) error {
	keep := cfg.Retention // 0 has a meaning of its own
	if err := config.Defaults(&cfg); err != nil {
		return err
	}
	cfg.Retention = keep
	if err := cfg.Validate(); err != nil {
		return err
	}
	id := contracts.NewToken()[:8]
	ctx = zerolog.Ctx(ctx).With().Str("instance", id).Logger().WithContext(ctx)
	b, err := bus.Open(ctx, cfg.NATS, name, id)
	if err != nil {
		return err
	}
	defer b.Close()
	health := telemetry.NewHealth()
	health.Register("nats", b.Ready)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return health.Serve(ctx, cfg.HealthAddress) })
	group.Go(func() error {
		if err := b.AwaitTopology(ctx); err != nil {
			return err
		}
		return track(ctx, b, id, cfg)
	})
	err = group.Wait()
	if bus.IsStopped(ctx, err) {
		return nil
	}
	return err
}

// sweepInterval and logPatience are the usual values of the fields of [Config].
const (
	sweepInterval = time.Minute
	logPatience   = 10 * time.Second
)

func track(ctx context.Context, b *bus.Bus, id string, cfg Config) error {
	started := time.Now().UTC()
	cfg.SweepInterval = cmp.Or(cfg.SweepInterval, sweepInterval)
	mirrors := mirror.NewManager(b, mirror.Config{
		GirderAPIURL: cfg.GirderAPIURL, SessionFiles: cfg.SessionFiles, LogLimit: cfg.GirderLogLimit, SecretsRetention: cfg.SecretsRetention,
		Patience: cfg.GirderPatience, LogPatience: cmp.Or(cfg.LogPatience, logPatience), Sweep: cfg.SweepInterval,
	})
	index := query.NewIndex(b)
	sweeper := &retention.Sweeper{Bus: b, Index: index, Keep: cfg.Retention, Every: cfg.SweepInterval}
	ready := make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return index.Run(ctx, func() { close(ready) }) })
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ready:
		}
		return b.Serve(ctx, "Jobs and running services.", index.Endpoints()...)
	})
	group.Go(func() error { return sweeper.Follow(ctx) })
	group.Go(func() error { return tellReady(ctx, b, cfg.OnReady) })
	group.Go(func() error {
		return b.Announce(ctx, func() contracts.Instance {
			return contracts.Instance{Service: name, ID: id, Version: config.Version(), Started: started}
		})
	})
	group.Go(func() error {
		return b.Lead(ctx, name, id, cfg.LeaseTTL, func(ctx context.Context) error { return lead(ctx, b, mirrors, sweeper) })
	})
	return group.Wait()
}

// readyPause is the pause between two tries of an own query.
const readyPause = 20 * time.Millisecond

// tellReady calls onReady when queries are answered.
func tellReady(ctx context.Context, b *bus.Bus, onReady func()) error {
	if onReady == nil {
		return nil
	}
	for {
		if _, err := b.Jobs(ctx, contracts.JobFilter{Limit: 1}); err == nil {
			onReady()
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(readyPause):
		}
	}
}

// lead does what one job-tracker does for all.
func lead(ctx context.Context, b *bus.Bus, mirrors *mirror.Manager, sweeper *retention.Sweeper) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return projection.Run(ctx, b) })
	group.Go(func() error { return mirrors.Run(ctx) })
	group.Go(func() error { return sweeper.Remove(ctx) })
	group.Go(func() error {
		return b.Serve(ctx, "The gate before an attempt.", bus.NewEndpoint(contracts.JobsGateSubject, mirrors.Gate))
	})
	return group.Wait()
}
