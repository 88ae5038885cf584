package conformance

// What a container leaves in the place of what is expected of it: nothing
// outside its volumes is read, uploaded, changed or removed.

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// outside is a folder of the host that no task is given, with a file in it.
type outside struct {
	t          *testing.T
	dir, file  string
	info, mode os.FileInfo
}

const precious = "precious: nobody gave this to a task"

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{t: t, dir: filepath.Join(t.TempDir(), "outside")}
	o.file = filepath.Join(o.dir, "file")
	if err := os.Mkdir(o.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.file, []byte(precious), 0o600); err != nil {
		t.Fatal(err)
	}
	o.info, o.mode = o.stat(o.file), o.stat(o.dir)
	return o
}

func (o *outside) stat(path string) os.FileInfo {
	o.t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		o.t.Fatal(err)
	}
	return info
}

// check fails the test if anything is not as it was.
func (o *outside) check() {
	o.t.Helper()
	if got := read(o.t, o.file); got != precious {
		o.t.Errorf("the file outside is %q", got)
	}
	if now := o.stat(o.file); now.Mode() != o.info.Mode() || !os.SameFile(now, o.info) {
		o.t.Errorf("the file outside is %v, and was %v", now.Mode(), o.info.Mode())
	}
	if now := o.stat(o.dir); now.Mode() != o.mode.Mode() || !slices.Equal(entries(o.t, o.dir), []string{"file"}) {
		o.t.Errorf("the folder outside is %v with %q, and was %v", now.Mode(), entries(o.t, o.dir), o.mode.Mode())
	}
}

// In the place of an output.
func TestWhatIsNoFileInThePlaceOfAnOutputIsAnError(t *testing.T) {
	for name, script := range map[string]string{
		"a link to a folder":           `ln -s "$2" "$1"`,
		"a link to a file":             `ln -s "$2/file" "$1"`,
		"a link to a file in a folder": `mkdir "$1"; ln -s "$2/file" "$1/a"; [ -L "$1/a" ]`,
		"a relative link":              `ln -s ../../../../../../../../../../../../..$2/file "$1"`,
		"a link that leads nowhere":    `ln -s /no/such/file "$1"`,
		"a pipe":                       `mkfifo "$1"`,
		"a device":                     `mknod "$1" c 1 5`,
		"a socket":                     `program socket "$1"`,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			o := newOutside(t)
			item := s.Girder.Item(strings.ReplaceAll(t.Name(), "/", ": "))
			parent := s.folder(s.Girder.Folder.ID, "folder of "+strings.ReplaceAll(t.Name(), "/", ": "))
			for i, spec := range []contracts.OutputSpec{
				&contracts.GirderUploadItem{Path: pathOf("out"), ItemID: item.ID, DeleteFile: true},
				&contracts.GirderUploadFolder{Path: pathOf("out"), FolderID: parent.ID, DeleteFile: true},
			} {
				task := s.script(script, volumePath("out"), o.dir)
				task.Outputs = []contracts.Output{output(spec)}
				end := s.run(task)
				// A link inside an uploaded folder is skipped, as Girder Worker skips it.
				if inside := strings.Contains(script, "mkdir"); !inside {
					end.failed(contracts.FailureTask, "out")
				}
				if t.Failed() {
					t.Fatalf("that was %T, output %d", spec, i)
				}
			}
			o.check()
			for _, line := range append(s.treeOf(parent.ID), fmt.Sprint(s.contents(item.ID))) {
				if strings.Contains(line, "precious") || strings.Contains(line, "root:") {
					t.Errorf("uploaded %q", line)
				}
			}
		})
	}
}

// In the place of a folder on the way to an output.
func TestALinkOnTheWayToAnOutputIsAnError(t *testing.T) {
	s := start(t)
	o := newOutside(t)
	item := s.Girder.Item("through a link")
	task := s.script(`ln -s "$2" "$1/way"`, &contracts.TemporaryVolume{}, o.dir)
	task.Outputs = []contracts.Output{uploadTo(item, "way/file")}
	s.fail(task, "way/file")
	o.check()
	if got := s.contents(item.ID); len(got) > 0 {
		t.Errorf("uploaded %v", got)
	}
}

// An artifact is an output too.
func TestALinkInThePlaceOfAnArtifactIsNotFollowed(t *testing.T) {
	s := start(t)
	o := newOutside(t)
	girder := newArtifacts(s)
	task := s.script(`ln -s "$2/file" "$1/debug"; mkdir "$1/many"; ln -s "$2/file" "$1/many/a"; echo b > "$1/many/b"; exit 3`, &contracts.TemporaryVolume{}, o.dir)
	task.Girder.APIURL = girder.apiURL
	task.Outputs = []contracts.Output{
		output(&contracts.GirderJobArtifact{Path: pathOf("many"), UploadOnException: true}),
		output(&contracts.GirderJobArtifact{Path: pathOf("debug"), UploadOnException: true}),
	}
	s.fail(task, "(3)")
	o.check()
	for name, content := range girder.taken() {
		if content != "b\n" {
			t.Errorf("uploaded %s: %q", name, content)
		}
	}
}

