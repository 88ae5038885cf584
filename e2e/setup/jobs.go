package setup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// MustSubmit submits a task.
func (g *Gantry) MustSubmit(task *contracts.Task) contracts.JobID {
	g.T.Helper()
	job, err := g.Submit(g.ctx, task)
	if err != nil {
		g.T.Fatalf("submit: %v", err)
	}
	return job
}

// AwaitEnd returns a job's terminal entry.
func (g *Gantry) AwaitEnd(job contracts.JobID) *contracts.Entry {
	g.T.Helper()
	end, err := g.Wait(g.ctx, job)
	if err != nil {
		g.giveUp(job, "await end of %s: %v", job, err)
	}
	return end
}

// AwaitSuccess waits for a job's end, which has to be success.
func (g *Gantry) AwaitSuccess(job contracts.JobID) *contracts.Succeeded {
	g.T.Helper()
	end := g.AwaitEnd(job)
	succeeded, ok := end.Data.(*contracts.Succeeded)
	if !ok {
		g.giveUp(job, "%s: %s %+v, want success", job, end.Type, end.Data)
	}
	return succeeded
}

// AwaitFailure waits for a job's end, which has to be a failure.
func (g *Gantry) AwaitFailure(job contracts.JobID) *contracts.Failed {
	g.T.Helper()
	end := g.AwaitEnd(job)
	failed, ok := end.Data.(*contracts.Failed)
	if !ok {
		g.giveUp(job, "%s: %s %+v, want failure", job, end.Type, end.Data)
	}
	return failed
}

// AwaitEntry waits until a job's life has an entry of that type and attempt.
func (g *Gantry) AwaitEntry(job contracts.JobID, kind contracts.EntryType, attempt int) *contracts.Entry {
	g.T.Helper()
	for msg, err := range g.Messages(g.ctx, contracts.StreamJobs, 1, contracts.LifeSubject(job)) {
		if err != nil {
			g.T.Fatalf("await %s of %s: %v", kind, job, err)
		}
		entry, err := contracts.DecodeEntry(msg.Data())
		if err != nil {
			g.T.Fatalf("await %s of %s: %v", kind, job, err)
		}
		if entry.Type == kind && entry.Attempt == attempt {
			return entry
		}
		if entry.Terminal() {
			g.giveUp(job, "%s ended before %s of attempt %d: %s %+v", job, kind, attempt, entry.Type, entry.Data)
		}
	}
	g.giveUp(job, "%s has no %s of attempt %d", job, kind, attempt)
	return nil
}

// AwaitLog waits until the job's log contains the text.
func (g *Gantry) AwaitLog(job contracts.JobID, text string) {
	g.T.Helper()
	var log strings.Builder
	for event, err := range g.Follow(g.ctx, job) {
		if err != nil {
			g.giveUp(job, "await %q in the log of %s, which is %q: %v", text, job, log.String(), err)
		}
		if event.Log == nil {
			continue
		}
		log.Write(event.Log.Bytes())
		if strings.Contains(log.String(), text) {
			return
		}
	}
	g.giveUp(job, "%s ended without %q in its log, which is %q", job, text, log.String())
}

// Types are the types of the entries of a job's life, as one line.
func (g *Gantry) Types(job contracts.JobID) string {
	g.T.Helper()
	ctx, cancel := g.inquiry()
	defer cancel()
	life, err := g.Life(ctx, job)
	if err != nil {
		return err.Error()
	}
	types := make([]string, len(life))
	for i, entry := range life {
		types[i] = string(entry.Type)
	}
	return strings.Join(types, " ")
}

// JobLog returns a job's log: all of it, and by stream.
func (g *Gantry) JobLog(job contracts.JobID) (all string, byStream map[contracts.LogStream]string) {
	g.T.Helper()
	byStream = map[contracts.LogStream]string{}
	for chunk, err := range g.Log(g.ctx, job, false) {
		if err != nil {
			g.T.Fatalf("read log of %s: %v", job, err)
		}
		all += string(chunk.Bytes())
		byStream[chunk.Stream] += string(chunk.Bytes())
	}
	return all, byStream
}

