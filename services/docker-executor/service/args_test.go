package service_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
)

func TestArgumentsBecomeText(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	eng := &recorder{Engine: s.engine}
	s.start(func(cfg *service.Config) {
		cfg.Engine, cfg.AllowBind, cfg.HoldPatience = eng, []string{s.root}, time.Millisecond // there is no transfer
	})
	task := script("exit:0")
	task.Docker.Volumes = []contracts.Volume{{Name: "data", Type: contracts.VolumeBindMount, HostPath: s.root, ContainerPath: "/mnt/data", Mode: "ro"}}
	task.Docker.Args = append(task.Docker.Args,
		contracts.Arg{Text: "1.50"},
		contracts.Arg{Transform: &contracts.VolumePath{Path: "out/./result.csv"}},
		contracts.Arg{Transform: &contracts.VolumePath{Path: "x", Volume: "data"}},
		contracts.Arg{Transform: &contracts.VolumeRef{Volume: "data"}},
		contracts.Arg{Transform: &contracts.TemporaryVolume{}},
		contracts.Arg{Transform: &contracts.ProgressPipe{}},
	)
	s.offer("job", task)
	s.succeeds("job")
	spec := eng.only(t)
	bound, temporary := spec.Mounts[0], spec.Mounts[1]
	if bound.HostPath != s.root || bound.ContainerPath != "/mnt/data" || !bound.ReadOnly {
		t.Errorf("bind mount is %+v", bound)
	}
	if !strings.HasPrefix(temporary.ContainerPath, "/mnt/girder_worker/") || temporary.ReadOnly {
		t.Errorf("default volume is %+v", temporary)
	}
	root := temporary.ContainerPath
	want := []string{"exit:0", "1.50", root + "/out/result.csv", "/mnt/data/x", "/mnt/data", root, root + "/.girder_progress"}
	if strings.Join(spec.Args, "|") != strings.Join(want, "|") {
		t.Errorf("arguments are %q, want %q", spec.Args, want)
	}
}

func TestOptionsReachTheContainer(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	eng := &recorder{Engine: s.engine}
	s.start(func(cfg *service.Config) { cfg.Engine = eng })
	task := script("env:A")
	task.Docker.Entrypoint = contracts.Command{"/bin/sh", "/bin/script", "env:B"}
	task.Docker.Options = contracts.DockerOptions{
		Environment: contracts.Environment{"A": "1", "B": "two"}, MemLimit: 64 << 20, NanoCPUs: 5e8,
		NetworkMode: "none", User: "1000:7", WorkingDir: "/tmp", Labels: contracts.StringMap{"mine": "yes", "gantry.job": "forged", "gantry.keep": "forged"},
	}
	s.offer("job", task)
	s.succeeds("job")
	spec := eng.only(t)
	if o := spec.Options; o.MemLimit != 64<<20 || o.NanoCPUs != 5e8 || o.NetworkMode != "none" || o.User != "1000:7" || o.WorkingDir != "/tmp" || !o.InitOrDefault() {
		t.Errorf("container is made of %+v", spec)
	}
	for name, want := range map[string]string{"mine": "yes", "gantry.job": "job", "gantry.attempt": "1", "gantry.keep": ""} {
		if spec.Labels[name] != want {
			t.Errorf("label %s is %q, want %q", name, spec.Labels[name], want)
		}
	}
	if spec.Labels["gantry.installation"] == "" || !strings.HasPrefix(spec.Labels["gantry.executor"], "ex-") {
		t.Errorf("labels are %v", spec.Labels)
	}
	if got := s.output("job", contracts.LogStdout); got != "two\n1\n" {
		t.Errorf("container printed %q", got)
	}
}

func TestTheDefaultVolumeIsForEveryUser(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(nil)
	s.offer("job", script("hang"))
	s.awaitEntry("job", contracts.EntryStarted)
	volumes, err := filepath.Glob(filepath.Join(s.root, "attempts", "job.1", "volumes", "*"))
	if err != nil || len(volumes) != 1 {
		t.Fatalf("volumes are %v, error %v", volumes, err)
	}
	info, err := os.Stat(volumes[0])
	if err != nil || info.Mode().Perm() != 0o777 || info.Mode()&os.ModeSetgid == 0 {
		t.Errorf("mode is %v, error %v", info.Mode(), err)
	}
	s.revoke(contracts.Revoke{Job: "job"})
	s.await("job")
	stop()
	s.clean()
}

