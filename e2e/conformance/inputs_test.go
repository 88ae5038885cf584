package conformance

// Section 4.4: transforms of arguments.

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// 4.4 what is no transform passes unchanged; 4.12 arguments become strings
func TestArgumentsThatAreNoTransformsPassUnchanged(t *testing.T) {
	s := start(t)
	job := s.publish(fmt.Sprintf(`{"docker": {"image": %q, "pull": "never", "entrypoint": ["sh", "-c", "for a in \"$@\"; do echo \"[$a]\"; done", "sh"],
		"args": ["two words", "", "$HOME", "*", "ünï", "line\nbreak", "--flag=\"x\"", 4, 4.50, -1e3, 12345678901234567890]}}`, s.image))
	s.end(job).succeeded().wrote("[two words]\n[]\n[$HOME]\n[*]\n[ünï]\n[line\nbreak]\n[--flag=\"x\"]\n[4]\n[4.50]\n[-1e3]\n[12345678901234567890]\n")
}

// 4.4 GirderFileIdToVolume: <container>/<id>/<name>, mode 0644
func TestAGirderFileIsBelowItsID(t *testing.T) {
	s := start(t)
	file := s.Girder.File("scan 1.tif", []byte("content"))
	lines := s.succeed(s.script(`echo "$1"; set -- "${1%/*/*}"; `+find, &contracts.GirderFile{ID: file.ID})).lines()
	root, ok := strings.CutSuffix(lines[0], "/"+file.ID+"/scan 1.tif")
	if !ok || !mounted.MatchString(root) || !slices.Equal(withoutSetGID(lines[1:]), []string{"d777 ./" + file.ID, "f644 ./" + file.ID + "/scan 1.tif=content"}) {
		t.Errorf("the log is %q", lines)
	}
}

// 4.4 with a filename: <host>/<filename>, no folder of the id, no question for the name
func TestAGirderFileIsWhereItsFilenameSays(t *testing.T) {
	s := start(t)
	file := s.Girder.File("scan.tif", []byte("content"))
	end := s.succeed(s.script(`echo "$1"; ls "$2"; cat "$1"`, &contracts.GirderFile{ID: file.ID, Filename: "in.tif"}, &contracts.TemporaryVolume{}))
	lines := end.lines()
	if root, ok := strings.CutSuffix(lines[0], "/in.tif"); !ok || !mounted.MatchString(root) || !slices.Equal(lines[1:], []string{"in.tif", "content"}) {
		t.Errorf("the log is %q", lines)
	}
}

// 4.4 an existing folder is tolerated: two files of one task, one of them twice
func TestAFileThatIsNeededTwiceIsFetchedOnce(t *testing.T) {
	s := start(t)
	one, two := s.Girder.File("one", []byte("1")), s.Girder.File("two", []byte("2"))
	s.succeed(s.script(`cat "$1" "$2" "$3"`, &contracts.GirderFile{ID: one.ID}, &contracts.GirderFile{ID: two.ID}, &contracts.GirderFile{ID: one.ID})).wrote("121")
	if n := s.downloads(one.ID); n != 1 {
		t.Errorf("it was fetched %d times", n)
	}
}

// downloads is how often a file was fetched.
func (s *stage) downloads(file string) int {
	n := 0
	for _, r := range s.Girder.Requests() {
		if r.Method == "GET" && strings.HasSuffix(r.Path, "/file/"+file+"/download") {
			n++
		}
	}
	return n
}

// tree makes a folder in Girder with items and folders in it.
func (s *stage) tree(name string) girdersim.Folder {
	s.t.Helper()
	top := s.folder(s.Girder.Folder.ID, name)
	s.item(top.ID, "one.txt", map[string]string{"one.txt": "1"})
	s.item(top.ID, "pair", map[string]string{"a": "A", "b": "B"})
	below := s.folder(top.ID, "below")
	s.item(below.ID, "deep.txt", map[string]string{"deep.txt": "deep"})
	s.folder(top.ID, "empty")
	return top
}

func (s *stage) folder(parent, name string) girdersim.Folder {
	s.t.Helper()
	folder, err := s.Girder.CreateFolder(parent, name, false)
	if err != nil {
		s.t.Fatal(err)
	}
	return folder
}

