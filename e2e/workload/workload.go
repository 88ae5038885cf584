// Package workload makes mixed tasks of which is known what they write, upload
// and end as, and checks that all of it happened, once.
//
//	w := workload.New(g, seed, 60)
//	w.Submit(30 * time.Second) // while the test breaks things
//	w.Check(workload.Expect{TriedOnce: true})
//
// The tasks differ in what may go wrong: short ones, some with a progress pipe,
// with inputs and uploads, with megabytes of log on both streams that are not
// all UTF-8, failing ones, ones that are canceled while they run, and long ones.
package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// Workload is a number of tasks that are submitted to one Gantry.
type Workload struct {
	g      *setup.Gantry
	random *rand.Rand
	starts []*setup.Starts
	jobs   []*job
}

// job is one task and what is to become of it.
type job struct {
	sort string
	task *contracts.Task
	// stdout and stderr are what the container writes.
	stdout, stderr []byte
	// uploads are the contents of the file in each item.
	uploads map[string][]byte
	// progress is the last value that the task reports, 0 for none.
	progress float64
	end      contracts.EntryType
	statuses []string // in Girder
	// cancel cancels the job, when its log says that it is ready; or nil.
	cancel func(ctx context.Context) error
}

// sorts of tasks, with how many of sixty are of that sort.
var sorts = []struct {
	name  string
	share int
	make  func(w *Workload, j *job)
}{
	{"short", 18, (*Workload).short},
	{"progress", 8, (*Workload).progress},
	{"files", 10, (*Workload).files},
	{"loud", 4, (*Workload).loud},
	{"failing", 6, (*Workload).failing},
	{"canceled", 6, (*Workload).canceled},
	{"long", 8, (*Workload).long},
}

// New makes n tasks, in an order that the seed decides.
func New(g *setup.Gantry, seed uint64, n int) *Workload {
	w := &Workload{g: g, random: rand.New(rand.NewPCG(seed, seed))}
	label := g.Label()
	seen := map[*setup.Engine]bool{}
	for _, node := range g.Nodes {
		if !seen[node.Engine] {
			seen[node.Engine] = true
			w.starts = append(w.starts, node.Engine.WatchStarts(label))
		}
	}
	var order []int
	for len(order) < n {
		for i, sort := range sorts {
			for range sort.share {
				order = append(order, i)
			}
		}
	}
	// Every sort is there also if there are few tasks.
	w.random.Shuffle(len(order), func(i, k int) { order[i], order[k] = order[k], order[i] })
	for i, sort := range append(w.random.Perm(len(sorts)), order...)[:n] {
		w.add(i, sorts[sort].name, sorts[sort].make)
	}
	return w
}

func (w *Workload) add(i int, sort string, make func(*Workload, *job)) {
	j := &job{sort: sort, end: contracts.EntrySucceeded, statuses: []string{"RUNNING", "SUCCESS"}, uploads: map[string][]byte{}}
	make(w, j)
	j.task.ID = contracts.JobID(fmt.Sprintf("%s-%d-%s", sort, i, contracts.NewToken()[:6]))
	j.task.Girder = w.g.Girder.Of(string(j.task.ID))
	w.jobs = append(w.jobs, j)
}

// IDs are the jobs of all tasks.
func (w *Workload) IDs() []contracts.JobID {
	ids := make([]contracts.JobID, len(w.jobs))
	for i, j := range w.jobs {
		ids[i] = j.task.ID
	}
	return ids
}

// Claims says how many attempts each node has claimed.
func (w *Workload) Claims() map[contracts.NodeID]int {
	w.g.T.Helper()
	claims := map[contracts.NodeID]int{}
	for _, job := range w.IDs() {
		life, err := w.g.Life(w.g.Context(), job)
		if err != nil {
			w.g.T.Fatal(err)
		}
		for _, entry := range life {
			if claimed, ok := entry.Data.(*contracts.Claimed); ok {
				claims[claimed.Node]++
			}
		}
	}
	return claims
}

// Submit submits all tasks, spread over a time, and cancels those that are to be
// canceled. It returns when nothing is left to do but to wait for the ends.
func (w *Workload) Submit(over time.Duration) {
	var submitting sync.WaitGroup
	defer submitting.Wait()
	for i, j := range w.jobs {
		at := over * time.Duration(i) / time.Duration(len(w.jobs))
		submitting.Go(func() {
			ctx := w.g.Context()
			select {
			case <-time.After(at):
			case <-ctx.Done():
			}
			if err := w.submit(ctx, j); err != nil {
				w.g.T.Errorf("%s: %v", j.task.ID, err)
			}
		})
	}
}

func (w *Workload) submit(ctx context.Context, j *job) error {
	// An answer that got lost is no reason to wait: the same id runs once.
	err := persist(ctx, func(ctx context.Context) error {
		_, err := w.g.Submit(ctx, j.task)
		return err
	})
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	if j.cancel == nil {
		return nil
	}
	if err := w.awaitReady(ctx, j); err != nil {
		return fmt.Errorf("await its log: %w", err)
	}
	if err := persist(ctx, j.cancel); err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	return nil
}

// awaitReady waits until a job has written something.
func (w *Workload) awaitReady(ctx context.Context, j *job) error {
	for _, err := range w.g.Messages(ctx, contracts.StreamLive, 1, contracts.LogFilter(j.task.ID)) {
		return err
	}
	return context.Cause(ctx)
}

// tryTime bounds one try of what is tried again until it works.
const tryTime = 3 * time.Second

// persist tries again and again, as a client does whose server comes and goes.
func persist(ctx context.Context, try func(context.Context) error) error {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		trying, cancel := context.WithTimeout(ctx, tryTime)
		err := try(trying)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

// girderJob waits until a job has a Girder job and returns its id there.
func (w *Workload) girderJob(ctx context.Context, j *job) (string, error) {
	for msg, err := range w.g.Messages(ctx, contracts.StreamJobs, 1, contracts.GirderSubject(j.task.ID)) {
		if err != nil {
			return "", err
		}
		var ref contracts.GirderJobRef
		if err := json.Unmarshal(msg.Data(), &ref); err != nil {
			return "", err
		}
		if ref.ID != "" {
			return ref.ID, nil
		}
	}
	return "", context.Cause(ctx)
}
