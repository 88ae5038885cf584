package bus_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

// through returns a bus whose connection breaks at the first message on a
// subject that starts with prefix, and whether that came to pass.
func through(t *testing.T, server natstest.NATS, prefix string, verdict bustest.Verdict) (b *bus.Bus, broken func() bool) {
	t.Helper()
	proxy := bustest.Start(t, server.Config())
	b, err := bus.Open(t.Context(), proxy.Config(), "test", "b")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	done := false
	proxy.Judge(func(subject string) bustest.Verdict {
		if done || !strings.HasPrefix(subject, prefix) {
			return bustest.Pass
		}
		done = true
		return verdict
	})
	return b, func() bool {
		proxy.Judge(nil)
		return done
	}
}

func appendWithALostAnswerIsThereOnce(t *testing.T, server natstest.NATS) {
	for name, verdict := range map[string]bustest.Verdict{"before": bustest.Cut, "after": bustest.LoseAnswer} {
		t.Run(name, func(t *testing.T) {
			job := contracts.JobID("lost-" + name)
			other := open(t, server, "a")
			first := submit(t, other, job)
			b, broken := through(t, server, "jobs.", verdict)
			queued, err := b.Append(t.Context(), job, first, &contracts.Queued{})
			if err != nil || !broken() {
				t.Fatalf("appended %+v, %v", queued, err)
			}
			last, err := other.Last(t.Context(), job)
			if err != nil || last.Seq != queued.Seq || last.Entry.Entry != queued.Entry.Entry {
				t.Errorf("last entry %+v, %v, want %+v", last, err, queued)
			}
			if n := bustest.Count(t, server.Client(), contracts.StreamJobs, contracts.LifeSubject(job)); n != 2 {
				t.Errorf("%d entries, want 2", n)
			}
		})
	}
}

func appendWithALostAnswerAndARival(t *testing.T, server natstest.NATS) {
	other := open(t, server, "a")
	first := submit(t, other, "rivals")
	b, _ := through(t, server, "jobs.", bustest.Cut)
	proxied := make(chan error, 1)
	go func() {
		_, err := b.Append(t.Context(), "rivals", first, &contracts.Queued{})
		proxied <- err
	}()
	_, rival := other.Append(t.Context(), "rivals", first, &contracts.Canceled{})
	if err := <-proxied; (err == nil) == (rival == nil) {
		t.Errorf("one must win: %v and %v", err, rival)
	}
	if n := bustest.Count(t, server.Client(), contracts.StreamJobs, contracts.LifeSubject("rivals")); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
}

func TestAppendEndsWithItsContext(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	b := open(t, server, "a")
	first := submit(t, b, "job")
	server.Stop()
	ctx, cancel := context.WithCancelCause(t.Context())
	shutdown := errors.New("shut down")
	cancel(shutdown)
	if _, err := b.Append(ctx, "job", first, &contracts.Queued{}); err == nil || !bus.IsStopped(ctx, err) {
		t.Errorf("got %v", err)
	}
}

func scheduleFiresNotEarly(t *testing.T, server natstest.NATS) {
	b := open(t, server, "a")
	at := time.Now().Add(700 * time.Millisecond)
	for _, when := range []time.Time{at.Add(time.Hour), at} { // the second takes the place of the first
		if err := b.Schedule(t.Context(), "job", contracts.LaterRetry, when, map[string]int{"attempt": 1}); err != nil {
			t.Fatal(err)
		}
	}
	due := bustest.Next(t, server.Client(), contracts.DueConsumer)
	if due.Time.Before(at) || due.Subject != contracts.DueSubject("job", contracts.LaterRetry) || string(due.Data) != `{"attempt":1}` {
		t.Errorf("%s with %s at %s, want it at %s", due.Subject, due.Data, due.Time, at)
	}
	if err := b.Ack(t.Context(), due.Reply); err != nil {
		t.Fatal(err)
	}
	awaitEmpty(t, b, contracts.StreamLater)
}

