// Package dispatchtest is what the dispatcher's tests share: a NATS server
// with the topology, tasks as clients publish them, and what is to be seen
// afterwards in lives and queues.
package dispatchtest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/queues"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

// Token is a secret of the tasks of this package, in a Girder token's shape.
const Token = "S3cretS3cretS3cretS3cretS3cretS3cretS3cretS3cretS3cretS3cretS3cr"

// Open returns a connection as a service has it, closed at the test's end.
func Open(t testing.TB, config client.Config) *bus.Bus {
	t.Helper()
	b, err := bus.Open(context.Background(), config, "dispatcher", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// Known returns queues that know the default one.
func Known(t testing.TB, b *bus.Bus) *queues.Queues {
	t.Helper()
	known := queues.New(b, false)
	if err := known.Require(t.Context(), contracts.DefaultQueue); err != nil {
		t.Fatal(err)
	}
	return known
}

// Task returns a small task. Its retries come at once.
func Task(job contracts.JobID) *contracts.Task {
	return &contracts.Task{
		Version: contracts.Version, ID: job, Name: contracts.TaskDockerRun,
		Docker: &contracts.DockerRun{Image: "img"},
		Retry:  &contracts.Retry{MaxFailures: 5, Backoff: contracts.Duration(time.Millisecond)},
	}
}

// SecretTask returns a task with a secret for transfer and one for
// job-tracker, both with value in it.
func SecretTask(job contracts.JobID, value string) *contracts.Task {
	task := Task(job)
	task.Girder = &contracts.Girder{
		APIURL: "https://girder.example.org/api/v1", Token: contracts.Secret(value),
		JobInfo: &contracts.GirderJobInfo{
			Method: "PUT", URL: "https://girder.example.org/api/v1/job/0123456789abcdef01234567",
			Headers: map[string]contracts.Secret{"Girder-Token": contracts.Secret(value)},
		},
	}
	return task
}

// Encode returns a task as it is published.
func Encode(t testing.TB, task *contracts.Task) []byte {
	t.Helper()
	data, err := task.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// NextReady takes the next ready message of the default queue.
func NextReady(t testing.TB, c *client.Client) *bus.Message {
	t.Helper()
	return bustest.Next(t, c, contracts.ReadyConsumer(contracts.LaneNormal, contracts.DefaultQueue, contracts.KindDocker))
}

// Life returns the types of a job's entries, in order, blank-separated; it is
// empty for a job without a life.
func Life(t testing.TB, c *client.Client, job contracts.JobID) string {
	t.Helper()
	life, err := c.Life(t.Context(), job)
	if err != nil && !errors.Is(err, client.ErrNoJob) {
		t.Fatal(err)
	}
	types := make([]string, len(life))
	for i, entry := range life {
		types[i] = string(entry.Type)
	}
	return strings.Join(types, " ")
}

// Await returns the first entry of a type with at least the given offer,
// waiting for it.
func Await(t testing.TB, c *client.Client, job contracts.JobID, kind contracts.EntryType, offer int) *contracts.Entry {
	t.Helper()
	for msg, err := range c.Messages(t.Context(), contracts.StreamJobs, 1, contracts.LifeSubject(job)) {
		if err != nil {
			t.Fatal(err)
		}
		entry, err := contracts.DecodeEntry(msg.Data())
		if err != nil {
			t.Fatal(err)
		}
		if entry.Type == kind && entry.Offer >= offer {
			return entry
		}
	}
	t.Fatalf("no %s entry of %s", kind, job)
	return nil
}

// Ready returns how many ready messages a job has.
func Ready(t testing.TB, c *client.Client, job contracts.JobID) int {
	t.Helper()
	return bustest.Count(t, c, contracts.StreamReady, "tasks.ready.*.*.*."+string(job)+".*")
}

// Scheduled returns how many schedules and due messages a job has.
func Scheduled(t testing.TB, c *client.Client, job contracts.JobID) int {
	t.Helper()
	return bustest.Count(t, c, contracts.StreamLater, "tasks.*."+string(job)+".*")
}

// Attempt brings a queued job to the end of an attempt that is to be tried
// again after wait, as an executor does, and returns the last entry.
func Attempt(t testing.TB, b *bus.Bus, job contracts.JobID, wait time.Duration) *bus.Seen {
	t.Helper()
	last, err := b.Last(t.Context(), job)
	for _, data := range []contracts.EntryData{
		&contracts.Claimed{Node: "n", Executor: "e"},
		&contracts.Started{Container: "c"},
		&contracts.Failed{Kind: contracts.FailureTask, Message: "exit code 1", WillRetry: true, RetryAt: time.Now().Add(wait).UTC()},
	} {
		if err != nil {
			t.Fatal(err)
		}
		last, err = b.Append(t.Context(), job, last, data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// Server starts a NATS server and returns it with a client.
func Server(t testing.TB) (*natstest.Server, *client.Client) {
	t.Helper()
	server := natstest.Start(t)
	return server, server.Client()
}
