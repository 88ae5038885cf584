package conformance

// Section 4.7: what is put into Girder after a container ended.

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

func pathOf(path string) contracts.OutputPath {
	return contracts.OutputPath{VolumePath: contracts.VolumePath{Path: path}}
}

func output(spec contracts.OutputSpec) contracts.Output { return contracts.Output{OutputSpec: spec} }

// contents are the files of an item.
func (s *stage) contents(item string) map[string]string {
	s.t.Helper()
	all := map[string]string{}
	for _, file := range s.Girder.Files(item) {
		content, err := s.Girder.ReadFile(file.ID)
		if err != nil {
			s.t.Fatal(err)
		}
		if _, ok := all[file.Name]; ok {
			s.t.Errorf("two files are named %s", file.Name)
		}
		all[file.Name] = string(content)
	}
	return all
}

// treeOf says what is in a folder of Girder, as paths of files with contents.
func (s *stage) treeOf(folder string) []string {
	s.t.Helper()
	var all []string
	for _, item := range s.Girder.Items(folder) {
		for name, content := range s.contents(item.ID) {
			all = append(all, item.Name+"/"+name+"="+content)
		}
	}
	for _, below := range s.Girder.Folders(folder) {
		all = append(all, below.Name+"/")
		for _, path := range s.treeOf(below.ID) {
			all = append(all, below.Name+"/"+path)
		}
	}
	slices.Sort(all)
	return all
}

// 4.7 every output runs after exit code 0
func TestAllOutputsArriveAfterSuccess(t *testing.T) {
	s := start(t)
	one, two := s.Girder.Item("one"), s.Girder.Item("two")
	task := s.script(`echo 1 > "$1/one"; echo 2 > "$1/two"`, &contracts.TemporaryVolume{})
	task.Outputs = []contracts.Output{uploadTo(one, "one"), uploadTo(two, "two")}
	end := s.succeed(task)
	if got := end.entry.Data.(*contracts.Succeeded).Outputs; len(got) != 2 || got[0].ItemID != one.ID || got[1].ItemID != two.ID {
		t.Errorf("the job's outputs are %+v", got)
	}
	if s.contents(one.ID)["one"] != "1\n" || s.contents(two.ID)["two"] != "2\n" {
		t.Errorf("the items have %v and %v", s.contents(one.ID), s.contents(two.ID))
	}
}

// 4.7 no output after a failure
func TestNothingIsUploadedAfterAFailure(t *testing.T) {
	s := start(t)
	item := s.Girder.Item("nothing")
	task := s.script(`echo 1 > "$1"; exit 1`, volumePath("out"))
	task.Outputs = []contracts.Output{uploadTo(item, "out")}
	s.fail(task, "(1)")
	if got := s.contents(item.ID); len(got) > 0 {
		t.Errorf("the item has %v", got)
	}
}

// 4.7 upload to an item: a flat folder, files only
func TestTheFilesOfAFolderAreUploadedToAnItem(t *testing.T) {
	s := start(t)
	item := s.Girder.Item("flat")
	task := s.script(`mkdir -p "$1/below"; echo a > "$1/a.txt"; echo b > "$1/b.txt"; : > "$1/empty"; echo c > "$1/below/c.txt"`, volumePath("out"))
	task.Outputs = []contracts.Output{uploadTo(item, "out")}
	s.succeed(task)
	got := s.contents(item.ID)
	if len(got) != 3 || got["a.txt"] != "a\n" || got["b.txt"] != "b\n" || got["empty"] != "" {
		t.Errorf("the item has %v", got)
	}
}

// 4.7 upload_kwargs: the reference
func TestTheReferenceOfAnUploadReachesGirder(t *testing.T) {
	s := start(t)
	item := s.Girder.Item("referenced")
	task := s.script(`echo 1 > "$1"`, volumePath("out"))
	task.Outputs = []contracts.Output{output(&contracts.GirderUploadItem{
		Path: pathOf("out"), ItemID: item.ID, UploadKwargs: map[string]string{"reference": `{"job": "conformance-4711"}`},
	})}
	s.succeed(task)
	if !slices.ContainsFunc(s.Girder.Requests(), func(r girdersim.Request) bool {
		query, err := url.ParseQuery(r.Query)
		return err == nil && r.Method == http.MethodPost && strings.HasSuffix(r.Path, "/file") && query.Get("parentId") == item.ID &&
			query.Get("reference") == `{"job": "conformance-4711"}`
	}) {
		t.Error("no upload came with the reference")
	}
}