// In the place of a pipe of ours.
func TestALinkInThePlaceOfAPipeIsNotFollowed(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		pipe   contracts.Transform
	}{
		"a progress pipe": {`rm "$1"; ln -s "$2/file" "$1"`, &contracts.ProgressPipe{}},
		"an output pipe":  {`rm "$1"; ln -s "$2/file" "$1"`, outputPipe("out")},
		"a file":          {`rm "$1"; echo '{"current": 1}' > "$1"`, &contracts.ProgressPipe{}},
		"a folder":        {`rm "$1"; mkdir "$1"; echo x > "$1/x"`, &contracts.ProgressPipe{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			o := newOutside(t)
			end := s.run(s.script(c.script+"; echo done", c.pipe, o.dir))
			if !end.entry.Terminal() || !strings.Contains(end.log, "done\n") {
				t.Errorf("the job %s: %+v; its log is %q", end.entry.Type, end.entry.Data, end.log)
			}
			s.awaitNothing("folders", func() []string { return s.left(end.job) })
			o.check()
			if strings.Contains(end.log, "precious") {
				t.Errorf("the log is %q", end.log)
			}
		})
	}
}

// In the place of an input pipe that is being written: the container swaps it
// before it is opened again.
func TestALinkInThePlaceOfAnInputPipeIsNotWritten(t *testing.T) {
	s := start(t)
	o := newOutside(t)
	id, _ := s.bigFile(300000)
	end := s.run(s.script(`head -c 10 "$1" > /dev/null; rm "$1"; ln -s "$2/file" "$1"; sleep 1; echo done`, streamOf(id, "in"), o.dir))
	if !strings.Contains(end.log, "done\n") {
		t.Errorf("the job %s: %+v; its log is %q", end.entry.Type, end.entry.Data, end.log)
	}
	s.awaitNothing("folders", func() []string { return s.left(end.job) })
	o.check()
}

// In a temporary volume that is removed, and in its place in a folder of the host.
func TestCleaningUpFollowsNoLinks(t *testing.T) {
	t.Run("inside the volume", func(t *testing.T) {
		s := start(t)
		o := newOutside(t)
		end := s.succeed(s.script(`cd "$1"; ln -s "$2" all; ln -s "$2/file" one; ln -s / root; ln -s .. up; mkdir -p deep; ln -s "$2" deep/all; ln -s self self`,
			&contracts.TemporaryVolume{}, o.dir))
		s.awaitNothing("folders", func() []string { return s.left(end.job) })
		o.check()
	})
	t.Run("in place of a temporary volume", func(t *testing.T) {
		s := start(t)
		o := newOutside(t)
		host := folder(t)
		task := s.script(`for v in /host/gantry-*; do rmdir "$v" || mv "$v" /host/moved; ln -s "$1" "$v"; done; ls /host`, o.dir)
		task.Docker.Volumes = []contracts.Volume{bindMount("host", host, "/host", "rw"), temporary("scratch", host)}
		end := s.run(task)
		s.awaitNothing("folders", func() []string { return s.left(end.job) })
		o.check()
	})
}

// In the place of a whole volume, which another mount of the task shows.
func TestALinkInThePlaceOfAVolumeIsNotFollowed(t *testing.T) {
	s := start(t)
	o, host, item := newOutside(t), folder(t), s.Girder.Item("of a volume that is a link")
	task := s.script(`for v in /host/gantry-*; do mv "$v" /host/moved; ln -s "$1" "$v"; done`, o.dir)
	task.Docker.Volumes = []contracts.Volume{bindMount("host", host, "/host", "rw"), temporary("scratch", host)}
	out := &contracts.GirderUploadItem{Path: pathOf("file"), ItemID: item.ID, DeleteFile: true}
	out.Path.Volume = "scratch"
	task.Outputs = []contracts.Output{output(out)}
	end := s.fail(task)
	s.awaitNothing("folders", func() []string { return s.left(end.job) })
	o.check()
	if got := s.contents(item.ID); len(got) > 0 {
		t.Errorf("uploaded %v", got)
	}
}

// In the place of the folder of an input.
func TestInputsAreNotWrittenThroughLinks(t *testing.T) {
	s := start(t)
	o := newOutside(t)
	host := folder(t)
	if err := os.Symlink(o.dir, filepath.Join(host, "in")); err != nil {
		t.Fatal(err)
	}
	file := s.Girder.File("input", []byte("of Girder"))
	task := s.command("cat", &contracts.GirderFile{ID: file.ID, Volume: "data", Filename: "in/file"})
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "rw")}
	s.fail(task, "in")
	o.check()
}

// Names from Girder lead nowhere else.
func TestNamesFromGirderStayInTheVolume(t *testing.T) {
	s := start(t)
	for _, name := range []string{"..", "../../../escaped", "a/b", ".", "/etc/passwd"} {
		item := s.Girder.Item("item of " + fmt.Sprintf("%x", name))
		file, err := s.Girder.AddFile(item.ID, name, strings.NewReader("x"))
		if err != nil {
			t.Logf("Girder takes no file %q: %v", name, err)
			continue
		}
		end := s.succeed(s.script(`[ "$(cat "$1")" = x ] && [ "${1%/*}" = "$2/$3" ] && echo "$1"`,
			&contracts.GirderFile{ID: file.ID}, &contracts.TemporaryVolume{}, file.ID))
		if !strings.Contains(end.log, file.ID) {
			t.Errorf("%q became %q", name, end.log)
		}
	}
}

// A default volume belongs to one attempt alone.
func TestADefaultVolumeOfAnotherTaskIsOutOfReach(t *testing.T) {
	s := start(t)
	task := s.script(`ls /mnt/girder_worker | wc -l; ls -A "$1" | wc -l`, &contracts.TemporaryVolume{})
	other := s.submit(s.script(`touch "$1/of-another"; echo ready; sleep 1000`, &contracts.TemporaryVolume{}))
	s.AwaitLog(other, "ready")
	s.succeed(task).wrote("1\n0\n")
	s.revoke(other)
	if end := s.end(other); end.entry.Type != contracts.EntryCanceled || setup.LogOf(end.girder) != "ready\n" {
		t.Errorf("the other job %s with %q", end.entry.Type, end.log)
	}
}
