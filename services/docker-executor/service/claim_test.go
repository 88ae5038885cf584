package service_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

func TestTwoHundredTasksInFourSlots(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(func(cfg *service.Config) { cfg.Slots = 4 })
	s.each(200)
	stop()
	s.clean()
}

// each offers a number of tasks and checks that each succeeds in its only
// attempt.
func (s *stage) each(n int) {
	s.t.Helper()
	job := func(i int) contracts.JobID { return contracts.JobID(fmt.Sprintf("job-%d", i)) }
	for i := range n {
		s.offer(job(i), script(fmt.Sprintf("out:%d", i)))
	}
	for i := range n {
		types, _ := s.await(job(i))
		sameTypes(s.t, types, "submitted", "queued", "claimed", "started", "succeeded")
		if got := s.output(job(i), contracts.LogStdout); got != fmt.Sprint(i) {
			s.t.Errorf("%s printed %q", job(i), got)
		}
	}
}

// Four tasks that wait for each other take two executors with two slots each.
func TestTwoExecutorsShareTheWork(t *testing.T) {
	t.Parallel()
	for name, roots := range map[string]func(s *stage) string{
		"on one node":  func(s *stage) string { return s.root },
		"on two nodes": func(s *stage) string { return s.t.TempDir() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			host := t.TempDir()
			stop := s.start(func(cfg *service.Config) { cfg.AllowBind = []string{host} })
			other := s.start(func(cfg *service.Config) { cfg.WorkRoot, cfg.AllowBind = roots(s), []string{host} })
			waiting := []contracts.JobID{"a", "b", "c", "d"}
			for _, job := range waiting {
				s.offer(job, bound(script("await:/data/go"), host))
			}
			started := map[string]int{}
			for _, job := range waiting {
				started[s.awaitEntry(job, contracts.EntryStarted).Source]++
			}
			mustWrite(t, filepath.Join(host, "go"), "")
			for _, job := range waiting {
				s.succeeds(job)
			}
			if len(started) != 2 {
				t.Errorf("the work was done by %v", started)
			}
			s.each(40)
			stop()
			other()
			s.clean()
		})
	}
}

// claimed makes a job that another executor has claimed, with its ready message
// free for whoever asks.
func (s *stage) claimed(job contracts.JobID, task *contracts.Task, owner contracts.ExecutorID, then ...contracts.EntryData) *bus.Seen {
	s.t.Helper()
	last := s.append(job, s.submit(job, task), &contracts.Queued{
		Lane: task.Lane(), Queue: task.QueueOrDefault(), Kind: task.Kind(), Reason: contracts.QueuedSubmit,
	})
	last = s.append(job, last, &contracts.Claimed{Node: "elsewhere", Executor: owner})
	for _, data := range then {
		last = s.append(job, last, data)
	}
	s.ready(last, task)
	return last
}

