package bus_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

func open(t *testing.T, server natstest.NATS, instance string) *bus.Bus {
	t.Helper()
	b, err := bus.Open(t.Context(), server.Config(), "test", instance)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func submit(t *testing.T, b *bus.Bus, job contracts.JobID) *bus.Seen {
	t.Helper()
	task := &contracts.Task{Version: 1, Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "img"}}
	first, err := b.Append(t.Context(), job, nil, &contracts.Submitted{Task: task, Submission: 7})
	if err != nil {
		t.Fatal(err)
	}
	return first
}

func appendHasOneWinner(t *testing.T, server natstest.NATS) {
	first := submit(t, open(t, server, "a"), "contested")

	var won, lost atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		b := open(t, server, "b")
		all.Go(func() {
			_, err := b.Append(t.Context(), "contested", first, &contracts.Queued{Lane: contracts.LaneNormal})
			switch {
			case err == nil:
				won.Add(1)
			case errors.Is(err, bus.ErrOvertaken):
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || lost.Load() != 7 {
		t.Errorf("%d won and %d lost, want 1 and 7", won.Load(), lost.Load())
	}
}

func TestAppendTellsWhatCameFirst(t *testing.T) {
	t.Parallel()
	b := open(t, natstest.Start(t), "a")
	first := submit(t, b, "job")
	queued, err := b.Append(t.Context(), "job", first, &contracts.Queued{})
	if err != nil {
		t.Fatal(err)
	}
	present, err := b.Append(t.Context(), "job", first, &contracts.Canceled{})
	if !errors.Is(err, bus.ErrOvertaken) || present.Seq != queued.Seq || present.Type != contracts.EntryQueued {
		t.Errorf("got %v, %v", present, err)
	}
	if _, err := b.Append(t.Context(), "job", queued, &contracts.Succeeded{}); !errors.Is(err, contracts.ErrIllegalEntry) {
		t.Errorf("success of a queued job: %v", err)
	}
	if submitted, err := b.Submitted(t.Context(), "job"); err != nil || submitted.Submission != 7 {
		t.Errorf("submission %v, %v", submitted, err)
	}
}

func TestAppendGoesOnAfterAnOutage(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	b := open(t, server, "a")
	first := submit(t, b, "job")
	server.Stop()
	done := make(chan error, 1)
	go func() {
		_, err := b.Append(context.Background(), "job", first, &contracts.Queued{})
		done <- err
	}()
	server.Restart()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if last, err := b.Last(t.Context(), "job"); err != nil || last.Type != contracts.EntryQueued {
		t.Errorf("last entry %v, %v", last, err)
	}
}

func TestWorkRedeliversWhatFailed(t *testing.T) {
	t.Parallel()
	b := open(t, natstest.Start(t), "a")
	if err := b.PublishOnce(t.Context(), contracts.SubmitAny, []byte("x")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int32
	err := b.Work(ctx, contracts.SubmitConsumer, 2, func(context.Context, *bus.Message) error {
		if calls.Add(1) == 1 {
			return errors.New("not this time")
		}
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || calls.Load() < 2 { // more where its lease was over before
		t.Errorf("%d calls, %v", calls.Load(), err)
	}
	awaitEmpty(t, b, contracts.StreamSubmit)
}

// awaitEmpty returns when a stream has no message any more: what is acknowledged
// goes a little later.
func awaitEmpty(t *testing.T, b *bus.Bus, stream string) {
	t.Helper()
	until(t, "an empty "+stream, func() bool { return bustest.Count(t, b.Client, stream, ">") == 0 })
}

// TestWorkHoldsTheLease has a lease that a machine does not outlast which stands
// still for a quarter of a minute.
func TestWorkHoldsTheLease(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	b := open(t, server, "a")
	short := contracts.Consumer{Stream: contracts.StreamTransfers, Durable: "short", Filters: []string{contracts.TransferAll}, AckWait: 24 * time.Second}
	if _, err := b.ApplyConsumer(t.Context(), short); err != nil {
		t.Fatal(err)
	}
	if err := b.PublishOnce(t.Context(), "transfers.n.j.1.s", []byte("x")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int32
	_ = b.Work(ctx, short, 2, func(context.Context, *bus.Message) error {
		calls.Add(1)
		outlast(short.AckWait + short.AckWait/8)
		cancel()
		return nil
	})
	if calls.Load() != 1 {
		t.Errorf("delivered %d times although it was held", calls.Load())
	}
}

// outlast returns after d: the lease is about nothing but time.
func outlast(d time.Duration) { <-time.After(d) }

func publishOnce(t *testing.T, server natstest.NATS) {
	b := open(t, server, "a")
	for range 3 {
		if err := b.PublishOnce(t.Context(), "tasks.ready.normal.q.docker.j.1", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if n := bustest.Count(t, b.Client, contracts.StreamReady, ">"); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

func TestRevokesAreHeardAndRemembered(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	b := open(t, server, "a")
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan contracts.JobID, 10)
	done := make(chan struct{})
	ready := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.ListenRevokes(ctx, func() { close(ready) }, func(r *contracts.Revoke) { heard <- r.Job })
	}()
	<-ready
	if err := b.Revoke(t.Context(), contracts.Revoke{Job: "one"}); err != nil {
		t.Fatal(err)
	}
	if job := <-heard; job != "one" {
		t.Errorf("heard %s", job)
	}
	server.Restart()
	if err := server.Client().Revoke(t.Context(), contracts.Revoke{Job: "two"}); err != nil {
		t.Fatal(err)
	}
	if job := <-heard; job != "two" {
		t.Errorf("heard %s", job)
	}
	cancel()
	<-done
	if revoke, err := b.LastRevoke(t.Context(), "one"); err != nil || revoke == nil {
		t.Errorf("remembered %v, %v", revoke, err)
	}
	if revoke, err := b.LastRevoke(t.Context(), "nobody"); err != nil || revoke != nil {
		t.Errorf("invented %v, %v", revoke, err)
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	b := open(t, natstest.Start(t), "a")
	if err := b.PutSecrets(t.Context(), "job", contracts.SecretIO, contracts.Secrets{"girder.token": "tok"}); err != nil {
		t.Fatal(err)
	}
	secrets, err := b.Secrets(t.Context(), "job", contracts.SecretIO)
	if err != nil || secrets["girder.token"] != "tok" {
		t.Errorf("read %v, %v", secrets, err)
	}
	for _, add := range []struct{ added, want contracts.Secrets }{
		{contracts.Secrets{"created": "x"}, contracts.Secrets{"girder.token": "tok", "created": "x"}},
		{contracts.Secrets{"created": "y", "other": "z"}, contracts.Secrets{"girder.token": "tok", "created": "x"}},
	} {
		all, err := b.AddSecrets(t.Context(), "job", contracts.SecretIO, add.added)
		if err != nil || !maps.Equal(all, add.want) {
			t.Errorf("adding %v: %v, %v", add.added, all, err)
		}
	}
	if err := b.PutSecrets(t.Context(), "job", contracts.SecretIO, contracts.Secrets{"girder.token": "tok"}); err != nil {
		t.Fatal(err)
	}
	if secrets, err := b.Secrets(t.Context(), "job", contracts.SecretIO); err != nil || secrets["created"] != "x" {
		t.Errorf("stored again they are %v, %v", secrets, err)
	}
	if err := b.DeleteSecrets(t.Context(), "job"); err != nil {
		t.Fatal(err)
	}
	if secrets, err := b.Secrets(t.Context(), "job", contracts.SecretIO); err != nil || secrets != nil {
		t.Errorf("after deletion %v, %v", secrets, err)
	}
}

func TestAnnounceListsAndWithdraws(t *testing.T) {
	t.Parallel()
	b := open(t, natstest.Start(t), "a")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	kv, err := b.JetStream().KeyValue(t.Context(), contracts.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := kv.WatchAll(t.Context(), jetstream.UpdatesOnly())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		done <- b.Announce(ctx, func() contracts.Instance { return contracts.Instance{Service: "test", ID: "a"} })
	}()
	<-watch.Updates()
	until(t, "one instance", func() bool {
		instances, err := b.Instances(t.Context())
		return err == nil && len(instances) == 1 && instances[0].ID == "a"
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if isListed(t, b, "a") {
		t.Error("listed after the end")
	}
}