// AwaitJob waits until the projection of a job meets the condition.
func (g *Gantry) AwaitJob(job contracts.JobID, condition func(*contracts.Job) bool) *contracts.Job {
	g.T.Helper()
	var last contracts.Job
	g.watch(contracts.BucketJobs, string(job), nil, func(update jetstream.KeyValueEntry) bool {
		last = contracts.Job{}
		if err := json.Unmarshal(update.Value(), &last); err != nil {
			g.T.Fatalf("read projection of %s: %v", job, err)
		}
		return condition(&last)
	}, func() { g.giveUp(job, "projection of %s is not as expected: %+v", job, last) })
	return &last
}

// AwaitMirrored waits until Girder has a job's terminal status, and returns the
// Girder job.
func (g *Gantry) AwaitMirrored(job contracts.JobID) girdersim.Job {
	g.T.Helper()
	ref := g.AwaitGirderJob(job)
	mirrored, err := g.Girder.AwaitJob(g.ctx, ref.ID, func(j girdersim.Job) bool { return contracts.GirderStatus(j.Status).Terminal() })
	if err != nil {
		g.giveUp(job, "await the end of %s in Girder, where it is %v: %v", job, Statuses(mirrored), err)
	}
	return mirrored
}

// AwaitGirderJob waits until a job has a Girder job.
func (g *Gantry) AwaitGirderJob(job contracts.JobID) *contracts.GirderJobRef {
	g.T.Helper()
	for msg, err := range g.Messages(g.ctx, contracts.StreamJobs, 1, contracts.GirderSubject(job)) {
		if err != nil {
			g.T.Fatalf("await Girder job of %s: %v", job, err)
		}
		ref := new(contracts.GirderJobRef)
		if err := json.Unmarshal(msg.Data(), ref); err != nil {
			g.T.Fatalf("await Girder job of %s: %v", job, err)
		}
		if ref.ID != "" || ref.Refused != "" {
			return ref
		}
	}
	g.giveUp(job, "%s has no Girder job", job)
	return nil
}

// AwaitService waits until a process of the service that was started last has
// announced itself; that of the first node, if nodes have it.
func (g *Gantry) AwaitService(name string) {
	g.T.Helper()
	var node *Node
	if name == Executor || name == Transfer {
		node = g.Nodes[0]
	}
	g.await(name, g.Services[name], node)
}

// watch passes the values of keys on until found returns true; otherwise is
// called when that takes too long, or who is to write them is gone. A nil
// channel stands for nobody in particular.
func (g *Gantry) watch(bucket, keys string, gone <-chan struct{}, found func(jetstream.KeyValueEntry) bool, otherwise func()) {
	g.T.Helper()
	var watcher jetstream.KeyWatcher
	g.persist("watch bucket "+bucket, func(ctx context.Context) error {
		kv, err := g.JetStream().KeyValue(ctx, bucket)
		if err == nil {
			watcher, err = kv.Watch(g.ctx, keys)
		}
		return err
	})
	defer watcher.Stop() //nolint:errcheck // the connection is the test's
	for {
		select {
		case update := <-watcher.Updates():
			if update != nil && found(update) {
				return
			}
		case <-gone:
			otherwise()
			return
		case <-g.ctx.Done():
			otherwise()
			return
		}
	}
}

// Stored returns all messages of a stream as they are there, subject first.
func (g *Gantry) Stored(stream string) []string {
	g.T.Helper()
	var handle jetstream.Stream
	g.persist("read "+stream, func(ctx context.Context) (err error) {
		handle, err = g.JetStream().Stream(ctx, stream)
		return err
	})
	var all []string
	state := handle.CachedInfo().State
	for seq := max(1, state.FirstSeq); seq <= state.LastSeq; seq++ {
		g.persist(fmt.Sprintf("read message %d of %s", seq, stream), func(ctx context.Context) error {
			msg, err := handle.GetMsg(ctx, seq)
			if err == nil {
				all = append(all, msg.Subject+" "+string(msg.Data))
			} else if errors.Is(err, jetstream.ErrMsgNotFound) {
				err = nil
			}
			return err
		})
	}
	return all
}

// Count returns how many entries of a type a life has.
func Count(life []*contracts.Entry, kind contracts.EntryType) int {
	n := 0
	for _, entry := range life {
		if entry.Type == kind {
			n++
		}
	}
	return n
}

// Statuses are the names of the statuses that a Girder job took on.
func Statuses(job girdersim.Job) []string {
	var names []string
	for _, status := range slices.Clone(job.Statuses()) {
		names = append(names, contracts.GirderStatus(status).String())
	}
	return names
}
