package stage

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

// mountImage mounts a new file system of a kind that is made with a command.
func mountImage(t *testing.T, size int64, kind, options string, mkfs ...string) string {
	t.Helper()
	folder := t.TempDir()
	image, at := filepath.Join(folder, "image"), filepath.Join(folder, "mounted")
	file, err := os.Create(image)
	if err == nil {
		err = file.Truncate(size)
	}
	if err == nil {
		err = file.Close()
	}
	if err == nil {
		err = os.Mkdir(at, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs[0], append(mkfs[1:], image)...).CombinedOutput(); err != nil {
		t.Skipf("cannot make a file system here: %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-t", kind, "-o", options, image, at).CombinedOutput(); err != nil {
		t.Skipf("cannot mount it here: %v %s", err, out)
	}
	t.Cleanup(func() {
		unmount(t, func() error {
			out, err := exec.Command("umount", at).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			return err
		})
	})
	return at
}

// unmount tries until it works: a process that another test forks has what this
// one has open on the disk, until it runs its program.
func unmount(t *testing.T, try func() error) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(long); ; <-ticker.C {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Error(err)
			return
		}
	}
}

// TestStageInOnAVolumeThatIgnoresCase: nothing takes another's place.
func TestStageInOnAVolumeThatIgnoresCase(t *testing.T) {
	t.Parallel()
	volume := mountImage(t, 8<<20, "lowntfs-3g", "loop,ignore_case", "mkntfs", "-F", "-q", "-Q")
	f := newFake()
	top := f.folder("", "top")
	f.add(top, "a.txt", "a.txt", "small")
	f.add(top, "A.TXT", "A.TXT", "large")
	f.add(f.folder(top, "A.txt"), "x", "x", "in a folder", "X", "too")
	for range 2 {
		if _, err := (In{Source: f, Folder: top, Volume: volume, Retry: quick}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"a (1).txt": "large", "a (2).txt": "small", "a.txt/x/x": "too", "a.txt/x/x (1)": "in a folder"}
		got := map[string]string{}
		for path, content := range files(t, filepath.Join(volume, "folder0", "top")) {
			got[strings.ToLower(path)] = content // it does not keep case either
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	}
}

// strange are names that Girder may have.
var strange = []string{
	"plain.txt", "äöü 世界 🧬.tif", "e\u0301", "é", strings.Repeat("ä", 127) + "x", strings.Repeat("n", 255), strings.Repeat("n", 260) + ".tif",
	"..", ".", "_..", "../up", "a/b", "a_b", "/etc/passwd", `\\server\share`, `back\slash`, "tab\tand\nline\x01\x7f", "nul\x00", "nul_",
	" lead", "trail ", "dot.", "UPPER", "upper", "Upper", "-rf", "*?<>|:\"", "~", "$HOME `id`", ".hidden", ".gantry-x", "a (1).txt", "\u202egnp.exe", "\ufeffbom",
}

// TestSimNamesFromGirderToDiskAndBack: each file is told apart, stays inside, and
// comes back as a file of its own under the name that it had on the disk.
func TestSimNamesFromGirderToDiskAndBack(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	top, err := s.Server.CreateFolder(s.item.FolderID, "top", false)
	if err != nil {
		t.Fatal(err)
	}
	one, err := s.Server.CreateItem(top.ID, "all in one")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strange {
		if strings.TrimSpace(name) != name || strings.ContainsRune(name, 0) {
			continue // Girder has no item of such a name
		}
		item, err := s.Server.CreateItem(top.ID, name)
		if err == nil {
			_, err = s.AddFile(item.ID, name, strings.NewReader("item "+name))
		}
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	}
	for _, name := range strange {
		if _, err := s.AddFile(one.ID, name, strings.NewReader(name)); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	}
	staged, err := In{Source: s.Client, Folder: girder.FolderID(top.ID), FolderName: "in", Volume: volume, Retry: quick}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := files(t, filepath.Join(volume, staged.Path))
	var got, want []string
	for path, content := range all {
		if inOne, ok := strings.CutPrefix(path, "all in one/"); ok {
			got = append(got, content)
			if filepath.Base(inOne) != inOne || len(inOne) > maxName {
				t.Errorf("%q is at %q", content, path)
			}
		}
	}
	want = append(want, strange...)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// And back, into another folder.
	back, err := s.Server.CreateFolder(s.item.FolderID, "back", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Out{Sink: s.Client, Folder: girder.FolderID(back.ID), Volume: volume, Path: staged.Path, MustExist: true, Retry: quick}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	returned := t.TempDir()
	again, err := In{Source: s.Client, Folder: girder.FolderID(back.ID), FolderName: "in", Volume: returned, Retry: quick}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := files(t, filepath.Join(returned, again.Path))
	sent := map[string]string{}
	for path, content := range all {
		// An item's name has no space at its ends, so that its file is in a folder.
		folder, name := filepath.Split(path)
		if trimmed := strings.TrimSpace(name); trimmed != name {
			path = filepath.Join(folder, trimmed, name)
		}
		sent[path] = content
	}
	if diff := cmp.Diff(sent, found); diff != "" {
		t.Error(diff)
	}
}
