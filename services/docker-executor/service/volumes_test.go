package service_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// entries returns the names in a folder.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	return names
}

// TestATemporaryVolumeOfItsOwn: its folder is made with the mode that the task
// asks for, the volume in it is noted before it is made, seen by the container,
// and gone afterwards.
func TestATemporaryVolumeOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	eng := &recorder{Engine: s.engine}
	stop := s.start(func(cfg *service.Config) { cfg.Engine, cfg.AllowBind = eng, []string{s.root + ":rw"} })
	dir := filepath.Join(s.root, "scratch")
	task := script("hang")
	task.Docker.Volumes = []contracts.Volume{
		{Name: "far", Type: contracts.VolumeTemporary, HostDir: dir, Mode: "0750"}, {Name: "near", Type: contracts.VolumeTemporary},
	}
	task.Docker.Args = append(task.Docker.Args,
		contracts.Arg{Transform: &contracts.VolumeRef{Volume: "far"}}, contracts.Arg{Transform: &contracts.VolumePath{Volume: "near", Path: "x"}})
	s.offer("job", task)
	s.awaitEntry("job", contracts.EntryStarted)

	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("host_dir is %v, error %v", info, err)
	}
	made := entries(t, dir)
	if len(made) != 1 || !strings.HasPrefix(made[0], "gantry-") {
		t.Fatalf("host_dir has %v", made)
	}
	info, err := os.Stat(filepath.Join(dir, made[0]))
	if err != nil || info.Mode().Perm() != 0o777 || info.Mode()&fs.ModeSetgid == 0 {
		t.Errorf("the volume is %v, error %v", info, err)
	}
	mounts := eng.only(t).Mounts
	if len(mounts) != 3 || mounts[0].HostPath != filepath.Join(dir, made[0]) || !strings.HasPrefix(mounts[1].HostPath, s.root+"/attempts/") {
		t.Errorf("mounts are %+v", mounts)
	}
	args := eng.only(t).Args
	if args[1] != mounts[0].ContainerPath || args[2] != mounts[1].ContainerPath+"/x" || !strings.HasPrefix(args[1], "/mnt/girder_worker/") {
		t.Errorf("arguments are %q", args)
	}
	s.revoke(contracts.Revoke{Job: "job", Signal: "SIGKILL"})
	s.await("job")
	stop()
	s.clean()
	if left := entries(t, dir); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

// TestATemporaryVolumeNeedsThePolicy: its folder is one of the host.
func TestATemporaryVolumeNeedsThePolicy(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(func(cfg *service.Config) { cfg.AllowBind = []string{s.root} })
	for job, dir := range map[contracts.JobID]string{"read": filepath.Join(s.root, "new"), "outside": "/etc"} {
		task := script("exit:0")
		task.Docker.Volumes = []contracts.Volume{{Name: "t", Type: contracts.VolumeTemporary, HostDir: dir}}
		s.offer(job, task)
		if failed := s.fails(job); failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, "GANTRY_ALLOW_BIND="+dir+":rw") {
			t.Errorf("failed as %+v", failed)
		}
	}
	isGone(t, filepath.Join(s.root, "new"))
	stop()
	s.clean()
}

// TestALabelNeedsThePolicy: the engine writes it to all that is in the folder,
// also where the container may only read.
func TestALabelNeedsThePolicy(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	dir := t.TempDir()
	stop := s.start(func(cfg *service.Config) { cfg.AllowBind = []string{dir} })
	task := script("exit:0")
	task.Docker.Volumes = []contracts.Volume{{Type: contracts.VolumeBindMount, HostPath: dir, ContainerPath: "/x", Mode: "ro,z"}}
	s.offer("job", task)
	if failed := s.fails("job"); failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, "GANTRY_ALLOW_BIND="+dir+":rw") {
		t.Errorf("failed as %+v", failed)
	}
	stop()
	s.clean()
}

