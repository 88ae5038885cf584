package conformance

// Section 4.12: images and how they come to the node.

import (
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/testport"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// pull is a task of an image of a registry, which prints its word.
func (s *stage) pull(ref string, policy contracts.PullPolicy) *contracts.Task {
	task := s.command("/word")
	task.Docker.Image, task.Docker.Pull, task.Docker.Entrypoint = ref, policy, nil
	s.t.Cleanup(func() { s.Engine.RemoveImage(ref) })
	return task
}

// 4.1 and 4.12 pull True; the digest is recorded
func TestAnImageIsPulledEveryTimeUnlessSaidOtherwise(t *testing.T) {
	s := start(t)
	r := newRegistry(t, s.Engine, "pulled "+t.Name())
	ref := r.ref("lab/always")
	asked := 0
	for range 2 {
		end := s.succeed(s.pull(ref, "")).wrote("pulled " + t.Name())
		if started := s.AwaitEntry(end.job, contracts.EntryStarted, 1).Data.(*contracts.Started); !strings.HasSuffix(started.ImageDigest, r.digest) {
			t.Errorf("the image's digest is %q, want %q", started.ImageDigest, r.digest)
		}
		if n := r.pullsOf("always"); n == asked {
			t.Errorf("the registry was asked %d times, and no further time for this task", n)
		} else {
			asked = n
		}
	}
}

// 4.12 pull 'if-not-present'
func TestAnImageIsPulledOnceWhereItIsMissing(t *testing.T) {
	s := start(t)
	r := newRegistry(t, s.Engine, "pulled "+t.Name())
	ref := r.ref("lab/missing")
	s.succeed(s.pull(ref, contracts.PullMissing)).wrote("pulled " + t.Name())
	n := r.pullsOf("missing")
	s.succeed(s.pull(ref, contracts.PullMissing)).wrote("pulled " + t.Name())
	if n == 0 || r.pullsOf("missing") != n {
		t.Errorf("the image was asked for %d times, then %d times", n, r.pullsOf("missing")-n)
	}
}

// 4.12 pull False
func TestAnImageThatIsMissingIsAnErrorWhereItMayNotBePulled(t *testing.T) {
	s := start(t)
	r := newRegistry(t, s.Engine, "x")
	ref := r.ref("lab/never")
	s.fail(s.pull(ref, contracts.PullNever), ref)
	if n := r.pullsOf("never"); n > 0 {
		t.Errorf("the image was asked for %d times", n)
	}
}

// 4.12 (SCW) an image by its digest
func TestAnImageMayBeNamedByItsDigest(t *testing.T) {
	s := start(t)
	r := newRegistry(t, s.Engine, "pulled "+t.Name())
	s.succeed(s.pull(r.host+"/lab/digest@"+r.digest, contracts.PullMissing)).wrote("pulled " + t.Name())
}

// 4.12 a pull that fails: an error that says which image, from where and why
func TestAPullThatFailsIsAnErrorThatSaysWhy(t *testing.T) {
	t.Run("not found", func(t *testing.T) {
		s := start(t)
		r := newRegistry(t, s.Engine, "x")
		ref := r.ref("nowhere/image")
		s.fail(s.pull(ref, contracts.PullAlways), ref, "not found")
	})
	t.Run("denied", func(t *testing.T) {
		s := start(t)
		r := newRegistry(t, s.Engine, "x")
		ref := r.ref("private/image")
		s.fail(s.pull(ref, contracts.PullAlways), ref, "denied")
	})
	t.Run("no registry", func(t *testing.T) {
		s := alone(t, setup.Config{Env: map[string]string{"GANTRY_PULL_TIMEOUT": "5s"}})
		address := testport.Address(t) // nobody listens there
		task := s.pull(address+"/lab/image:1", contracts.PullAlways)
		task.Retry = &contracts.Retry{MaxCrashes: ptr(0)}
		s.run(task).failed(contracts.FailureInfrastructure, address)
	})
}

// 4.12 one pull of an image at a time
func TestTasksOfOneImageSharePulls(t *testing.T) {
	s := start(t)
	r := newRegistry(t, s.Engine, "pulled "+t.Name())
	ref := r.ref("lab/shared")
	var jobs []contracts.JobID
	for range 4 {
		jobs = append(jobs, s.submit(s.pull(ref, contracts.PullMissing)))
	}
	for _, job := range jobs {
		s.end(job).succeeded().wrote("pulled " + t.Name())
	}
}