func (s *stage) item(folder, name string, files map[string]string) girdersim.Item {
	s.t.Helper()
	item, err := s.Girder.CreateItem(folder, name)
	if err != nil {
		s.t.Fatal(err)
	}
	for file, content := range files {
		if _, err := s.Girder.AddFile(item.ID, file, strings.NewReader(content)); err != nil {
			s.t.Fatal(err)
		}
	}
	return item
}

// find prints what is in a folder: kind and mode, path, content of files.
const find = `cd "$1" && find . -mindepth 1 | sort | while read -r p; do
	if [ -d "$p" ]; then echo "d$(stat -c %a "$p") $p"; else echo "f$(stat -c %a "$p") $p=$(cat "$p")"; fi; done`

var wholeTree = []string{
	"d777 ./below", "f644 ./below/deep.txt=deep", "d777 ./empty", "f644 ./one.txt=1", "d777 ./pair", "f644 ./pair/a=A", "f644 ./pair/b=B",
}

// 4.4 GirderFolderIdToVolume: recursive, folders 0777, files 0644
func TestAGirderFolderIsThereWithAllThatIsInIt(t *testing.T) {
	s := start(t)
	top := s.tree("study 7")
	end := s.succeed(s.script(`echo "$1"; `+find, &contracts.GirderFolder{ID: top.ID}))
	lines := end.lines()
	root, ok := strings.CutSuffix(lines[0], "/"+top.ID+"/study 7")
	if got := withoutSetGID(lines[1:]); !ok || !mounted.MatchString(root) || !slices.Equal(got, wholeTree) {
		t.Errorf("the log is %q", lines)
	}
}

// withoutSetGID takes the bit away that folders inherit from their volume.
func withoutSetGID(lines []string) []string {
	var all []string
	for _, line := range lines {
		all = append(all, strings.Replace(line, "d2777", "d777", 1))
	}
	return all
}

// 4.4 folder_name
func TestAGirderFolderMayHaveAnotherName(t *testing.T) {
	s := start(t)
	top := s.tree("study 8")
	end := s.succeed(s.script(`echo "$1"; `+find, &contracts.GirderFolder{ID: top.ID, FolderName: "input"}))
	lines := end.lines()
	if _, ok := strings.CutSuffix(lines[0], "/"+top.ID+"/input"); !ok || !slices.Equal(withoutSetGID(lines[1:]), wholeTree) {
		t.Errorf("the log is %q", lines)
	}
}

// 4.4 GirderItemIdToVolume: <container>/<id>/<first entry placed by the item's download>
func TestAGirderItemIsLaidOutAsGirdersClientDoesIt(t *testing.T) {
	for name, c := range map[string]struct {
		item  string
		files map[string]string
		path  string
		want  []string
	}{
		"one file named like the item": {"one.txt", map[string]string{"one.txt": "1"}, "one.txt", []string{"f644 ./one.txt=1"}},
		"one file of another name":     {"item", map[string]string{"file": "1"}, "item", []string{"d777 ./item", "f644 ./item/file=1"}},
		"several files": {"item", map[string]string{"x": "X", "y": "Y"}, "item",
			[]string{"d777 ./item", "f644 ./item/x=X", "f644 ./item/y=Y"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			item := s.item(s.folder(s.Girder.Folder.ID, t.Name()[len("TestAGirderItemIsLaidOutAsGirdersClientDoesIt/"):]).ID, c.item, c.files)
			end := s.succeed(s.script(`echo "$1"; set -- "${1%/*}"; `+find, &contracts.GirderItem{ID: item.ID}))
			lines := end.lines()
			root, ok := strings.CutSuffix(lines[0], "/"+item.ID+"/"+c.path)
			if !ok || !mounted.MatchString(root) || !slices.Equal(withoutSetGID(lines[1:]), c.want) {
				t.Errorf("the log is %q", lines)
			}
		})
	}
}

// 4.4 on a named volume
func TestInputsMayBeOnAnyVolume(t *testing.T) {
	s := start(t)
	host := folder(t)
	file := s.Girder.File("in", []byte("content"))
	task := s.script(`echo "$1"; cat "$1"`, &contracts.GirderFile{ID: file.ID, Volume: "data"})
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "rw")}
	s.succeed(task).wrote("/data/" + file.ID + "/in\ncontent")
}

