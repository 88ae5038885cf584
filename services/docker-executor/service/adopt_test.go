package service_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
)

// Whatever state an executor died in, the next one of its node goes on with the
// same attempt, and the job ends once.
func TestTheNextStartGoesOnWithWhatAKilledExecutorLeft(t *testing.T) {
	t.Parallel()
	begun := func(s *stage, task *contracts.Task, then ...contracts.EntryData) {
		s.died("job", task, append([]contracts.EntryData{s.claim(), &contracts.Started{Container: "x"}}, then...)...)
	}
	for name, test := range map[string]struct {
		leave   func(*stage, *contracts.Task)
		entries []contracts.EntryType // behind what is left, without adopted
		crash   bool
	}{
		"after the claim": {
			leave:   func(s *stage, task *contracts.Task) { s.died("job", task, s.claim()) },
			entries: []contracts.EntryType{"started", "pushing", "pushed", "pushed", "succeeded"},
		},
		"after the container was created": {
			leave: func(s *stage, task *contracts.Task) {
				s.died("job", task, s.claim())
				s.container("job", "out:left\n")
			},
			entries: []contracts.EntryType{"started", "pushing", "pushed", "pushed", "succeeded"},
		},
		"after the container was started": {
			leave: func(s *stage, task *contracts.Task) {
				s.died("job", task, s.claim())
				s.running("job", "out:left\n")
			},
			entries: []contracts.EntryType{"started", "pushing", "pushed", "pushed", "succeeded"},
		},
		"while it ran": {
			leave: func(s *stage, task *contracts.Task) {
				begun(s, task)
				s.running("job", "out:left\n")
			},
			entries: []contracts.EntryType{"pushing", "pushed", "pushed", "succeeded"},
		},
		"while it ran, and it failed meanwhile": {
			leave: func(s *stage, task *contracts.Task) {
				begun(s, task)
				s.exited("job", "exit:3")
			},
			entries: []contracts.EntryType{"failed"},
		},
		"while it ran, and it is gone": {
			leave:   func(s *stage, task *contracts.Task) { begun(s, task) },
			entries: []contracts.EntryType{"failed"}, crash: true,
		},
		"while it pushed": {
			leave: func(s *stage, task *contracts.Task) {
				begun(s, task, &contracts.Pushing{}, &contracts.Pushed{Files: []contracts.GirderSent{{FileID: "file-a"}}})
				s.exited("job", "exit:0")
			},
			entries: []contracts.EntryType{"pushed", "succeeded"},
		},
		"after it pushed": {
			leave: func(s *stage, task *contracts.Task) {
				begun(s, task, &contracts.Pushing{}, &contracts.Pushed{Files: []contracts.GirderSent{{FileID: "file-a"}}},
					&contracts.Pushed{Index: 1, Files: []contracts.GirderSent{{FileID: "file-b"}}})
				s.exited("job", "exit:0")
			},
			entries: []contracts.EntryType{"succeeded"},
		},
		"while it canceled": {
			leave: func(s *stage, task *contracts.Task) {
				begun(s, task, &contracts.Canceling{By: "somebody"})
				s.running("job", "hang")
			},
			entries: []contracts.EntryType{"canceled"},
		},
		"while it canceled, before it ran": {
			leave: func(s *stage, task *contracts.Task) {
				s.died("job", task, s.claim(), &contracts.Canceling{By: "somebody"})
			},
			entries: []contracts.EntryType{"canceled"},
		},
		"and a revoke came while nobody owned it": {
			leave: func(s *stage, task *contracts.Task) {
				begun(s, task)
				s.running("job", "hang")
				s.revoke(contracts.Revoke{Job: "job", By: "somebody"})
			},
			entries: []contracts.EntryType{"canceling", "canceled"},
		},
		"and an adopter died as well": {
			leave: func(s *stage, task *contracts.Task) {
				begun(s, task, &contracts.Adopted{Node: s.node(), Executor: "ex-dead-too"})
				s.running("job", "out:left\n")
			},
			entries: []contracts.EntryType{"pushing", "pushed", "pushed", "succeeded"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			tr := s.transfers(true, sent)
			task := script("out:left\n")
			task.Outputs = []contracts.Output{upload("a", "item"), upload("b", "item")}
			test.leave(s, task)
			left, _ := s.life("job")
			stop := s.start(nil)
			types, life := s.ended("job")
			sameTypes(t, types, append(append(left, "adopted"), test.entries...)...)
			end := life[len(life)-1]
			if end.Attempt != 1 || (end.Crashes == 1) != test.crash {
				t.Errorf("ended as %+v %+v", end, end.Data)
			}
			if canceled, ok := end.Data.(*contracts.Canceled); ok && canceled.By != "somebody" {
				t.Errorf("canceled as %+v", canceled)
			}
			if succeeded, ok := end.Data.(*contracts.Succeeded); ok {
				if len(succeeded.Outputs) != 2 || succeeded.Outputs[0].FileID != "file-a" || succeeded.Outputs[1].FileID != "file-b" {
					t.Errorf("outputs are %+v", succeeded.Outputs)
				}
				pushed := 0
				for _, kind := range test.entries {
					if kind == contracts.EntryPushed {
						pushed++
					}
				}
				if len(tr.asked()) != pushed {
					t.Errorf("transfer was asked for %+v", tr.asked())
				}
			}
			if slices.Contains(test.entries, "pushing") {
				if got := s.output("job", contracts.LogStdout); got != "left\n" {
					t.Errorf("the log is %q", got)
				}
			}
			stop()
			s.clean()
		})
	}
}

