package service_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
)

func kept(steps ...string) *contracts.Task {
	no := false
	task := script(steps...)
	task.Docker.RemoveContainer = &no
	return task
}

// TestAContainerIsKept, stopped, when the task asks for it, and is in the way of
// no later attempt, nor of one that wants its name.
func TestAContainerIsKept(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(nil)
	s.offer("plain", kept("exit:0"))
	s.succeeds("plain")
	named := kept("exit:3")
	named.Docker.Options.Name = "mine"
	named.Retry = &contracts.Retry{MaxFailures: 1}
	s.offer("named", named)
	s.queue(s.awaitEntry("named", contracts.EntryFailed), named, contracts.QueuedRetry)
	s.fails("named")
	s.offer("revoked", kept("hang"))
	s.awaitEntry("revoked", contracts.EntryStarted)
	s.revoke(contracts.Revoke{Job: "revoked"})
	s.await("revoked")
	stop()
	list, err := s.engine.List(s.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]string{}
	for _, c := range list {
		if c.State != engine.Exited || c.Labels["gantry.keep"] != "true" {
			t.Errorf("%s is %s with labels %v", c.Name, c.State, c.Labels)
		}
		left[c.Name] = c.Labels["gantry.attempt"]
	}
	if len(left) != 3 || left["gantry-plain-1"] != "1" || left["mine"] != "2" || left["gantry-revoked-1"] != "1" {
		t.Errorf("left are %v", left)
	}
	if len(s.folders()) != 0 {
		t.Errorf("folders are left: %v", s.folders())
	}
}

// TestAKeptContainerNeverRunsOn: whoever takes over from a node that is gone, or
// clears up, stops it.
func TestAKeptContainerNeverRunsOn(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	task := kept("exit:0")
	last := s.append("job", s.submit("job", task), &contracts.Queued{})
	last = s.append("job", last, &contracts.Claimed{Node: "elsewhere", Executor: dead})
	installation, err := s.bus.Installation(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.engine.Create(s.ctx, engine.Spec{Name: "gantry-job-1", Image: fake.ScriptImage, Args: []string{"hang"}, Labels: map[string]string{
		"gantry.installation": installation, "gantry.node": "elsewhere", "gantry.job": "job", "gantry.attempt": "1", "gantry.keep": "true",
	}})
	if err == nil {
		err = s.engine.Start(s.ctx, id)
	}
	if err != nil {
		t.Fatal(err)
	}
	last = s.append("job", last, &contracts.Failed{Kind: contracts.FailureInfrastructure, WillRetry: true})
	s.queue(last, task, contracts.QueuedRetry)
	stop := s.start(nil)
	s.succeeds("job")
	stop()
	list, err := s.engine.List(s.ctx, nil)
	if err != nil || len(list) != 2 || list[0].State != engine.Exited || list[1].State != engine.Exited {
		t.Errorf("containers are %+v, error %v", list, err)
	}
}

// TestLabelsOfAnImageKeepNothing: a container has those of its image too, unless
// it is given others.
func TestLabelsOfAnImageKeepNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.engine.AddImage("labelled:1", map[string]string{"gantry.keep": "true", "gantry.job": "other", "color": "red"})
	eng := &recorder{Engine: s.engine}
	stop := s.start(func(cfg *service.Config) { cfg.Engine = eng })
	task := script("exit:0")
	task.Docker.Image = "labelled:1"
	s.offer("job", task)
	s.succeeds("job")
	labels := eng.only(t).Labels
	keep, given := labels["gantry.keep"]
	if _, color := labels["color"]; !given || keep != "" || labels["gantry.job"] != "job" || color {
		t.Errorf("labels are %v", labels)
	}
	stop()
	s.clean()
}

// TestAContainerIsGoneBeforeItsJobIsTriedAgain: an engine that says nothing of it
// any more may still run it.
func TestAContainerIsGoneBeforeItsJobIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	away := &engine.Error{Op: "reach", Subject: "the engine", Kind: engine.ErrUnavailable}
	s.engine.Fail(fake.CallWait, away, 1)
	s.engine.Fail(fake.CallRemove, away, 2)
	stop := s.start(nil)
	s.offer("job", script("trap:TERM:0", "hang"))
	failed := s.awaitEntry("job", contracts.EntryFailed).Data.(*contracts.Failed)
	if n := s.containers(); n != 0 {
		t.Errorf("%d containers are there when the job is offered again", n)
	}
	if failed.Kind != contracts.FailureInfrastructure || !failed.WillRetry || strings.Count(failed.Message, "reach the engine") != 1 {
		t.Errorf("failed as %+v", failed)
	}
	stop()
	s.clean()
}