func TestWatchLivesAcrossARestart(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	b := open(t, server, "a")
	last, err := b.Append(t.Context(), "before", submit(t, b, "before"), &contracts.Queued{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	caughtUp, seen, done := make(chan struct{}), make(chan *bus.Seen, 100), make(chan error, 1)
	go func() {
		done <- b.WatchLives(ctx, func() {}, func() { close(caughtUp) }, func(s *bus.Seen) { seen <- s })
	}()
	<-caughtUp
	if s := <-seen; s.Job != "before" || s.Seq != last.Seq {
		t.Errorf("saw %s at %d first, want the last entry", s.Job, s.Seq)
	}
	server.Restart()
	submit(t, b, "after")
	for s := range seen {
		if s.Job == "after" {
			break
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestWatchLivesIsCaughtUpWithNothing(t *testing.T) {
	t.Parallel()
	b := open(t, natstest.Start(t), "a")
	ctx, cancel := context.WithCancel(t.Context())
	if err := b.WatchLives(ctx, func() {}, cancel, func(*bus.Seen) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestFollowRevokesBeginsWithTheRemembered(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	b := open(t, server, "a")
	for _, job := range []contracts.JobID{"one", "two", "one"} {
		if err := b.Revoke(t.Context(), contracts.Revoke{Job: job}); err != nil {
			t.Fatal(err)
		}
	}
	bustest.Publish(t, server.Client(), contracts.RevokeSubject("three"), "", []byte("unreadable"))
	ctx, cancel := context.WithCancel(t.Context())
	var heard []contracts.JobID
	err := b.FollowRevokes(ctx, func(r *contracts.Revoke) {
		if heard = append(heard, r.Job); r.Job == "three" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || len(heard) != 3 || heard[0] != "two" || heard[1] != "one" {
		t.Errorf("heard %v, %v", heard, err)
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	b, c := open(t, server, "a"), server.Client()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	type request struct {
		Want string `json:"want"`
	}
	go func() {
		done <- b.Serve(ctx, "For the test.", bus.NewEndpoint("gantry.test.echo", func(_ context.Context, r request) (any, error) {
			switch r.Want {
			case "refusal":
				return nil, &contracts.RequestError{Code: contracts.CodeNotFound, Field: "want", Message: "no such thing"}
			case "error":
				return nil, errors.New("broken")
			case "too much":
				return strings.Repeat("x", 2<<20), nil
			}
			return r, nil
		}))
	}()
	// The service announces itself when it answers.
	ping := func(body string) *nats.Msg {
		t.Helper()
		for {
			reply, err := c.Conn().RequestWithContext(t.Context(), "gantry.test.echo", []byte(body))
			if errors.Is(err, nats.ErrNoResponders) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			return reply
		}
	}
	for _, tt := range []struct{ body, code, reply string }{
		{`{"want":"this"}`, "", `{"want":"this"}`},
		{``, "", `{"want":""}`},
		{`{"want":"refusal"}`, contracts.CodeNotFound, `{"error":{"code":"not_found","message":"no such thing","field":"want"}}`},
		{`{"want":"error"}`, contracts.CodeInternal, `broken`},
		{`{"want":"too much"}`, contracts.CodeInternal, `maximum payload`},
		{`{"want":7}`, contracts.CodeInvalid, `the request is not readable`},
		{`what?`, contracts.CodeInvalid, `the request is not readable`},
	} {
		reply := ping(tt.body)
		if code := reply.Header.Get("Nats-Service-Error-Code"); code != tt.code || !strings.Contains(string(reply.Data), tt.reply) {
			t.Errorf("%s: code %q, %.200s", tt.body, code, reply.Data)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := b.Serve(t.Context(), "", bus.NewEndpoint("not a subject", func(context.Context, request) (any, error) { return nil, nil })); err == nil {
		t.Error("a subject with blanks was served")
	}
}

func TestInstallationIsTheSameForAll(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	ids := make([]string, 8)
	var all sync.WaitGroup
	for i := range ids {
		b := open(t, server, "a")
		all.Go(func() {
			id, err := b.Installation(t.Context())
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	all.Wait()
	server.Restart()
	later, err := open(t, server, "later").Installation(t.Context())
	if err != nil || later == "" {
		t.Fatalf("installation %q, %v", later, err)
	}
	for _, id := range ids {
		if id != later {
			t.Errorf("installation %q, later %q", id, later)
		}
	}
}

// TestWorkTakesNoMoreThanItCan: what nobody works on is left to others.
func TestWorkTakesNoMoreThanItCan(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	b := open(t, server, "a")
	for range 5 {
		bustest.Publish(t, server.Client(), contracts.SubmitAny, "", []byte("x"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	busy, release := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- b.Work(ctx, contracts.SubmitConsumer, 2, func(context.Context, *bus.Message) error {
			busy <- struct{}{}
			<-release
			return nil
		})
	}()
	<-busy
	<-busy
	for range 3 {
		other := bustest.Next(t, server.Client(), contracts.SubmitConsumer)
		if err := b.Ack(t.Context(), other.Reply); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	close(release)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	awaitEmpty(t, b, contracts.StreamSubmit)
}
