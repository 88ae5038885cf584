package bus_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// TestReadersOfALossGoOn: the server loses more than comes after that, and uses
// the sequences again. Who stays connected reads on with what is new, and reads
// nothing twice; but lives are read anew, as some are not what they were.
func TestReadersOfALossGoOn(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	b := open(t, server, "a")
	store := func(jobs ...contracts.JobID) {
		t.Helper()
		for _, job := range jobs {
			submit(t, b, job)
			if err := b.Revoke(t.Context(), contracts.Revoke{Job: job}); err != nil {
				t.Fatal(err)
			}
			change := func(projection *contracts.Job) bool {
				projection.LifeSeq++
				return true
			}
			if _, err := b.UpdateProjection(t.Context(), job, change); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	start := func(read func(heard func(contracts.JobID))) <-chan contracts.JobID {
		jobs := make(chan contracts.JobID, 100)
		readers.Go(func() { read(func(job contracts.JobID) { jobs <- job }) })
		return jobs
	}
	listen := func() <-chan contracts.JobID {
		ready := make(chan struct{})
		defer func() { <-ready }()
		return start(func(heard func(contracts.JobID)) {
			_ = b.ListenRevokes(ctx, func() { close(ready) }, func(r *contracts.Revoke) { heard(r.Job) })
		})
	}

	store("kept")
	setBack := server.Keep()
	all := map[string]<-chan contracts.JobID{
		"lives": start(func(heard func(contracts.JobID)) {
			_ = b.WatchLives(ctx, func() { heard("begin") }, func() {}, func(s *bus.Seen) { heard(s.Job) })
		}),
		"revokes": start(func(heard func(contracts.JobID)) {
			_ = b.FollowRevokes(ctx, func(r *contracts.Revoke) { heard(r.Job) })
		}),
		"projections": start(func(heard func(contracts.JobID)) {
			for job, err := range b.Projections(ctx) {
				if err == nil && job != nil {
					heard(job.ID)
				}
			}
		}),
	}
	expect := func(what string, jobs <-chan contracts.JobID, want ...contracts.JobID) {
		t.Helper()
		var got []contracts.JobID
		for range want {
			got = append(got, <-jobs)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: read %v, want %v", what, got, want)
		}
	}
	store("lost1", "lost2", "lost3")
	expect("lives", all["lives"], "begin")
	for what, jobs := range all {
		expect(what, jobs, "kept", "lost1", "lost2", "lost3")
	}
	all["revokes from now on"] = listen()

	setBack()
	store("new1", "new2")
	expect("lives", all["lives"], "begin", "kept", "new1", "new2")
	delete(all, "lives")
	for what, jobs := range all {
		expect(what, jobs, "new1", "new2")
	}
}
