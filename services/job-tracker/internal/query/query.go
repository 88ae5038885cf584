// Package query answers what people and programs ask: about one job, about many
// jobs, about the running services. Lists come from an index in memory that
// follows the bucket of jobs, so that they stay fast with many jobs.
package query

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/job-tracker/internal/projection"
)

// defaultLimit and maxLimit are lengths of a page.
const (
	defaultLimit = 50
	maxLimit     = 1000
)

// Index knows all jobs.
type Index struct {
	bus *bus.Bus

	mu     sync.RWMutex
	newest []*contracts.Job // the newest first
	byID   map[contracts.JobID]*contracts.Job
}

// NewIndex returns an index that is empty until Run fills it.
func NewIndex(b *bus.Bus) *Index {
	return &Index{bus: b, byID: map[contracts.JobID]*contracts.Job{}}
}

// Run follows the bucket of jobs until the context ends. ready is called once,
// when the index has every job that was there.
func (x *Index) Run(ctx context.Context, ready func()) error {
	for job, err := range x.bus.Projections(ctx) {
		switch {
		case err != nil:
			return err
		case job == nil:
			ready()
		default:
			x.put(job)
		}
	}
	return context.Cause(ctx)
}

func (x *Index) put(job *contracts.Job) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if before, ok := x.byID[job.ID]; ok {
		x.remove(before)
	}
	x.byID[job.ID] = job
	at, _ := slices.BinarySearchFunc(x.newest, job, newestFirst)
	x.newest = slices.Insert(x.newest, at, job)
}

func (x *Index) remove(job *contracts.Job) {
	delete(x.byID, job.ID)
	if at, found := slices.BinarySearchFunc(x.newest, job, newestFirst); found {
		x.newest = slices.Delete(x.newest, at, at+1)
	}
}

// Select returns the jobs that match. They are not to be changed.
func (x *Index) Select(match func(*contracts.Job) bool) []*contracts.Job {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var selected []*contracts.Job
	for _, job := range x.newest {
		if match(job) {
			selected = append(selected, job)
		}
	}
	return selected
}

// Drop forgets a job that Select returned, unless it has changed since: a key
// that was purged from the bucket is no event that Run sees.
func (x *Index) Drop(job *contracts.Job) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byID[job.ID] == job {
		x.remove(job)
	}
}

func newestFirst(a, b *contracts.Job) int {
	return cmp.Or(b.SubmittedAt.Compare(a.SubmittedAt), cmp.Compare(b.ID, a.ID))
}

// Endpoints returns what every job-tracker answers.
func (x *Index) Endpoints() []bus.Endpoint {
	return []bus.Endpoint{
		bus.NewEndpoint(contracts.JobsGetSubject, x.job),
		bus.NewEndpoint(contracts.JobsListSubject, x.list),
		bus.NewEndpoint(contracts.JobsLogSubject, x.log),
		bus.NewEndpoint(contracts.WorkersListSubject, x.workers),
	}
}

type jobRequest struct {
	Job contracts.JobID `json:"job"`
}

// job brings what the bucket says up to date with the job's life before it
// reads it, so that an answer is never older than what its asker knows.
func (x *Index) job(ctx context.Context, request jobRequest) (*contracts.Job, error) {
	if _, err := contracts.ParseJobID(string(request.Job)); err != nil {
		return nil, invalid("job", err.Error())
	}
	if err := projection.CatchUp(ctx, x.bus, request.Job); err != nil {
		return nil, err
	}
	job, err := x.bus.Projection(ctx, request.Job)
	if errors.Is(err, bus.ErrNoProjection) {
		return nil, &contracts.RequestError{Code: contracts.CodeNotFound, Message: "there is no job " + string(request.Job), Field: "job"}
	}
	return job, err
}

func (x *Index) list(_ context.Context, filter contracts.JobFilter) (*contracts.JobList, error) {
	for _, status := range filter.Statuses {
		if !slices.Contains(contracts.Statuses, status) {
			return nil, invalid("statuses", string(status)+" is no status")
		}
	}
	if filter.Limit < 0 || filter.Limit > maxLimit {
		return nil, invalid("limit", "the limit is 1 to 1000")
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	before, known := x.byID[filter.Before]
	if filter.Before != "" && !known {
		return nil, invalid("before", "there is no job "+string(filter.Before))
	}
	list := &contracts.JobList{Jobs: []contracts.Job{}}
	limit := cmp.Or(filter.Limit, defaultLimit)
	for _, job := range x.newest {
		if !matches(job, &filter) {
			continue
		}
		list.Total++
		if len(list.Jobs) < limit && (before == nil || newestFirst(before, job) < 0) {
			list.Jobs = append(list.Jobs, *job)
		}
	}
	return list, nil
}

func matches(job *contracts.Job, filter *contracts.JobFilter) bool {
	return (len(filter.Statuses) == 0 || slices.Contains(filter.Statuses, job.Status)) &&
		(filter.Queue == "" || filter.Queue == job.Queue) &&
		!job.SubmittedAt.Before(filter.Since) &&
		hasLabel(job, filter.Label)
}

func hasLabel(job *contracts.Job, label string) bool {
	name, value, exact := strings.Cut(label, "=")
	if name == "" {
		return true
	}
	has, ok := job.Labels[name]
	return ok && (!exact || has == value)
}

func (x *Index) workers(ctx context.Context, _ struct{}) ([]contracts.Instance, error) {
	instances, err := x.bus.Instances(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(instances, func(a, b contracts.Instance) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.ID, b.ID))
	})
	return instances, nil
}

func invalid(field, message string) error {
	return &contracts.RequestError{Code: contracts.CodeInvalid, Message: message, Field: field}
}