// makeTree makes a tree below $1, with a link to a folder in it.
const makeTree = `mkdir -p "$1/sub/deep" "$1/none"; echo a > "$1/a"; echo b > "$1/sub/b"; echo c > "$1/sub/deep/c"; ln -s sub "$1/link"; ln -s a "$1/alias"`

// 4.7 upload to a folder: recursive, sub-folders of the same name are used again, linked folders skipped
func TestAFolderIsUploadedWithAllThatIsInIt(t *testing.T) {
	s := start(t)
	parent := s.folder(s.Girder.Folder.ID, "uploaded")
	s.folder(parent.ID, "sub")
	task := s.script(makeTree, volumePath("out"))
	task.Outputs = []contracts.Output{output(&contracts.GirderUploadFolder{Path: pathOf("out"), FolderID: parent.ID})}
	s.succeed(task)
	got := s.treeOf(parent.ID)
	want := []string{"a/a=a\n", "none/", "sub/", "sub/b/b=b\n", "sub/deep/", "sub/deep/c/c=c\n"}
	if !slices.Equal(got, want) {
		t.Errorf("the folder has %q, want %q", got, want)
	}
}

// 4.7 upload to a folder: a file
func TestAFileIsUploadedToAFolder(t *testing.T) {
	s := start(t)
	parent := s.folder(s.Girder.Folder.ID, "of a file")
	task := s.script(`echo content > "$1"`, volumePath("out.txt"))
	task.Outputs = []contracts.Output{output(&contracts.GirderUploadFolder{Path: pathOf("out.txt"), FolderID: parent.ID})}
	s.succeed(task)
	if got := s.treeOf(parent.ID); !slices.Equal(got, []string{"out.txt/out.txt=content\n"}) {
		t.Errorf("the folder has %q", got)
	}
}

// 4.7 a missing path
func TestAnOutputThatIsNotThereIsAnErrorUnlessItMayBe(t *testing.T) {
	t.Run("must exist", func(t *testing.T) {
		s := start(t)
		task := s.command("true")
		task.Outputs = []contracts.Output{uploadTo(s.Girder.Item("missing"), "nowhere/out.txt")}
		s.fail(task, "nowhere/out.txt")
	})
	t.Run("may be missing", func(t *testing.T) {
		s := start(t)
		item, parent := s.Girder.Item("may be missing"), s.folder(s.Girder.Folder.ID, "folder that may be missing")
		task := s.command("true")
		task.Outputs = []contracts.Output{
			output(&contracts.GirderUploadItem{Path: pathOf("out"), ItemID: item.ID, MustExist: ptr(false)}),
			output(&contracts.GirderUploadFolder{Path: pathOf("out"), FolderID: parent.ID, MustExist: ptr(false)}),
		}
		s.succeed(task).wrote("")
		if len(s.contents(item.ID)) > 0 || len(s.treeOf(parent.ID)) > 0 {
			t.Error("something was uploaded")
		}
	})
}

// 4.7 delete_file
func TestAnUploadedFileIsDeletedOnlyWhenAsked(t *testing.T) {
	s := start(t)
	host := folder(t)
	item := s.Girder.Item("deleted")
	task := s.script(`echo 1 > /data/gone; echo 2 > /data/kept; mkdir -p /data/tree/deep; echo 3 > /data/tree/file; echo 4 > /data/tree/deep/file`)
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "rw")}
	on := func(path string) contracts.OutputPath {
		return contracts.OutputPath{VolumePath: contracts.VolumePath{Path: path, Volume: "data"}}
	}
	task.Outputs = []contracts.Output{
		output(&contracts.GirderUploadItem{Path: on("gone"), ItemID: item.ID, DeleteFile: true}),
		output(&contracts.GirderUploadItem{Path: on("kept"), ItemID: item.ID}),
		output(&contracts.GirderUploadFolder{Path: on("tree"), FolderID: s.folder(s.Girder.Folder.ID, "folder of deleted files").ID, DeleteFile: true}),
	}
	s.succeed(task)
	if got := s.contents(item.ID); len(got) != 2 {
		t.Errorf("the item has %v", got)
	}
	if got := entries(t, host); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("the folder has %q", got)
	}
}

// artifacts is a Girder that takes artifacts of jobs, which no release does: it
// passes all else on.
type artifacts struct {
	apiURL string

	mu   sync.Mutex
	got  map[string]string // content by "name (size)"
	jobs map[string]bool   // the Girder jobs that got some
}