// 4.4 a file that is not there, or not to be read, is the task's failure
func TestAnInputThatCannotBeHadIsAnErrorThatSaysWhich(t *testing.T) {
	t.Run("missing", func(t *testing.T) {
		s, missing := start(t), strings.Repeat("0", 24)
		s.fail(s.command("cat", &contracts.GirderFile{ID: missing}), missing)
	})
	t.Run("refused", func(t *testing.T) {
		s := start(t)
		file := s.Girder.File("private", []byte("x"))
		task := s.command("cat", &contracts.GirderFile{ID: file.ID, Girder: &contracts.GirderAccess{Token: "not a token of this Girder"}})
		s.fail(task, file.ID)
	})
}

// 4.4 an unknown kind of transform is refused by its name
func TestAnUnknownTransformIsRefusedByItsName(t *testing.T) {
	s := start(t)
	s.refused(fmt.Sprintf(`{"docker": {"image": %q, "args": ["x", {"type": "girder_blob", "id": "5f0c"}]}}`, s.image), "docker.args[1]", "girder_blob")
}

// 4.4 GirderApiUrl, GirderToken
func TestTheAPIURLAndTheTokenMayBeArguments(t *testing.T) {
	s := start(t)
	end := s.succeed(s.command("echo", "--api-url", &contracts.GirderAPIURL{}, "--girder-token", &contracts.GirderToken{}))
	end.wrote(fmt.Sprintf("--api-url %s --girder-token %s\n", s.Girder.APIURL(), s.Girder.DataAccess))
}

// 4.4 direct paths
func TestAFileThatTheNodeCanReadIsMountedAndNotFetched(t *testing.T) {
	s := start(t)
	host := folder(t)
	write(t, filepath.Join(host, "assetstore-17"), "from the assetstore")
	file := s.Girder.File("scan.tif", []byte("from Girder"))
	task := s.script(`echo "$1"; cat "$1"; if echo x > "$1"; then echo written; fi; ls -d /mnt/girder_worker/* | wc -l`,
		&contracts.GirderFile{ID: file.ID, DirectPath: filepath.Join(host, "assetstore-17")})
	end := s.succeed(task)
	if end.stdout != "/mnt/girder_direct_worker/assetstore-17\nfrom the assetstore1\n" {
		t.Errorf("stdout is %q", end.stdout)
	}
	if n := s.downloads(file.ID); n != 0 {
		t.Errorf("it was fetched %d times", n)
	}
	if got := read(t, filepath.Join(host, "assetstore-17")); got != "from the assetstore" {
		t.Errorf("the file of the assetstore is %q", got)
	}
}

// 4.4 direct paths beside volumes, in both of docker-py's forms
func TestADirectPathGoesWithVolumesOfEveryForm(t *testing.T) {
	for name, volumes := range map[string]string{"an object": `{%q: {"bind": "/data", "mode": "ro"}}`, "a list": `["%s:/data:ro"]`} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			host, data := folder(t), folder(t)
			write(t, filepath.Join(host, "blob"), "direct")
			write(t, filepath.Join(data, "f"), " bound")
			file := s.Girder.File("direct with "+name, []byte("from Girder"))
			job := s.publish(fmt.Sprintf(`{"docker": {"image": %q, "pull": "never", "args": ["cat", {"type": "girder_file", "id": %q, "direct_path": %q}, "/data/f"],
				"volumes": `+volumes+`}, "girder": {"api_url": %q, "token": %q}}`, s.image, file.ID, filepath.Join(host, "blob"), data, s.Girder.APIURL(), s.Girder.DataAccess))
			s.end(job).succeeded().wrote("direct bound")
			if n := s.downloads(file.ID); n != 0 {
				t.Errorf("it was fetched %d times", n)
			}
		})
	}
}

// 4.4 a direct path that leads nowhere: the file is fetched, and keeps its name
func TestADirectPathThatCannotBeReadIsNoHindrance(t *testing.T) {
	host := folder(t)
	if err := os.Symlink("/etc/passwd", filepath.Join(host, "link")); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"missing": filepath.Join(host, "missing"), "a folder": host, "not allowed": "/etc/passwd", "a link that leads out": filepath.Join(host, "link"),
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			file := s.Girder.File("scan of "+name+".tif", []byte("from Girder"))
			end := s.succeed(s.script(`echo "$1"; cat "$1"`, &contracts.GirderFile{ID: file.ID, DirectPath: path}))
			if !strings.HasSuffix(end.log, "/"+file.ID+"/scan of "+name+".tif\nfrom Girder") {
				t.Errorf("the log is %q", end.log)
			}
		})
	}
}