// TestATemporaryVolumeIsNotExchanged for a link to elsewhere, by a container that
// sees the folder above it, before it is mounted.
func TestATemporaryVolumeIsNotExchanged(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	dir, secret := t.TempDir(), t.TempDir()
	s.transfers(true, func(step contracts.Step) *contracts.StepResult {
		made := filepath.Join(dir, entries(t, dir)[0])
		if err := errors.Join(os.Rename(made, filepath.Join(dir, "away")), os.Symlink(secret, made)); err != nil {
			t.Error(err)
		}
		return &contracts.StepResult{Outcome: contracts.StepDone, Path: "file"}
	})
	eng := &recorder{Engine: s.engine}
	stop := s.start(func(cfg *service.Config) { cfg.Engine, cfg.AllowBind = eng, []string{dir + ":rw"} })
	task := script("exit:0")
	task.Docker.Volumes = []contracts.Volume{{Name: "far", Type: contracts.VolumeTemporary, HostDir: dir}}
	task.Docker.Args = append(task.Docker.Args, contracts.Arg{Transform: &contracts.GirderFile{ID: "id"}})
	task.Girder = &contracts.Girder{APIURL: "http://127.0.0.1:1/api/v1"}
	s.offer("job", task)
	if failed := s.fails("job"); failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, "something else") {
		t.Errorf("failed as %+v", failed)
	}
	if len(eng.made()) != 0 {
		t.Errorf("container got %+v", eng.made()[0].Mounts)
	}
	stop()
	s.clean()
	if left := entries(t, dir); !slices.Equal(left, []string{"away"}) {
		t.Errorf("left are %v", left)
	}
}

// TestAHostDirThatIsNone is the task's fault.
func TestAHostDirThatIsNone(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	file := filepath.Join(s.root, "file")
	mustWrite(t, file, "x")
	stop := s.start(func(cfg *service.Config) { cfg.AllowBind = []string{s.root + ":rw"} })
	task := script("exit:0")
	task.Docker.Volumes = []contracts.Volume{{Name: "t", Type: contracts.VolumeTemporary, HostDir: file}}
	s.offer("dir", task)
	pipe := script("exit:0")
	pipe.Docker.Args = append(pipe.Docker.Args, contracts.Arg{Transform: &contracts.NamedOutputPipe{Name: "p", HostPath: file, ContainerPath: "/x"}})
	s.offer("pipe", pipe)
	for _, job := range []contracts.JobID{"dir", "pipe"} {
		if failed := s.fails(job); failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, "not a directory") {
			t.Errorf("%s failed as %+v", job, failed)
		}
	}
	stop()
	s.clean()
}

// TestWhatACrashLeftInAHostDirIsRemoved, by whoever finds the attempt's folder;
// nothing but what has a temporary volume's name.
func TestWhatACrashLeftInAHostDirIsRemoved(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	dir := t.TempDir()
	for _, name := range []string{"gantry-left/deep", "precious"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, filepath.Join(dir, "gantry-left", "deep", "file"), "x")
	temporary := func(name string) folder.Volume {
		return folder.Volume{
			Name: "t", Kind: folder.TemporaryVolume, Host: filepath.Join(dir, name), Container: "/t", Asked: dir, Fields: []string{"docker.volumes[0]"},
		}
	}
	if err := os.Symlink(filepath.Join(dir, "precious"), filepath.Join(dir, "gantry-link")); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(dir, "gantry-file"), "in its place")
	mustWrite(t, filepath.Join(dir, "precious", "file"), "x")
	s.submit("job", script("exit:0"))
	s.abandon(folder.About{
		Job: "job", Attempt: 1, Executor: dead, Reply: "nobody", Container: "gantry-job-1",
		Volumes: []folder.Volume{temporary("gantry-left"), temporary("precious"), temporary("gantry-never-made"), temporary("gantry-link"), temporary("gantry-file")},
	})
	stop := s.start(nil)
	s.offer("next", script("exit:0")) // what is left is looked for before
	s.succeeds("next")
	stop()
	if left := entries(t, dir); !slices.Equal(left, []string{"precious"}) || len(entries(t, filepath.Join(dir, "precious"))) != 1 {
		t.Errorf("left are %v", left)
	}
	if len(s.folders()) != 0 {
		t.Errorf("folders are left: %v", s.folders())
	}
}

// TestVolumesOfEveryKind: without a name, with a label for SELinux, the
// operator's, whose place a task may take.
func TestVolumesOfEveryKind(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	eng := &recorder{Engine: s.engine}
	mine, theirs := t.TempDir(), t.TempDir()
	stop := s.start(func(cfg *service.Config) {
		cfg.Engine, cfg.AllowBind = eng, []string{mine + ":rw"} // labels are written
		cfg.RunOptions = `{"volumes":["` + theirs + `:/taken","` + theirs + `:/theirs:ro,z"]}`
	})
	task := script("exit:0")
	task.Docker.Volumes = []contracts.Volume{
		{Type: contracts.VolumeBindMount, HostPath: mine, ContainerPath: "/mine", Mode: "ro,Z"},
		{Type: contracts.VolumeBindMount, HostPath: mine, ContainerPath: "/taken/", Mode: "ro"},
	}
	s.offer("job", task)
	s.succeeds("job")
	mounts := eng.only(t).Mounts
	want := []engine.Mount{
		{HostPath: mine, ContainerPath: "/mine", ReadOnly: true, SELinux: "Z"}, {HostPath: mine, ContainerPath: "/taken", ReadOnly: true},
		mounts[2], {HostPath: theirs, ContainerPath: "/theirs", ReadOnly: true, SELinux: "z"},
	}
	if !slices.Equal(mounts, want) {
		t.Errorf("mounts are %+v", mounts)
	}
	stop()
	s.clean()
}