func TestPolicyAndBadTasksAreTheTasksFailure(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.engine.AddImage("other:1", nil)
	pipes := t.TempDir()
	file := filepath.Join(pipes, "pipe")
	mustWrite(t, file, "in the way")
	stop := s.start(func(cfg *service.Config) {
		cfg.AllowImages, cfg.AllowBind = []string{"gantry-fake:*", "absent:*"}, []string{s.root, pipes + ":rw"}
	})
	bind := func(host, mode string) func(*contracts.Task) {
		return func(task *contracts.Task) {
			task.Docker.Volumes = []contracts.Volume{{Name: "data", Type: contracts.VolumeBindMount, HostPath: host, ContainerPath: "/data", Mode: mode}}
		}
	}
	pipe := func(host string, transform *contracts.ProgressPipe) func(*contracts.Task) {
		return func(task *contracts.Task) {
			bind(host, "ro")(task)
			task.Docker.Args = append(task.Docker.Args, contracts.Arg{Transform: transform})
		}
	}
	for job, test := range map[contracts.JobID]struct {
		change func(*contracts.Task)
		says   string
	}{
		"image":   {func(task *contracts.Task) { task.Docker.Image = "other:1" }, "GANTRY_ALLOW_IMAGES=other:1"},
		"absent":  {func(task *contracts.Task) { task.Docker.Image = "absent:1" }, `the pull policy is "never"`},
		"write":   {bind(s.root, "rw"), "docker.volumes[0]"},
		"outside": {bind("/etc", "ro"), "GANTRY_ALLOW_BIND"},
		"network": {func(task *contracts.Task) { task.Docker.Options.NetworkMode = "host" }, "GANTRY_ALLOW_OPTIONS=network_mode=host"},
		"pipe":    {pipe(pipes, &contracts.ProgressPipe{Volume: "data", Name: "pipe"}), "docker.args[1]"},
		"made":    {pipe(s.root, &contracts.ProgressPipe{Volume: "data", Name: "pipe"}), "GANTRY_ALLOW_BIND=" + s.root + ":rw"},
		"program": {func(task *contracts.Task) { task.Docker.Entrypoint = contracts.Command{"/no/such"} }, "Non-zero exit code from docker container (127)."},
	} {
		task := script("exit:0")
		test.change(task)
		s.offer(job, task)
		failed := s.fails(job)
		if failed.Kind != contracts.FailureTask || failed.WillRetry || !strings.Contains(failed.Message, test.says) {
			t.Errorf("%s: failed as %+v, want it to say %q", job, failed, test.says)
		}
	}
	stop()
	s.clean()
	if data, err := os.ReadFile(file); err != nil || string(data) != "in the way" {
		t.Errorf("the file in a bind mount is %q, error %v", data, err)
	}
}

func TestImagesArePulledByPolicy(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for _, image := range []string{"always:1", "missing:1"} {
		s.engine.AddRemote(image, nil)
	}
	s.start(nil)
	for _, job := range []contracts.JobID{"a1", "a2"} {
		task := script("exit:0")
		task.Docker.Image, task.Docker.Pull = "always:1", ""
		s.offer(job, task)
		s.succeeds(job)
	}
	for _, job := range []contracts.JobID{"m1", "m2"} {
		task := script("exit:0")
		task.Docker.Image, task.Docker.Pull = "missing:1", contracts.PullMissing
		s.offer(job, task)
		s.succeeds(job)
	}
	if pulls := strings.Join(s.engine.Pulls(), " "); pulls != "always:1 always:1 missing:1" {
		t.Errorf("pulled %s", pulls)
	}
	started := s.awaitEntry("a1", contracts.EntryStarted).Data.(*contracts.Started)
	if !strings.HasPrefix(started.ImageDigest, "sha256:") || started.Container == "" {
		t.Errorf("started entry is %+v", started)
	}
	absent := script("exit:0")
	absent.Docker.Image, absent.Docker.Pull = fake.ScriptImage+"-absent", contracts.PullAlways
	s.offer("absent", absent)
	if failed := s.fails("absent"); failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, fake.ScriptImage+"-absent") {
		t.Errorf("failed as %+v", failed)
	}
}
