package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/gantry/internal/show"
)

// Jobs is `gantry jobs`.
type Jobs struct {
	Ls     JobsLs     `cmd:"" default:"withargs" help:"List jobs, the newest first."`
	Show   JobsShow   `cmd:"" help:"Show everything about a job."`
	Cancel JobsCancel `cmd:"" help:"Cancel jobs, waiting or running."`
}

// JobsLs is `gantry jobs ls`.
type JobsLs struct {
	Status []string `help:"Only jobs in these statuses: submitted, queued, claimed, running, pushing, canceling, retrying, succeeded, failed, canceled." placeholder:"STATUS"`
	Queue  string   `help:"Only jobs of this queue."`
	Label  string   `help:"Only jobs with this label." placeholder:"NAME[=VALUE]"`
	Since  string   `help:"Only jobs submitted since: 90m, 24h, 7d, 2026-03-04 or 2026-03-04T12:00:00Z." placeholder:"WHEN"`
	Limit  int      `help:"At most so many." default:"50"`
	JSON   bool     `name:"json" help:"Print JSON."`
}

// Run lists jobs.
func (l *JobsLs) Run(ctx context.Context, env *Env) error {
	filter, err := l.filter(now())
	if err != nil {
		return &Exit{Code: ExitUsage, Err: err}
	}
	return env.query(ctx, func(ctx context.Context, c *client.Client) error {
		list, err := c.Jobs(ctx, filter)
		if err != nil {
			return err
		}
		if l.JSON {
			return env.printJSON(list)
		}
		return env.print(show.Jobs(list, now(), env.OutStyle()))
	})
}

func (l *JobsLs) filter(now time.Time) (contracts.JobFilter, error) {
	filter := contracts.JobFilter{Queue: contracts.Queue(l.Queue), Label: l.Label, Limit: l.Limit}
	if l.Limit < 1 {
		return filter, fmt.Errorf("--limit: %d is not 1 or more", l.Limit)
	}
	for _, name := range l.Status {
		status := contracts.Status(strings.ToLower(name))
		if !slices.Contains(contracts.Statuses, status) {
			return filter, fmt.Errorf("--status: %q is not one of %s", name, statusNames())
		}
		filter.Statuses = append(filter.Statuses, status)
	}
	var err error
	filter.Since, err = parseSince(l.Since, now)
	return filter, err
}

func statusNames() string {
	names := make([]string, len(contracts.Statuses))
	for i, status := range contracts.Statuses {
		names[i] = string(status)
	}
	return strings.Join(names, ", ")
}

// parseSince reads a length of time before now, a day, or a time.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if d, err := time.ParseDuration(days + "h"); err == nil && d >= 0 {
			return now.Add(-24 * d).UTC(), nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return time.Time{}, fmt.Errorf("--since: %q is not a time such as 90m, 7d, 2026-03-04 or 2026-03-04T12:00:00Z", text)
	}
	return now.Add(-d).UTC(), nil
}

// JobsShow is `gantry jobs show`.
type JobsShow struct {
	ID   string `arg:"" name:"id" help:"The job's id."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Run shows a job.
func (s *JobsShow) Run(ctx context.Context, env *Env) error {
	id, err := jobID(s.ID)
	if err != nil {
		return err
	}
	return env.query(ctx, func(ctx context.Context, c *client.Client) error {
		job, err := c.Job(ctx, id)
		if err != nil {
			return noJob(err, id)
		}
		if s.JSON {
			return env.printJSON(job)
		}
		return env.print(show.Job(job, isAway(ctx, c, job), now(), env.OutStyle()))
	})
}

// isAway reports whether the executor of a job under way is not listed. Where the
// list cannot be had, nothing is known.
func isAway(ctx context.Context, c *client.Client, job *contracts.Job) bool {
	if job.Status.Terminal() || job.Executor == "" || job.Status == contracts.StatusRetrying {
		return false
	}
	workers, err := c.Workers(ctx)
	return err == nil && !slices.ContainsFunc(workers, func(w contracts.Instance) bool { return w.ID == string(job.Executor) })
}

// JobsCancel is `gantry jobs cancel`.
type JobsCancel struct {
	ID     []string       `arg:"" name:"id" help:"Ids of jobs."`
	Reason string         `help:"Why, for people."`
	Signal string         `help:"The stop signal (default: SIGTERM)." placeholder:"NAME"`
	Grace  *time.Duration `help:"Time from the signal to SIGKILL (default: 10s)." placeholder:"DURATION"`
	Wait   bool           `help:"Wait until the jobs have ended."`
}

// Run cancels jobs.
func (j *JobsCancel) Run(ctx context.Context, env *Env) error {
	ids := make([]contracts.JobID, len(j.ID))
	for i, text := range j.ID {
		var err error
		if ids[i], err = jobID(text); err != nil {
			return err
		}
	}
	return env.query(ctx, func(ctx context.Context, c *client.Client) error {
		var errs []error
		for _, id := range ids {
			errs = append(errs, j.revoke(ctx, env, c, id))
		}
		if err := errors.Join(errs...); err != nil || !j.Wait {
			return err
		}
		for _, id := range ids {
			end, err := c.Wait(ctx, id)
			if err != nil {
				return err
			}
			if err := env.print(show.End(id, end) + "\n"); err != nil {
				return err
			}
		}
		return nil
	})
}

func (j *JobsCancel) revoke(ctx context.Context, env *Env, c *client.Client, id contracts.JobID) error {
	life, err := c.Life(ctx, id)
	if err != nil && !errors.Is(err, client.ErrNoJob) {
		return err
	}
	if len(life) > 0 && life[len(life)-1].Terminal() {
		return env.print(show.End(id, life[len(life)-1]) + " before\n")
	}
	order := contracts.Revoke{Job: id, Signal: j.Signal, By: whoami(), Reason: j.Reason}
	if j.Grace != nil {
		grace := contracts.Duration(*j.Grace)
		order.Grace = &grace
	}
	if err := c.Revoke(ctx, order); err != nil {
		return err
	}
	switch {
	case len(life) == 0:
		return env.print(fmt.Sprintf("no job has the id %s now; if it comes within 7 days it is canceled before it runs\n", id))
	case j.Wait:
		return nil
	default:
		return env.print(fmt.Sprintf("job %s is being canceled\n", id))
	}
}

// query runs a short exchange with the server, which a signal ends.
func (e *Env) query(ctx context.Context, do func(context.Context, *client.Client) error) error {
	ctx, stop := e.UntilSignal(ctx)
	defer stop()
	c, err := e.Connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(ctx, c)
}

func jobID(text string) (contracts.JobID, error) {
	id, err := contracts.ParseJobID(text)
	if err != nil {
		return "", &Exit{Code: ExitUsage, Err: err}
	}
	return id, nil
}

// noJob says what to do about a job that is not known.
func noJob(err error, id contracts.JobID) error {
	var refused *contracts.RequestError
	if errors.Is(err, client.ErrNoJob) || errors.As(err, &refused) && refused.Code == contracts.CodeNotFound {
		return fmt.Errorf("no job has the id %s: 'gantry jobs ls' lists them, 'gantry dead ls' what was refused", id)
	}
	return err
}
