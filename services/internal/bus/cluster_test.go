package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

func someTask() *contracts.Submitted {
	task := &contracts.Task{Version: 1, Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "img"}}
	return &contracts.Submitted{Task: task, Submission: 7}
}

// TestRules are those that depend on how many replicas there are: with three, a
// duplicate id is found before a wrong sequence is, and a message on its way
// counts before it is there.
func TestRules(t *testing.T) {
	t.Parallel()
	natstest.Each(t, func(t *testing.T, nats natstest.NATS) {
		for name, test := range map[string]func(*testing.T, natstest.NATS){
			"append has one winner":          appendHasOneWinner,
			"append with a lost answer":      appendWithALostAnswerIsThereOnce,
			"append with a rival":            appendWithALostAnswerAndARival,
			"publish once":                   publishOnce,
			"schedule fires not early":       scheduleFiresNotEarly,
			"lead passes on":                 leadPassesOn,
			"projection is changed in turns": projectionIsChangedByOneAtATime,
			"Girder job is taken once":       girderJobIsTakenOnce,
		} {
			t.Run(name, func(t *testing.T) { test(t, nats) })
		}
	})
}

// trouble is what happens to a cluster while its clients go on.
var trouble = map[string]func(t *testing.T, cluster *natstest.Cluster, conn *client.Client, stream string, then func()){
	"leader killed": func(_ *testing.T, cluster *natstest.Cluster, _ *client.Client, stream string, then func()) {
		leader := cluster.Leader(stream)
		cluster.StopMember(leader)
		then()
		cluster.StartMember(leader)
	},
	"leader steps down": func(_ *testing.T, cluster *natstest.Cluster, conn *client.Client, stream string, then func()) {
		cluster.StepDown(conn, stream)
		then()
		cluster.StepDown(conn, stream)
	},
	"no quorum": func(_ *testing.T, cluster *natstest.Cluster, _ *client.Client, stream string, then func()) {
		leader := cluster.Leader(stream)
		cluster.StopMember(leader)
		other := cluster.Leader(stream)
		cluster.StopMember(other)
		cluster.StartMember(leader)
		then()
		cluster.StartMember(other)
	},
}

// TestAppendsAcrossTrouble: two services append to the same lives, each what it
// decides on, while the cluster is in trouble. Every life is one chain of
// entries, each of them by the one that was told it won.
func TestAppendsAcrossTrouble(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("no cluster in short mode")
	}
	for name, happens := range trouble {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := natstest.StartCluster(t)
			const lives, entries = 4, 60
			var all sync.WaitGroup
			var appended atomic.Int64
			half := make(chan struct{}, lives)
			won := make([]sync.Map, lives) // entry's id to whether its author knows
			stop := make(chan struct{})
			for life := range lives {
				job := contracts.JobID(fmt.Sprintf("job-%d", life))
				for _, author := range []string{"a", "b"} {
					b := open(t, cluster, author)
					all.Go(func() {
						for n := 0; ; n++ {
							select {
							case <-stop:
								return
							default:
							}
							entry := step(t, b, job)
							if entry != nil {
								won[life].Store(entry.Entry.Entry, true)
								if appended.Add(1) == lives*entries/2 {
									half <- struct{}{}
								}
							}
						}
					})
				}
			}
			<-half
			conn := cluster.Client()
			happens(t, cluster, conn, contracts.StreamJobs, func() {
				before := appended.Load()
				until(t, "appends in trouble", func() bool { return appended.Load() > before+lives*entries/4 })
			})
			before := appended.Load()
			until(t, "appends afterwards", func() bool { return appended.Load() > before+lives*entries/4 })
			close(stop)
			all.Wait()
			cluster.Leader(contracts.StreamJobs)
			for life := range lives {
				checkChain(t, conn, contracts.JobID(fmt.Sprintf("job-%d", life)), &won[life])
			}
		})
	}
}

// TestTryOnItsWay: a leader without followers has taken a message and cannot
// say what becomes of it. Who publishes it again is told that its id is in
// process, which is no refusal: it waits, and the message is there once.
func TestTryOnItsWay(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("no cluster in short mode")
	}
	cluster := natstest.StartCluster(t)
	for n := 1; ; n++ {
		job := contracts.JobID(fmt.Sprintf("job-%d", n))
		b, chunk := leaveOnItsWay(t, cluster, job)
		if b == nil {
			cluster.Start() // the leader gave up before: again, with another
			continue
		}
		stored := make(chan error, 1)
		go func() {
			_, err := b.PublishLog(t.Context(), contracts.LogHeadSubject(job), "g", 0, chunk)
			stored <- err
		}()
		cluster.Start()
		if err := <-stored; err != nil {
			t.Fatal(err)
		}
		if last, _, err := b.LastLog(t.Context(), job); err != nil || last == nil || last.Seq != 1 {
			t.Errorf("last is %+v, %v", last, err)
		}
		if n := bustest.Count(t, b.Client, contracts.StreamLive, contracts.LogHeadSubject(job)); n != 1 {
			t.Errorf("%d pieces, want 1", n)
		}
		return
	}
}