// TestANamedPipeBringsItsFolder, which is mounted unless a volume of the task is
// there already, and needs the policy's word.
func TestANamedPipeBringsItsFolder(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	pipe := contracts.Arg{Transform: &contracts.NamedOutputPipe{Name: "pipe", HostPath: dir, ContainerPath: "/pipes"}}
	bind := func(host string) []contracts.Volume {
		return []contracts.Volume{{Type: contracts.VolumeBindMount, HostPath: host, ContainerPath: "/pipes", Mode: "ro"}}
	}
	for name, test := range map[string]struct {
		allow   string
		volumes []contracts.Volume
		says    string
	}{
		"alone":           {allow: dir + ":rw"},
		"on a volume":     {allow: dir + ":rw", volumes: bind(dir)},
		"beside another":  {allow: "/:rw", volumes: bind(other), says: "another volume is mounted there"},
		"not allowed":     {allow: dir, says: "GANTRY_ALLOW_BIND=" + dir + ":rw"},
		"on one for read": {allow: dir, volumes: bind(dir), says: "GANTRY_ALLOW_BIND=" + dir + ":rw"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			eng := &recorder{Engine: s.engine}
			stop := s.start(func(cfg *service.Config) { cfg.Engine, cfg.AllowBind = eng, []string{test.allow} })
			task := script("exit:0")
			task.Docker.Volumes = test.volumes
			task.Docker.Args = append(task.Docker.Args, pipe)
			s.offer("job", task)
			if test.says != "" {
				if failed := s.fails("job"); failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, test.says) {
					t.Errorf("failed as %+v", failed)
				}
			} else {
				s.succeeds("job")
				spec := eng.only(t)
				if len(spec.Mounts) != 2 || spec.Mounts[0].HostPath != dir || spec.Mounts[0].ContainerPath != "/pipes" || spec.Args[1] != "/pipes/pipe" {
					t.Errorf("container is %+v", spec)
				}
			}
			stop()
			s.clean()
			if left := entries(t, dir); len(left) != 0 {
				t.Errorf("left are %v", left)
			}
		})
	}
}

// TestAFileIsMountedWhereItIs, read-only and without transfer; where it cannot
// be, it is downloaded.
func TestAFileIsMountedWhereItIs(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	eng := &recorder{Engine: s.engine}
	tr := s.transfers(true, bring)
	store := t.TempDir()
	mustWrite(t, filepath.Join(store, "blob"), "bytes")
	mustWrite(t, filepath.Join(s.root, "hidden"), "bytes")
	if err := fifo.Make(volume.Volume{Host: store}, "pipe"); err != nil {
		t.Fatal(err)
	}
	stop := s.start(func(cfg *service.Config) { cfg.Engine, cfg.AllowBind = eng, []string{store} })
	direct := func(id, path, name string) contracts.Arg {
		return contracts.Arg{Transform: &contracts.GirderFile{ID: id, DirectPath: path, Filename: name}}
	}
	task := script("cat:/mnt/girder_direct_worker/blob", "exit:0")
	task.Docker.Args = append(task.Docker.Args,
		direct("aa", store+"/blob", ""), direct("aa", store+"/blob", ""), direct("bb", store+"/blob", "in/slide.tif"),
		direct("cc", s.root+"/hidden", ""), direct("dd", store+"/pipe", ""), direct("ee", store+"/absent", ""))
	task.Girder = &contracts.Girder{APIURL: "http://127.0.0.1:1/api/v1"}
	s.offer("job", task)
	s.succeeds("job")
	spec := eng.only(t)
	const root = "/mnt/girder_direct_worker/"
	if got := spec.Args[2:5]; !slices.Equal(got, []string{root + "blob", root + "blob", root + "slide.tif"}) {
		t.Errorf("arguments are %q", got)
	}
	want := engine.Mount{HostPath: store + "/blob", ContainerPath: root + "blob", ReadOnly: true}
	if len(spec.Mounts) != 3 || spec.Mounts[0] != want || !spec.Mounts[1].ReadOnly {
		t.Errorf("mounts are %+v", spec.Mounts)
	}
	var fetched []string
	for _, step := range tr.asked() {
		fetched = append(fetched, step.FileID)
	}
	slices.Sort(fetched)
	if !slices.Equal(fetched, []string{"cc", "dd", "ee"}) {
		t.Errorf("downloaded are %v", fetched)
	}
	if got := s.output("job", contracts.LogStdout); got != "bytes" {
		t.Errorf("the container read %q", got)
	}
	stop()
	s.clean()
}