// ended waits for the end of an attempt, also one that will be tried again.
func (s *stage) ended(job contracts.JobID) ([]contracts.EntryType, []*contracts.Entry) {
	s.t.Helper()
	for msg, err := range s.bus.Messages(s.ctx, contracts.StreamJobs, 1, contracts.LifeSubject(job)) {
		if err != nil {
			s.t.Fatal(err)
		}
		entry, err := contracts.DecodeEntry(msg.Data())
		if err != nil {
			s.t.Fatal(err)
		}
		if entry.Terminal() || entry.Type == contracts.EntryFailed {
			break
		}
	}
	return s.life(job)
}

func TestAJobThatEndedBeforeItsExecutorDiedIsCleanedUp(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.died("job", script("exit:0"), s.claim(), &contracts.Started{}, &contracts.Succeeded{})
	s.exited("job")
	removed := &removeRecorder{Engine: s.engine, removed: make(chan string, 1)}
	stop := s.start(func(cfg *service.Config) { cfg.Engine = removed })
	<-removed.removed
	stop()
	types, _ := s.life("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "succeeded")
	s.clean()
}

// One that runs is adopted although every slot is taken, and nothing is claimed
// until there are slots again; one that has not begun is left to others.
func TestAdoptionWhenSlotsAreFull(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.died("begun", script("hang"), s.claim(), &contracts.Started{})
	s.running("begun", "hang")
	s.died("other", script("hang"), s.claim(), &contracts.Started{})
	s.running("other", "hang")
	s.died("waiting", script("exit:0"), s.claim())
	s.offer("next", script("exit:0"))
	stop := s.start(func(cfg *service.Config) { cfg.Slots = 1 })
	s.awaitEntry("begun", contracts.EntryAdopted)
	s.awaitEntry("other", contracts.EntryAdopted)
	s.awaitEntry("waiting", contracts.EntryReleased)
	s.revoke(contracts.Revoke{Job: "begun"})
	s.await("begun")
	if types, _ := s.life("next"); len(types) != 2 {
		t.Errorf("claimed while two run in one slot: %v", types)
	}
	s.revoke(contracts.Revoke{Job: "other"})
	s.await("other")
	s.succeeds("next")
	types, end := s.await("waiting")
	sameTypes(t, types, "submitted", "queued", "claimed", "released", "claimed", "started", "succeeded")
	if end.Crashes != 0 {
		t.Error("a crash was counted")
	}
	stop()
	s.clean()
}

// An engine that is away when an executor starts keeps the attempt from being
// adopted and from nothing else.
func TestAnAttemptIsAdoptedWhenTheEngineIsBack(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for _, job := range []contracts.JobID{"a", "b", "c"} {
		s.died(job, script("exit:0"), s.claim(), &contracts.Started{})
		s.exited(job, "out:done")
	}
	s.engine.Fail(fake.CallList, unavailable, 2)
	stop := s.start(nil)
	for _, job := range []contracts.JobID{"a", "b", "c"} {
		types, _ := s.await(job)
		sameTypes(t, types, "submitted", "queued", "claimed", "started", "adopted", "succeeded")
		if got := s.output(job, contracts.LogStdout); got != "done" {
			t.Errorf("%s printed %q", job, got)
		}
	}
	stop()
	s.clean()
}

// The other executor of a node goes on with what a dead one left, without a
// ready message that tells it to.
func TestARivalOnTheNodeAdopts(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.died("job", script("exit:0"), s.claim(), &contracts.Started{})
	s.exited("job", "out:done")
	alive, err := folder.Take(s.root, "job", 1)
	if err != nil {
		t.Fatal(err)
	}
	stop := s.start(nil)
	s.letGo(alive)
	types, _ := s.await("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "adopted", "succeeded")
	stop()
	s.clean()
}

// What the policy allowed when a container was created is not asked again, and
// one that is yet to be created is judged by today's policy.
func TestAChangedPolicyAndAdoption(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	host := t.TempDir()
	s.volumes = []string{host}
	s.died("begun", bound(script("exit:0"), host), s.claim(), &contracts.Started{})
	s.exited("begun")
	s.died("waiting", bound(script("exit:0"), host), s.claim())
	stop := s.start(nil)
	s.succeeds("begun")
	if failed := s.fails("waiting"); failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, "GANTRY_ALLOW_BIND") {
		t.Errorf("failed as %+v", failed)
	}
	stop()
	s.clean()
}

// A note that went down with its host leaves an attempt of which nobody knows
// where its files are: that is not the task's fault.
func TestAnAttemptWhoseNoteIsLostIsInfrastructure(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.died("job", script("exit:0"), s.claim(), &contracts.Started{})
	s.exited("job", "exit:137")
	mustWrite(t, filepath.Join(s.root, "attempts", "job.1", "attempt.json"), "")
	stop := s.start(nil)
	failed := s.awaitEntry("job", contracts.EntryFailed)
	if data := failed.Data.(*contracts.Failed); data.Kind != contracts.FailureInfrastructure || !strings.Contains(data.Message, "host went down") || !data.WillRetry {
		t.Errorf("failed as %+v", data)
	}
	stop()
	if n := s.containers(); n != 0 || len(s.folders()) != 0 {
		t.Errorf("%d containers and %v are left", n, s.folders())
	}
}