// TestTheWayToAGPU: a device request, the runtime for it, none; the last only
// where nobody but the image asks.
func TestTheWayToAGPU(t *testing.T) {
	t.Parallel()
	const labelled = "gpu:1"
	all := []contracts.DeviceRequest{{Count: -1, Capabilities: [][]string{{"gpu"}}}}
	one := []contracts.DeviceRequest{{Count: 1, Capabilities: [][]string{{"gpu"}}}}
	for name, test := range map[string]struct {
		image            string
		options          contracts.DockerOptions
		devices, runtime bool // that the engine has
		tried            []string
		fails            bool
	}{
		"no GPU":                     {image: fake.ScriptImage, devices: true, runtime: true, tried: []string{"plain"}},
		"label, devices":             {image: labelled, devices: true, runtime: true, tried: []string{"devices"}},
		"label, runtime alone":       {image: labelled, runtime: true, tried: []string{"devices", "nvidia"}},
		"label, nothing":             {image: labelled, tried: []string{"devices", "nvidia", "plain"}},
		"label, another runtime":     {image: labelled, options: contracts.DockerOptions{Runtime: "runc"}, devices: true, tried: []string{"runc"}},
		"asked, devices":             {image: fake.ScriptImage, options: contracts.DockerOptions{Runtime: "nvidia"}, devices: true, tried: []string{"devices"}},
		"asked, runtime alone":       {image: fake.ScriptImage, options: contracts.DockerOptions{Runtime: "nvidia"}, runtime: true, tried: []string{"devices", "nvidia"}},
		"asked, nothing":             {image: labelled, options: contracts.DockerOptions{Runtime: "nvidia"}, tried: []string{"devices", "nvidia"}, fails: true},
		"requests of the task":       {image: labelled, options: contracts.DockerOptions{DeviceRequests: one}, devices: true, tried: []string{"own"}},
		"requests, runtime, nothing": {image: labelled, options: contracts.DockerOptions{DeviceRequests: one}, runtime: true, tried: []string{"own"}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.engine.AddImage(labelled, map[string]string{"com.nvidia.volumes.needed": "nvidia_driver"})
			if test.devices {
				s.engine.AddDevices("gpu")
			}
			if test.runtime {
				s.engine.AddRuntime("nvidia")
			}
			eng := &recorder{Engine: s.engine}
			stop := s.start(func(cfg *service.Config) { cfg.Engine = eng })
			task := script("exit:0")
			task.Docker.Image, task.Docker.Options = test.image, test.options
			s.offer("job", task)
			if test.fails {
				if failed := s.fails("job"); failed.Kind != contracts.FailureTask {
					t.Errorf("failed as %+v", failed)
				}
			} else {
				s.succeeds("job")
			}
			var tried []string
			for _, spec := range eng.made() {
				tried = append(tried, wayOf(&spec, all, one))
			}
			if fmt.Sprint(tried) != fmt.Sprint(test.tried) {
				t.Errorf("tried were %v, want %v", tried, test.tried)
			}
			stop()
			s.clean()
		})
	}
}

func wayOf(spec *engine.Spec, all, one []contracts.DeviceRequest) string {
	requests, runtime := fmt.Sprint(spec.Options.DeviceRequests), spec.Options.Runtime
	switch {
	case requests == fmt.Sprint(all) && runtime == "":
		return "devices"
	case requests == fmt.Sprint(one) && runtime == "":
		return "own"
	case len(spec.Options.DeviceRequests) == 0 && runtime != "":
		return runtime
	case len(spec.Options.DeviceRequests) == 0:
		return "plain"
	default:
		return requests + runtime
	}
}

// TestAttemptsLeaveNothing while their executor lives: no goroutine, descriptor,
// container, folder, pipe or volume, however they end.
func TestAttemptsLeaveNothing(t *testing.T) { // not beside others, whose goroutines it would see
	s := newStage(t)
	s.transfers(true, s.bringSendOrHold)
	stop := s.start(func(cfg *service.Config) { cfg.AllowBind = []string{s.root + ":rw"} })
	for i := range 20 {
		for name, steps := range map[string][]string{"well": {"out:text\n", "exit:0"}, "badly": {"exit:3"}, "long": {"hang"}} {
			job := contracts.JobID(fmt.Sprintf("%s-%d", name, i))
			task := limited(time.Hour, time.Hour, steps...)
			task.Docker.Volumes = []contracts.Volume{{Name: "t", Type: contracts.VolumeTemporary, HostDir: s.root}}
			s.offer(job, task)
			if name == "long" {
				s.awaitEntry(job, contracts.EntryStarted)
				s.revoke(contracts.Revoke{Job: job})
			}
			s.await(job)
		}
	}
	for s.containers() != 0 || len(s.folders()) != 0 || s.messages(contracts.StreamReady) != 0 {
		runtime.Gosched() // the last attempt cleans up behind its end
	}
	for began := time.Now(); ; runtime.Gosched() {
		left := append(attempting(), opened(t, s.root)...)
		if len(left) == 0 {
			break
		}
		if time.Since(began) > patience {
			t.Fatalf("left are %q", left)
		}
	}
	for _, name := range entries(t, s.root) {
		if strings.HasPrefix(name, "gantry-") {
			t.Errorf("left is %s", name)
		}
	}
	stop()
	s.clean()
}

// attempting returns the stacks of goroutines that belong to attempts.
func attempting() (stacks []string) {
	all := make([]byte, 8<<20)
	all = all[:runtime.Stack(all, true)]
	for stack := range strings.SplitSeq(string(all), "\n\n") {
		if strings.Contains(stack, "internal/attempt.") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// opened returns the files below a folder that this process has open, but for
// the node's own.
func opened(t *testing.T, root string) (paths []string) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("no /proc here")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range list {
		path, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err == nil && strings.HasPrefix(path, root+"/attempts/") {
			paths = append(paths, path)
		}
	}
	return paths
}