// TestItemsFoldersAndAccess: each comes by one step for one place, whoever's
// token names it first; URL and token become text.
func TestItemsFoldersAndAccess(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	eng := &recorder{Engine: s.engine}
	tr := s.transfers(true, func(step contracts.Step) *contracts.StepResult {
		return &contracts.StepResult{Outcome: contracts.StepDone, Path: step.ItemID + step.FolderID + "/first"}
	})
	stop := s.start(func(cfg *service.Config) { cfg.Engine, cfg.GirderAPIURL = eng, "http://inside:8080/api/v1" })
	task := script("exit:0")
	own := &contracts.GirderAccess{Token: "secret:io/docker.args[3].girder.token"}
	for _, transform := range []contracts.Transform{
		&contracts.GirderItem{ID: "aa"}, &contracts.GirderFolder{ID: "bb", FolderName: "f"}, &contracts.GirderItem{ID: "aa", Girder: own},
		&contracts.GirderFolder{ID: "bb"}, &contracts.GirderAPIURL{}, &contracts.GirderToken{},
	} {
		task.Docker.Args = append(task.Docker.Args, contracts.Arg{Transform: transform})
	}
	task.Girder = &contracts.Girder{APIURL: "http://outside/api/v1", Token: "secret:io/girder.token"}
	if err := s.bus.PutSecrets(s.ctx, "job", contracts.SecretContainer, contracts.Secrets{"girder.token": "tok"}); err != nil {
		t.Fatal(err)
	}
	s.offer("job", task)
	s.succeeds("job")
	spec := eng.only(t)
	root := spec.Mounts[0].ContainerPath
	if got := spec.Args[1:]; !slices.Equal(got, []string{root + "/aa/first", root + "/bb/first", root + "/aa/first", root + "/bb/first", "http://inside:8080/api/v1", "tok"}) {
		t.Errorf("arguments are %q", got)
	}
	for _, step := range tr.asked() {
		if step.Kind != contracts.StepStageIn || step.Girder.Token != "secret:io/girder.token" || step.ItemID == "" == (step.FolderID == "") {
			t.Errorf("step is %+v", step)
		}
	}
	if n := len(tr.asked()); n != 3 {
		t.Errorf("%d steps were asked for", n)
	}
	stop()
	s.clean()
}

// TestOutputsOfEveryKind: what each asks of transfer, artifacts after a failure
// where they are to be there, and what transfer warns of in the end.
func TestOutputsOfEveryKind(t *testing.T) {
	t.Parallel()
	path := contracts.OutputPath{VolumePath: contracts.VolumePath{Path: "out"}}
	outputs := []contracts.Output{
		{OutputSpec: &contracts.GirderUploadFolder{Path: path, FolderID: "folder", UploadKwargs: map[string]string{"reference": "ref"}, DeleteFile: true}},
		{OutputSpec: &contracts.GirderJobArtifact{Path: path, Name: "name"}},
		{OutputSpec: &contracts.GirderJobArtifact{Path: path, UploadOnException: true}},
	}
	for name, want := range map[string][]string{"exit:0": {"out-0", "out-1", "out-2"}, "exit:3": {"out-2"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			tr := s.transfers(true, func(step contracts.Step) *contracts.StepResult {
				return &contracts.StepResult{
					Outcome: contracts.StepDone, Files: []contracts.GirderSent{{Name: step.Step}}, Warnings: []string{"careful with " + step.Step},
				}
			})
			stop := s.start(nil)
			task := script(name)
			task.Outputs = outputs
			s.offer("job", task)
			_, end := s.await("job")
			var sent []contracts.GirderSent
			var warnings []string
			switch e := end.Data.(type) {
			case *contracts.Succeeded:
				sent, warnings = e.Outputs, e.Warnings
			case *contracts.Failed:
				sent, warnings = e.Outputs, e.Warnings
			}
			for i, step := range tr.asked() {
				if step.Step != want[i] || sent[i].Name != want[i] || warnings[i] != "careful with "+want[i] {
					t.Errorf("step %d is %+v, in Girder are %+v, with %q", i, step, sent, warnings)
				}
				switch step.Step {
				case "out-0":
					if step.FolderID != "folder" || step.Reference != "ref" || !step.DeleteFile || !step.MustExist || step.Artifact {
						t.Errorf("folder upload is %+v", step)
					}
				case "out-1":
					if !step.Artifact || step.Name != "name" || step.MustExist || step.Path != "out" {
						t.Errorf("artifact is %+v", step)
					}
				}
			}
			if n := len(tr.asked()); n != len(want) {
				t.Errorf("%d steps were asked for", n)
			}
			stop()
			s.clean()
		})
	}
}

