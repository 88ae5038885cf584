package service_test

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

// Wherever the connection breaks, before a message reaches NATS or before its
// answer comes back, each job ends once, with everything said once.
func TestABrokenConnectionChangesNothing(t *testing.T) {
	patient(t)
	for name, verdict := range map[string]bustest.Verdict{"cut": bustest.Cut, "lost": bustest.LoseAnswer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.transfers(true, bringOrSend)
			breaks := &breaker{verdict: verdict, at: map[string]int{}}
			proxy := bustest.Start(t, s.server.Config())
			proxy.Judge(breaks.judge)
			stop := s.start(func(cfg *service.Config) { cfg.NATS, cfg.Slots = proxy.Config(), 8 })

			var jobs []contracts.JobID
			add := func(job contracts.JobID, subject string, n int) {
				jobs = append(jobs, job)
				breaks.add(subject, n)
			}
			for n := 1; n <= 5; n++ { // claimed, started, pushing, pushed, succeeded
				job := contracts.JobID(fmt.Sprintf("life-%d", n))
				add(job, contracts.LifeSubject(job), n)
			}
			add("log", contracts.LogHeadSubject("log"), 1)
			add("note", contracts.NotesSubject("note"), 1)
			add("step", ".step.1.in-0", 1)
			for _, job := range jobs {
				s.offer(job, outputTask())
			}
			for _, job := range jobs {
				types, end := s.await(job)
				sameTypes(t, types, "submitted", "queued", "claimed", "started", "pushing", "pushed", "succeeded")
				if end.Attempt != 1 || end.Crashes != 0 {
					t.Errorf("%s ended as %+v", job, end)
				}
				if got := s.output(job, contracts.LogStdout); got != "done\n" {
					t.Errorf("%s printed %q", job, got)
				}
			}
			if left := breaks.left(); len(left) != 0 {
				t.Errorf("the connection never broke at %v", left)
			}
			stop()
			s.clean()
		})
	}
}

// breaker breaks the connection once at the n-th message of each of a number of
// subjects, named by their end.
type breaker struct {
	verdict bustest.Verdict
	mu      sync.Mutex
	at      map[string]int
}

func (b *breaker) add(subject string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at[subject] = n
}

func (b *breaker) judge(subject string) bustest.Verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	for end := range b.at {
		if !strings.HasSuffix(subject, end) {
			continue
		}
		if b.at[end]--; b.at[end] == 0 {
			delete(b.at, end)
			return b.verdict
		}
	}
	return bustest.Pass
}

func (b *breaker) left() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.at)
}
