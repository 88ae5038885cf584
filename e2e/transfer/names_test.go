package transfer

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// called are names in Girder, and what they are on disk, in one folder.
var called = []struct{ girder, disk string }{
	{"plain.txt", "plain.txt"},
	{"two words, a \"quote\" & 100 %.txt", "two words, a \"quote\" & 100 %.txt"},
	{"-rf", "-rf"},
	{"*.txt", "*.txt"},
	{"$(touch owned)", "$(touch owned)"},
	{"Case.txt", "Case.txt"},
	{"case.txt", "case.txt"},
	{"日本語 каталог 🗻.tif", "日本語 каталог 🗻.tif"},
	{"e\u0301tude", "e\u0301tude"},                                             // an accent of its own
	{"étude", "étude"},                                                         // a letter with it
	{strings.Repeat("é", 127) + "x", strings.Repeat("é", 127) + "x"},           // 255 bytes
	{strings.Repeat("ü", 140) + "x.tif", strings.Repeat("ü", 125) + ".tif"},    // cut to 254 bytes: the next would be half a letter
	{strings.Repeat("ü", 150) + ".tif", strings.Repeat("ü", 123) + " (1).tif"}, // equal to it when cut, and behind it in Girder
	{"..", "_.."},
	{"_..", "_.. (1)"},
	{".", "_."},
	{"../../etc/passwd", ".._.._etc_passwd"},
	{"/absolute", "_absolute"},
	{"a/b.tif", "a_b.tif"},
	{"a_b.tif", "a_b (1).tif"},
	{`\\host\share`, `_host\share`},
	{"bell\a and tab\t and \x7f.txt", "bell\a and tab\t and \x7f.txt"},
	{"two\nlines", "two\nlines"},
	{"nothing\x00in it", "nothing_in it"},
}

// TestNamesAreToldApartAndStayInside brings a folder of all those names to a
// volume, and takes it back to Girder under the names that it has there.
func TestNamesAreToldApartAndStayInside(t *testing.T) {
	t.Parallel()
	g := shared.Of(t)
	top := newFolder(g, g.Girder.Folder.ID, "names")
	want := map[string]string{}
	fill := func(folder girdersim.Folder, below string) {
		for i, name := range called {
			content := fmt.Sprintf("%s%d", below, i)
			item, err := g.Girder.CreateItem(folder.ID, name.girder)
			if err == nil {
				_, err = g.Girder.AddFile(item.ID, name.girder, strings.NewReader(content))
			}
			if err != nil {
				t.Fatalf("%q: %v", name.girder, err)
			}
			want[below+name.disk] = content
		}
	}
	fill(top, "")
	fill(newFolder(g, top.ID, ".. up"), ".. up/")
	fill(newFolder(g, top.ID, "sub/folder"), "sub_folder/")

	host, into := hostFolder(t), newFolder(g, g.Girder.Folder.ID, "names again")
	task := g.Shell(`test -d "$1"`, &contracts.GirderFolder{ID: top.ID, FolderName: "staged", Volume: "data"})
	task.Docker.Volumes = []contracts.Volume{atData(host)}
	back := uploadFolder(into, filepath.Join(top.ID, "staged"))
	back.OutputSpec.(*contracts.GirderUploadFolder).Path.Volume = "data"
	task.Outputs = []contracts.Output{back}
	task.Girder = g.Girder.Of("names")
	g.AwaitSuccess(g.MustSubmit(task))

	differ(t, "on disk", filesBelow(t, filepath.Join(host, top.ID, "staged")), want)
	differ(t, "in Girder again", filesInGirder(t, g.Girder.Server, into.ID), want)
	if names := entries(t, host); !slices.Equal(names, []string{top.ID}) {
		t.Errorf("on the volume are %q", names)
	}
}

// differ tells where two sets of files are not alike.
func differ(t *testing.T, where string, got, want map[string]string) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if content, ok := got[path]; !ok || content != want[path] {
			t.Errorf("%s %q is %q (%t), want %q", where, path, content, ok, want[path])
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[path]; !ok {
			t.Errorf("%s is %q with %q", where, path, got[path])
		}
	}
}

// filesBelow are the files below a folder, by path.
func filesBelow(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		found[strings.TrimPrefix(path, root+"/")] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// filesInGirder are the files below a folder there, by path. No name has a slash.
func filesInGirder(t *testing.T, sim *girdersim.Server, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, file := range sim.FilesIn(folder) {
		content, err := sim.ReadFile(file.ID)
		if _, twice := found[file.Name]; err != nil || twice || strings.Contains(file.Name, "/") {
			t.Fatalf("%+v: %v", file, err)
		}
		found[file.Name] = string(content)
	}
	for _, below := range sim.Folders(folder) {
		for path, content := range filesInGirder(t, sim, below.ID) {
			found[below.Name+"/"+path] = content
		}
	}
	return found
}

func entries(t *testing.T, folder string) []string {
	t.Helper()
	list, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	return names
}