// TestAnExecutorInAContainer hands out the host's names of its folders and its
// own network, and takes no work where the work folder is its container's alone.
func TestAnExecutorInAContainer(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	eng := &recorder{Engine: s.engine}
	host := filepath.Join(t.TempDir(), "host") // another name of the same folder
	if err := os.Symlink(s.root, host); err != nil {
		t.Fatal(err)
	}
	s.engine.SetSelf(&engine.Self{ID: "me", Mounts: []engine.SelfMount{{Source: host, Destination: s.root}}, Networks: []string{"lab", "other"}})
	stop := s.start(func(cfg *service.Config) { cfg.Engine, cfg.AllowBind = eng, []string{"/:rw"} })
	task := script("exit:0")
	task.Docker.Options.Mounts = []contracts.Mount{{Type: "bind", Source: s.root, Target: "/root"}, {Type: "tmpfs", Target: "/tmp"}}
	s.offer("job", task)
	s.succeeds("job")
	spec := eng.only(t)
	if mounts := spec.Options.Mounts; len(mounts) != 2 || mounts[0].Source != host || task.Docker.Options.Mounts[0].Source != s.root {
		t.Errorf("mounts are %+v", mounts)
	}
	if !strings.HasPrefix(spec.Mounts[0].HostPath, host+"/attempts/job.1/volumes/") || spec.Options.NetworkMode != "lab" {
		t.Errorf("container is %+v", spec)
	}
	elsewhere := script("exit:0")
	elsewhere.Docker.Volumes = []contracts.Volume{{Type: contracts.VolumeBindMount, HostPath: "/etc", ContainerPath: "/x", Mode: "ro"}}
	s.offer("elsewhere", elsewhere)
	if failed := s.fails("elsewhere"); failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, "runs in a container") {
		t.Errorf("failed as %+v", failed)
	}
	stop()
	s.clean()

	s.engine.SetSelf(&engine.Self{ID: "me", Mounts: []engine.SelfMount{{Source: "/x", Destination: "/y"}}})
	err := service.Run(s.ctx, s.config(s.server.Config()))
	if err == nil || !strings.Contains(err.Error(), "mount a folder of the host there") {
		t.Errorf("it ended with %v", err)
	}
}

// TestTheNetworkOfTasks: the operator's word about those that name none.
func TestTheNetworkOfTasks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ setting, task, want string }{
		{"none", "", ""}, {"named", "", "named"}, {"named", "none", "none"}, {"auto", "", "lab"}, {"auto", "bridge", "bridge"},
	} {
		s := newStage(t)
		eng := &recorder{Engine: s.engine}
		s.engine.SetSelf(&engine.Self{Mounts: []engine.SelfMount{{Source: "/", Destination: "/"}}, Networks: []string{"lab"}})
		stop := s.start(func(cfg *service.Config) { cfg.Engine, cfg.TaskNetwork = eng, test.setting })
		task := script("exit:0")
		task.Docker.Options.NetworkMode = test.task
		s.offer("job", task)
		s.succeeds("job")
		if got := eng.only(t).Options.NetworkMode; got != test.want {
			t.Errorf("%+v: %q", test, got)
		}
		stop()
	}
}

// TestAnEngineThatIsAwayAtTheStart is waited for.
func TestAnEngineThatIsAwayAtTheStart(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.engine.Fail(fake.CallSelf, &engine.Error{Op: "reach", Subject: "the engine", Kind: engine.ErrUnavailable}, 1)
	stop := s.start(nil)
	s.offer("job", script("exit:0"))
	s.succeeds("job")
	stop()
	s.clean()
}