// leaveOnItsWay makes the leader of logs the only member, with a message of which
// it cannot say what becomes. It returns no bus where the leader gave up first, as
// it does some seconds after it lost its followers.
func leaveOnItsWay(t *testing.T, cluster *natstest.Cluster, job contracts.JobID) (*bus.Bus, *contracts.LogChunk) {
	t.Helper()
	leader := cluster.Leader(contracts.StreamLive)
	b, err := bus.Open(t.Context(), cluster.MemberConfig(leader), "test", "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	for i := range 3 {
		if i != leader {
			cluster.StopMember(i)
		}
	}
	chunk := &contracts.LogChunk{Version: contracts.Version, Job: job, Attempt: 1, Seq: 1, Stream: contracts.LogStdout, Data: "x"}
	data, err := json.Marshal(chunk)
	if err != nil {
		t.Fatal(err)
	}
	isOnItsWay := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := b.JetStream().Publish(ctx, contracts.LogHeadSubject(job), data, jetstream.WithMsgID(fmt.Sprintf("log-%s-1-1-g", job)))
		var api *jetstream.APIError
		return errors.As(err, &api) && api.ErrorCode == 10158
	}
	for cluster.Leads(leader, contracts.StreamLive) {
		if isOnItsWay() {
			return b, chunk
		}
	}
	return nil, nil
}

// step appends what may come next, and returns it if it won.
func step(t *testing.T, b *bus.Bus, job contracts.JobID) *bus.Seen {
	ctx := context.WithoutCancel(t.Context())
	last, err := b.Last(ctx, job)
	if err != nil {
		t.Error(err)
		return nil
	}
	var data contracts.EntryData = someTask()
	switch {
	case last == nil:
	case last.Type == contracts.EntrySubmitted:
		data = &contracts.Queued{Lane: contracts.LaneNormal}
	default:
		data = &contracts.Claimed{Node: "n", Executor: "e"}
	}
	entry, err := b.Append(ctx, job, last, data)
	if errors.Is(err, bus.ErrOvertaken) {
		return nil
	}
	if err != nil {
		t.Error(err)
		return nil
	}
	return entry
}

func checkChain(t *testing.T, conn *client.Client, job contracts.JobID, won *sync.Map) {
	t.Helper()
	life, err := conn.Life(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	var last *contracts.Entry
	stored := map[string]bool{}
	for _, entry := range life {
		if err := contracts.CheckNext(last, entry); err != nil {
			t.Errorf("%s: %v", job, err)
		}
		last = entry
		if stored[entry.Entry] {
			t.Errorf("%s: entry %s is there twice", job, entry.Entry)
		}
		stored[entry.Entry] = true
	}
	won.Range(func(entry, _ any) bool {
		if !stored[entry.(string)] {
			t.Errorf("%s: the author of %v was told that it is there, and it is not", job, entry)
		}
		return true
	})
}

// TestReadyMessagesAcrossTrouble: each is there once, however the cluster fares
// and however often it is published.
func TestReadyMessagesAcrossTrouble(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("no cluster in short mode")
	}
	for name, happens := range trouble {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := natstest.StartCluster(t)
			const jobs = 40
			var published atomic.Int64
			var all sync.WaitGroup
			start := make(chan struct{})
			for _, author := range []string{"a", "b"} {
				b := open(t, cluster, author)
				all.Go(func() {
					for n := range jobs {
						if n == jobs/4 {
							<-start
						}
						offer(t, b, contracts.LaneNormal, contracts.JobID(fmt.Sprintf("job-%d", n)))
						published.Add(1)
					}
				})
			}
			until(t, "some messages", func() bool { return published.Load() == 2*(jobs/4) })
			conn := cluster.Client()
			happens(t, cluster, conn, contracts.StreamReady, func() {
				close(start)
				until(t, "more messages", func() bool { return published.Load() > jobs })
			})
			all.Wait()
			cluster.Leader(contracts.StreamReady)
			if n := bustest.Count(t, conn, contracts.StreamReady, ">"); n != jobs {
				t.Errorf("%d messages, want %d", n, jobs)
			}
		})
	}
}

// TestLivesAreWatchedOnce: each entry comes once, in order, across restarts and
// elections.
func TestLivesAreWatchedOnce(t *testing.T) {
	t.Parallel()
	natstest.Each(t, func(t *testing.T, nats natstest.NATS) {
		b := open(t, nats, "a")
		write := func(job contracts.JobID) {
			first, err := b.Append(t.Context(), job, nil, someTask())
			if err == nil {
				_, err = b.Append(t.Context(), job, first, &contracts.Failed{Kind: contracts.FailureRejected})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for n := range 5 {
			write(contracts.JobID(fmt.Sprintf("before-%d", n)))
		}
		ctx, cancel := context.WithCancel(t.Context())
		caughtUp, seen, done := make(chan struct{}), make(chan *bus.Seen, 100), make(chan error, 1)
		watcher := open(t, nats, "b")
		go func() {
			done <- watcher.WatchLives(ctx, func() {}, func() { close(caughtUp) }, func(s *bus.Seen) { seen <- s })
		}()
		<-caughtUp
		nats.Stop()
		nats.Start()
		for n := range 5 {
			write(contracts.JobID(fmt.Sprintf("after-%d", n)))
		}
		nats.Stop()
		nats.Start()
		write("last")
		var read uint64
		for s := range seen {
			if s.Seq <= read {
				t.Errorf("%s of %s comes again", s.Type, s.Job)
			}
			if read = s.Seq; s.Job == "last" && s.Type == contracts.EntryFailed {
				break
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}
