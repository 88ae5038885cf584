package bus_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

const (
	// longLease does not end while a machine stands still: who has it is the only
	// one until it is given back.
	longLease = 10 * time.Minute
	// shortLease is for tests of its end. A process that stands still may have two
	// leaders then, for as long as the first one is not told.
	shortLease = time.Second
)

// candidate stands for the lease until its context ends.
type candidate struct {
	leads chan struct{} // a value each time it begins
	ended chan error    // why it ended, each time
}

func stand(ctx context.Context, b *bus.Bus, id string, ttl time.Duration, leading *atomic.Int32, all *sync.WaitGroup) *candidate {
	c := &candidate{leads: make(chan struct{}, 10), ended: make(chan error, 10)}
	all.Go(func() {
		_ = b.Lead(ctx, "test", id, ttl, func(ctx context.Context) error {
			if leading.Add(1) > 1 && ttl == longLease {
				panic("two leaders")
			}
			tell(c.leads, struct{}{})
			<-ctx.Done()
			leading.Add(-1)
			tell(c.ended, context.Cause(ctx))
			return nil
		})
	})
	return c
}

// tell drops what nobody reads: a short lease may be lost often.
func tell[T any](to chan<- T, value T) {
	select {
	case to <- value:
	default:
	}
}

func leadPassesOn(t *testing.T, server natstest.NATS) {
	var leading atomic.Int32
	var all sync.WaitGroup
	defer all.Wait()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()

	firstCtx, stopFirst := context.WithCancel(ctx)
	defer stopFirst()
	first := stand(firstCtx, open(t, server, "a"), "a", longLease, &leading, &all)
	<-first.leads
	b := open(t, server, "b")
	second := stand(ctx, b, "b", longLease, &leading, &all)
	if instances, err := b.Instances(ctx); err != nil || len(instances) != 0 {
		t.Errorf("a lease is listed as an instance: %v, %v", instances, err)
	}
	stopFirst() // it gives the lease back
	<-second.leads
	if err := <-first.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("first ended with %v", err)
	}
}

func TestLeadWithoutConnectionIsDeposed(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	var leading atomic.Int32
	var all sync.WaitGroup
	defer all.Wait()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()

	cut := open(t, server, "a")
	firstCtx, stopFirst := context.WithCancel(ctx)
	defer stopFirst()
	first := stand(firstCtx, cut, "a", shortLease, &leading, &all)
	<-first.leads
	second := stand(ctx, open(t, server, "b"), "b", shortLease, &leading, &all)
	cut.Close() // the lease is not given back, and expires
	if err := <-first.ended; !errors.Is(err, bus.ErrDeposed) {
		t.Errorf("first ended with %v", err)
	}
	<-second.leads
}

// TestALeaseOutlivesALostAnswer: one renewal is not answered, or does not arrive.
// It is made again, also on top of itself; another one's lease ends it.
func TestALeaseOutlivesALostAnswer(t *testing.T) {
	t.Parallel()
	for name, verdict := range map[string]bustest.Verdict{"before": bustest.Cut, "after": bustest.LoseAnswer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			natstest.Each(t, func(t *testing.T, server natstest.NATS) {
				const key = "$KV.nodes.leader.test"
				b := open(t, server, "a")
				lease := b.Lease("test", "b", longLease)
				until(t, "a lease", func() bool { return lease.Acquire(t.Context()) })
				through, broken := through(t, server, key, verdict)
				lease.Over(through)
				for range 3 {
					if !lease.Renew(t.Context()) {
						t.Fatal("deposed")
					}
				}
				if !broken() {
					t.Error("no renewal was lost")
				}
				bustest.Publish(t, b.Client, key, "", []byte("another"))
				if lease.Renew(t.Context()) {
					t.Error("renewed in place of another one's")
				}
			})
		})
	}
}

func projectionIsChangedByOneAtATime(t *testing.T, server natstest.NATS) {
	var all sync.WaitGroup
	for range 4 {
		b := open(t, server, "a")
		all.Go(func() {
			for range 25 {
				if _, err := b.UpdateProjection(t.Context(), "job", func(job *contracts.Job) bool {
					job.Attempt++
					return true
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	b := open(t, server, "b")
	if job, err := b.Projection(t.Context(), "job"); err != nil || job.Attempt != 100 {
		t.Errorf("%+v, %v", job, err)
	}
	if _, err := b.Projection(t.Context(), "nobody"); !errors.Is(err, bus.ErrNoProjection) {
		t.Errorf("unknown job: %v", err)
	}
	var ids []contracts.JobID
	for job, err := range b.Projections(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if job == nil {
			break
		}
		ids = append(ids, job.ID)
	}
	if len(ids) != 1 || ids[0] != "job" {
		t.Errorf("all: %v", ids)
	}
}

func girderJobIsTakenOnce(t *testing.T, server natstest.NATS) {
	b := open(t, server, "a")
	if ref, seq, err := b.GirderJob(t.Context(), "job"); ref != nil || seq != 0 || err != nil {
		t.Errorf("nothing said yet: %v, %d, %v", ref, seq, err)
	}
	seq, err := b.PutGirderJob(t.Context(), "job", 0, contracts.GirderJobRef{Creating: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.PutGirderJob(t.Context(), "job", 0, contracts.GirderJobRef{Creating: true}); !errors.Is(err, bus.ErrOvertaken) {
		t.Errorf("a second creation: %v", err)
	}
	for range 50 { // one word right after the other
		if seq, err = b.PutGirderJob(t.Context(), "job", seq, contracts.GirderJobRef{Creating: true}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.PutGirderJob(t.Context(), "job", seq, contracts.GirderJobRef{ID: "x"}); err != nil {
		t.Error(err)
	}
	if ref, _, err := b.GirderJob(t.Context(), "job"); err != nil || ref.ID != "x" || ref.Creating {
		t.Errorf("%+v, %v", ref, err)
	}
}

func TestAnUnreadableInstanceHidesNoOther(t *testing.T) {
	t.Parallel()
	b := open(t, natstest.Start(t), "a")
	kv, err := b.JetStream().KeyValue(t.Context(), contracts.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	for id, value := range map[string]string{"a": "no JSON", "b": `{"service":"test","id":"b"}`} {
		if _, err := kv.PutString(t.Context(), contracts.InstanceKey("test", id), value); err != nil {
			t.Fatal(err)
		}
	}
	instances, err := b.Instances(t.Context())
	if err != nil || len(instances) != 1 || instances[0].ID != "b" {
		t.Errorf("%v, %v", instances, err)
	}
}