func newArtifacts(s *stage) *artifacts {
	target, err := url.Parse(s.Girder.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	a := &artifacts{got: map[string]string{}, jobs: map[string]bool{}}
	pass := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/artifact") {
			pass.ServeHTTP(w, r)
			return
		}
		content, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		query := r.URL.Query()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.got[fmt.Sprintf("%s (%s)", query.Get("name"), query.Get("size"))] = string(content)
		a.jobs[strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/api/v1/job/"), "/artifact")] = true
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"_id": "5f0c00000000000000000000", "name": "artifact", "size": 1}`) //nolint:errcheck // the client may be gone
	}))
	s.t.Cleanup(server.Close)
	a.apiURL = server.URL + "/api/v1"
	return a
}

func (a *artifacts) taken() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.got)
}

// takers are the Girder jobs that got artifacts.
func (a *artifacts) takers() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.jobs))
}

// 4.7 job artifacts: a file, a flat folder, a name for a single file, a missing path
func TestArtifactsAreAttachedToTheJob(t *testing.T) {
	s := start(t)
	girder := newArtifacts(s)
	task := s.script(`mkdir -p "$1/many/below"; echo one > "$1/one"; echo two > "$1/two"; echo 3 > "$1/many/three"; echo 4 > "$1/many/four"; echo 5 > "$1/many/below/five"`,
		&contracts.TemporaryVolume{})
	task.Girder.APIURL = girder.apiURL
	task.Outputs = []contracts.Output{
		output(&contracts.GirderJobArtifact{Path: pathOf("one")}),
		output(&contracts.GirderJobArtifact{Path: pathOf("two"), Name: "second"}),
		output(&contracts.GirderJobArtifact{Path: pathOf("many"), Name: "not for folders"}),
		output(&contracts.GirderJobArtifact{Path: pathOf("missing")}),
	}
	end := s.succeed(task).wrote("")
	if jobs := girder.takers(); !slices.Equal(jobs, []string{end.girder.ID}) {
		t.Errorf("the Girder jobs %v got artifacts, want %s", jobs, end.girder.ID)
	}
	want := map[string]string{"one (4)": "one\n", "second (4)": "two\n", "three (2)": "3\n", "four (2)": "4\n"}
	if got := girder.taken(); !maps.Equal(got, want) {
		t.Errorf("Girder has the artifacts %q, want %q", got, want)
	}
}

// 4.7 upload_on_exception
func TestArtifactsOfAFailureAreAttachedWhereAsked(t *testing.T) {
	s := start(t)
	girder := newArtifacts(s)
	task := s.script(`echo why > "$1/debug"; echo other > "$1/other"; exit 6`, &contracts.TemporaryVolume{})
	task.Girder.APIURL = girder.apiURL
	task.Outputs = []contracts.Output{
		output(&contracts.GirderJobArtifact{Path: pathOf("debug"), UploadOnException: true}),
		output(&contracts.GirderJobArtifact{Path: pathOf("other")}),
	}
	s.fail(task, "(6)")
	if got := girder.taken(); !maps.Equal(got, map[string]string{"debug (4)": "why\n"}) {
		t.Errorf("Girder has the artifacts %q", got)
	}
}

// 4.7 a Girder that knows no artifacts costs a warning, never the job
func TestAGirderWithoutArtifactsCostsAWarning(t *testing.T) {
	s := start(t)
	task := s.script(`echo done; echo x > "$1"`, volumePath("debug"))
	task.Outputs = []contracts.Output{output(&contracts.GirderJobArtifact{Path: pathOf("debug")})}
	end := s.succeed(task)
	warnings := end.entry.Data.(*contracts.Succeeded).Warnings
	if len(warnings) != 1 || !strings.Contains(warnings[0], "artifact") {
		t.Errorf("the warnings are %q", warnings)
	}
	if log := setup.LogOf(end.girder); !strings.HasPrefix(log, "done\n") || len(warnings) == 1 && !strings.Contains(log, warnings[0]) {
		t.Errorf("Girder's log is %q", log)
	}
	if end.log != "done\n" {
		t.Errorf("the job's log is %q", end.log)
	}
}

// 4.7 cleanup runs after a failure of an output too
func TestAnOutputThatGirderRefusesIsTheTasksFailure(t *testing.T) {
	s := start(t)
	host := folder(t)
	task := s.script(`echo x > "$1/out"`, &contracts.VolumeRef{Volume: "scratch"})
	task.Docker.Volumes = []contracts.Volume{temporary("scratch", host)}
	out := &contracts.GirderUploadItem{Path: pathOf("out"), ItemID: strings.Repeat("0", 24)}
	out.Path.Volume = "scratch"
	task.Outputs = []contracts.Output{output(out)}
	s.fail(task, "item", strings.Repeat("0", 24))
	s.awaitNothing("temporary volumes", func() []string { return entries(t, host) })
}