func TestAMessageIsLeftToAnOwnerThatLives(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	asked := make(chan contracts.OwnsRequest, 1)
	stopOwner, err := bus.Answer(s.bus, contracts.OwnsSubject("ex-alive"), func(request contracts.OwnsRequest) contracts.OwnsReply {
		select {
		case asked <- request:
		default:
		}
		return contracts.OwnsReply{Owns: true}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stopOwner)
	s.claimed("job", script("exit:0"), "ex-alive")
	stop := s.start(func(cfg *service.Config) { leaving(cfg); cfg.TakeoverAfter = 0 })
	if request := <-asked; request != (contracts.OwnsRequest{Job: "job", Attempt: 1}) {
		t.Errorf("asked for %+v", request)
	}
	stop()
	types, _ := s.life("job")
	sameTypes(t, types, "submitted", "queued", "claimed")
	if n := s.messages(contracts.StreamReady); n != 1 {
		t.Errorf("%d ready messages are there", n)
	}
}

func TestAJobOfAnExecutorThatIsGoneIsTakenOver(t *testing.T) {
	patient(t)
	s := newStage(t)
	none := 0
	atMostOnce := script("exit:0")
	atMostOnce.Retry = &contracts.Retry{MaxCrashes: &none}
	s.claimed("claimed", script("exit:0"), "ex-gone")
	s.claimed("started", script("exit:0"), "ex-gone", &contracts.Started{Container: "x"})
	s.claimed("pushed", script("exit:0"), "ex-gone", &contracts.Started{Container: "x"}, &contracts.Pushing{}, &contracts.Pushed{})
	s.claimed("canceling", script("exit:0"), "ex-gone", &contracts.Canceling{By: "somebody"})
	s.claimed("spent", atMostOnce, "ex-gone", &contracts.Started{Container: "x"})
	stop := s.start(func(cfg *service.Config) { cfg.Slots, cfg.TakeoverAfter = 5, 0 })
	for _, job := range []contracts.JobID{"claimed", "started", "pushed"} {
		_, end := s.await(job)
		if end.Type != contracts.EntrySucceeded || end.Attempt != 2 || end.Crashes != 1 {
			t.Errorf("%s ended as %+v", job, end)
		}
	}
	if _, end := s.await("canceling"); end.Type != contracts.EntryCanceled || end.Attempt != 1 || end.Data.(*contracts.Canceled).By != "somebody" {
		t.Errorf("a canceling job ended as %+v %+v", end, end.Data)
	}
	if failed := s.fails("spent"); failed.Kind != contracts.FailureInfrastructure || failed.WillRetry || !strings.Contains(failed.Message, "executor is gone") {
		t.Errorf("a spent job failed as %+v", failed)
	}
	stop()
	s.clean()
}

// An owner that answers that it does not own the attempt is as good as gone.
func TestAJobThatItsExecutorDisownsIsTakenOver(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stopOwner, err := bus.Answer(s.bus, contracts.OwnsSubject("ex-other"), func(contracts.OwnsRequest) contracts.OwnsReply { return contracts.OwnsReply{} })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stopOwner)
	s.claimed("job", script("exit:0"), "ex-other")
	stop := s.start(nil) // which would not take anything over
	types, _ := s.await("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "claimed", "started", "succeeded")
	stop()
	s.clean()
}

func TestAReadyMessageThatIsOutOfDateIsDropped(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	task := script("exit:0")
	ended := s.append("ended", s.submit("ended", task), &contracts.Canceled{})
	ended.Offer = 1
	s.ready(ended, task)
	other := script("exit:0")
	queued := s.queue(s.submit("older", other), other, contracts.QueuedSubmit)
	failed := s.append("older", queued, &contracts.Failed{Kind: contracts.FailureInfrastructure, WillRetry: true})
	s.append("older", failed, &contracts.Queued{Lane: other.Lane(), Queue: other.QueueOrDefault(), Kind: other.Kind()})
	unknown := script("exit:0")
	unknown.Version, unknown.ID, unknown.Name = contracts.Version, "unknown", contracts.TaskDockerRun
	s.ready(&bus.Seen{Entry: &contracts.Entry{Job: "unknown", Offer: 1}}, unknown)
	stop := s.start(func(cfg *service.Config) { cfg.Slots = 1 })
	s.offer("last", script("exit:0"))
	s.succeeds("last")
	stop()
	s.clean()
	if types, _ := s.life("older"); len(types) != 4 {
		t.Errorf("life is %v", types)
	}
}

// A superseded owner removes its container and says nothing, and leaves the
// message to the new owner.
func TestASupersededOwnerSaysNothing(t *testing.T) {
	patient(t)
	s := newStage(t)
	proxy := bustest.Start(t, s.server.Config())
	removed := &removeRecorder{Engine: s.engine, removed: make(chan string, 8)}
	stop := s.start(func(cfg *service.Config) { cfg.NATS, cfg.Engine = proxy.Config(), removed })
	s.offer("job", script("hang"))
	last := s.awaitEntry("job", contracts.EntryStarted)
	container := last.Data.(*contracts.Started).Container
	last = s.append("job", last, &contracts.Claimed{Node: "elsewhere", Executor: "ex-new"})
	s.cutOff(proxy)
	proxy.Judge(nil)
	for id := range removed.removed {
		if id == container {
			break
		}
	}
	s.succeeds("other")
	stop()
	types, _ := s.life("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "claimed")
	if n := s.messages(contracts.StreamReady); n != 1 || s.containers() != 0 || len(s.folders()) != 0 {
		t.Errorf("%d messages, %d containers, folders %v", n, s.containers(), s.folders())
	}
	s.append("job", last, &contracts.Started{})
}

// A claimant removes what earlier attempts of the job have on its engine.
func TestAClaimantRemovesContainersOfOlderAttempts(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	eng := &recorder{Engine: s.engine}
	stop := s.start(func(cfg *service.Config) { cfg.Engine = eng })
	s.offer("first", script("exit:0"))
	s.succeeds("first")
	spec := eng.only(t)
	spec.Labels = maps.Clone(spec.Labels)
	spec.Labels["gantry.job"], spec.Name, spec.Args, spec.Mounts = "job", "gantry-job-1", []string{"hang"}, nil
	if _, err := s.engine.Create(s.ctx, spec); err != nil {
		t.Fatal(err)
	}
	spec.Labels = map[string]string{"gantry.job": "job", "gantry.installation": "another"}
	spec.Name = "foreign"
	foreign, err := s.engine.Create(s.ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	task := script("exit:0")
	failed := s.append("job", s.claimed("job", task, "ex-gone"), &contracts.Failed{Kind: contracts.FailureInfrastructure, WillRetry: true})
	s.queue(failed, task, contracts.QueuedRetry)
	s.succeeds("job")
	stop()
	if list, err := s.engine.List(s.ctx, nil); err != nil || len(list) != 1 || list[0].ID != foreign {
		t.Errorf("containers are %+v, error %v", list, err)
	}
}

// The name of an attempt's container is taken only where the answer to its
// creation got lost.
func TestACreateWithoutAnAnswerIsMadeGood(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	eng := &forgetful{recorder: recorder{Engine: s.engine}}
	stop := s.start(func(cfg *service.Config) { cfg.Engine = eng })
	s.offer("job", script("exit:0"))
	s.succeeds("job")
	stop()
	s.clean()
}

// Another installation on the engine may have a job of the same id.
func TestANameThatSomebodyElseHoldsIsNotNeeded(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	if _, err := s.engine.Create(s.ctx, engine.Spec{Name: "gantry-job-1", Image: fake.ScriptImage}); err != nil {
		t.Fatal(err)
	}
	stop := s.start(nil)
	s.offer("job", script("exit:0"))
	s.succeeds("job")
	stop()
	if s.containers() != 1 {
		t.Error("somebody else's container was removed")
	}
}

// An attempt that is overtaken finds it out at whichever entry it writes next.
func TestAnOvertakenAttemptIsDroppedAtEveryEntry(t *testing.T) {
	t.Parallel()
	written := []contracts.EntryType{"submitted", "queued", "claimed", "started", "pushing", "pushed", "succeeded"}
	for n := 1; n <= 5; n++ {
		t.Run("before "+string(written[n+1]), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.transfers(true, bringOrSend)
			proxy := bustest.Start(t, s.server.Config())
			overtaken := make(chan struct{})
			left := n
			proxy.Judge(func(subject string) bustest.Verdict {
				if subject == contracts.LifeSubject("job") {
					if left--; left == 0 {
						last, err := s.bus.Last(s.ctx, "job")
						if err == nil {
							_, err = s.bus.Append(s.ctx, "job", last, &contracts.Claimed{Node: "elsewhere", Executor: "ex-new"})
						}
						if err != nil {
							t.Error(err)
						}
						close(overtaken)
					}
				}
				return bustest.Pass
			})
			stop := s.start(func(cfg *service.Config) { cfg.NATS = proxy.Config() })
			s.offer("job", outputTask())
			<-overtaken
			stop()
			types, _ := s.life("job")
			sameTypes(t, types, append(slices.Clone(written[:n+1]), "claimed")...)
			if n := s.messages(contracts.StreamReady); n != 1 || s.containers() != 0 || len(s.folders()) != 0 {
				t.Errorf("%d messages, %d containers, folders %v", n, s.containers(), s.folders())
			}
		})
	}
}

// A message that comes again while its owner lives is left alone: the owner
// says that it owns the attempt.
func TestARedeliveredMessageIsLeftToItsOwner(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(nil)
	s.offer("job", script("hang"))
	s.awaitEntry("job", contracts.EntryStarted)
	about := s.about("job")
	asked, err := s.bus.Conn().SubscribeSync(contracts.OwnsSubject(about.Executor))
	if err != nil {
		t.Fatal(err)
	}
	other := s.start(func(cfg *service.Config) { leaving(cfg); cfg.WorkRoot, cfg.TakeoverAfter = t.TempDir(), 0 })
	for {
		if err := s.bus.GiveBack(&bus.Message{Reply: about.Reply}, 0); err != nil {
			t.Fatal(err)
		}
		// The owner itself may get the message, and leaves it without a question.
		if _, err := asked.NextMsg(time.Second); err == nil {
			break
		}
	}
	s.revoke(contracts.Revoke{Job: "job"})
	types, _ := s.await("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "canceling", "canceled")
	stop()
	other()
	s.clean()
}

// about returns what the folder of a job's first attempt says.
func (s *stage) about(job contracts.JobID) (about folder.About) {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.root, "attempts", string(job)+".1", "attempt.json"))
	if err == nil {
		err = json.Unmarshal(data, &about)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return about
}

func TestATaskThatCannotBeReadIsRejected(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	task := script("exit:0")
	queued := s.append("job", s.submit("job", task), &contracts.Queued{Lane: task.Lane(), Queue: task.QueueOrDefault(), Kind: task.Kind()})
	subject := contracts.ReadySubject(task.Lane(), task.QueueOrDefault(), task.Kind(), "job", queued.Offer)
	if err := s.bus.PublishOnce(s.ctx, subject, []byte(`{"version":1,"id":"job","task":`)); err != nil {
		t.Fatal(err)
	}
	stop := s.start(nil)
	if failed := s.fails("job"); failed.Kind != contracts.FailureRejected || failed.WillRetry {
		t.Errorf("failed as %+v", failed)
	}
	stop()
	s.clean()
}
