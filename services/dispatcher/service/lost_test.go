package service_test

import (
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/dispatchtest"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// TestServerSetBack: a server is given an older copy of its data while a dispatcher
// runs. Jobs that had ended stand where they stood before, and what would move them
// on is not there, nor the consumers of their queue. Each is offered again.
func TestServerSetBack(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	b := dispatchtest.Open(t, server.Config())
	queued := &contracts.Queued{Lane: contracts.LaneNormal, Queue: contracts.DefaultQueue, Kind: contracts.KindDocker, Reason: contracts.QueuedSubmit}
	claimed, started := &contracts.Claimed{Node: "n", Executor: "e"}, &contracts.Started{Container: "c"}
	failed := &contracts.Failed{Kind: contracts.FailureTask, Message: "exit code 1", WillRetry: true, RetryAt: time.Now().UTC()}
	lives := map[contracts.JobID][]contracts.EntryData{
		"submitted": {},
		"queued":    {queued},
		"released":  {queued, claimed, &contracts.Released{Node: "n", Executor: "e"}},
		"failed":    {queued, claimed, started, failed},
		"started":   {queued, claimed, started},
	}
	last := map[contracts.JobID]*bus.Seen{}
	add := func(job contracts.JobID, data contracts.EntryData) {
		t.Helper()
		var err error
		if last[job], err = b.Append(t.Context(), job, last[job], data); err != nil {
			t.Fatal(err)
		}
	}
	for job, life := range lives {
		add(job, &contracts.Submitted{Task: dispatchtest.Task(job), Submission: 1})
		for _, data := range life {
			add(job, data)
		}
	}
	setBack := server.Keep()
	for job := range lives {
		switch last[job].Type {
		case contracts.EntryStarted:
			add(job, &contracts.Succeeded{})
		default:
			add(job, &contracts.Canceled{})
		}
	}
	run(t, server, quick(20*time.Millisecond)) // it knows of no job that has not ended
	setBack()
	offered := map[contracts.JobID]bool{}
	for len(offered) < len(lives) {
		job, _, err := contracts.ParseReady(dispatchtest.NextReady(t, c).Subject)
		if err != nil {
			t.Fatal(err)
		}
		offered[job] = true
	}
	for job := range offered {
		if n := dispatchtest.Ready(t, c, job); n != 1 {
			t.Errorf("%s has %d ready messages", job, n)
		}
	}
}
