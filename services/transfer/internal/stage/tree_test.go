package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// layout lists everything below a folder: files with their content, folders with a slash.
func layout(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || path == folder {
			return err
		}
		rel := strings.TrimPrefix(path, folder+"/")
		if entry.IsDir() {
			found[rel+"/"] = ""
			return nil
		}
		data, err := os.ReadFile(path)
		found[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestStageInAnItem: as Girder's client lays it out, but that no file is lost
// where two have one name.
func TestStageInAnItem(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		item  string
		files []string
		path  string
		want  map[string]string
	}{
		"one file, same name":  {"one.txt", []string{"one.txt", "1"}, "item0/one.txt", map[string]string{"item0/one.txt": "1"}},
		"one file, other name": {"two", []string{"other.txt", "2"}, "item0/two", map[string]string{"item0/two/": "", "item0/two/other.txt": "2"}},
		"several": {"many", []string{"a", "1", "many", "2"}, "item0/many", map[string]string{
			"item0/many/": "", "item0/many/a": "1", "item0/many/many": "2",
		}},
		"none": {"none", nil, "item0/none", map[string]string{"item0/none/": ""}},
		"equal names": {"dups", []string{"same.txt", "1", "same.txt", "2", "same (1).txt", "3"}, "item0/dups", map[string]string{
			"item0/dups/": "", "item0/dups/same.txt": "1", "item0/dups/same (1).txt": "3", "item0/dups/same (2).txt": "2",
		}},
		"slash":       {"a/b", []string{"a/b", "1"}, "item0/a_b", map[string]string{"item0/a_b": "1"}},
		"outwards":    {"..", []string{"..", "1"}, "item0/_..", map[string]string{"item0/_..": "1"}},
		"traversal":   {"..", []string{"../x", "1", ".", "2"}, "item0/_..", map[string]string{"item0/_../": "", "item0/_../.._x": "1", "item0/_../_.": "2"}},
		"empty files": {"e", []string{"", ""}, "item0/e", map[string]string{"item0/e/": "", "item0/e/_": ""}},
	} {
		f, volume := newFake(), t.TempDir()
		id := f.add("", test.item, test.files...)
		staged, err := In{Source: f, Item: id, Volume: volume, Retry: quick}.Run(t.Context())
		if err != nil || staged.Path != test.path {
			t.Errorf("%s: %+v, %v", name, staged, err)
		}
		test.want["item0/"] = ""
		if diff := cmp.Diff(test.want, layout(t, volume)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// plantTree fills a fake with folders in folders.
func plantTree(f *fakeGirder) girder.FolderID {
	top := f.folder("", "top")
	sub := f.folder(top, "a/b")
	f.folder(top, "empty")
	f.add(top, "a_b", "a_b", "an item beside a folder of its name")
	f.add(top, "pair", "x", "x1", "y", "y22")
	deep := f.folder(f.folder(sub, ".."), "größe 世界")
	f.add(deep, "in.txt", "in.txt", "deep")
	for i := range 2*girder.PageSize + 3 {
		f.add(sub, fmt.Sprint(i), fmt.Sprint(i), fmt.Sprint("content ", i))
	}
	for range girder.PageSize {
		f.folder(deep, "z")
	}
	return top
}

func wantTree(at string) map[string]string {
	want := map[string]string{
		"a_b": "", "a_b/_..": "", "a_b/_../größe 世界": "", "empty": "", "pair": "",
		"a_b (1)": "an item beside a folder of its name", "pair/x": "x1", "pair/y": "y22", "a_b/_../größe 世界/in.txt": "deep",
	}
	for i := range 2*girder.PageSize + 3 {
		want[fmt.Sprint("a_b/", i)] = fmt.Sprint("content ", i)
	}
	want["a_b/_../größe 世界/z"] = ""
	for i := range girder.PageSize - 1 {
		want[fmt.Sprintf("a_b/_../größe 世界/z (%d)", i+1)] = ""
	}
	full := map[string]string{at[:strings.Index(at, "/")+1]: "", at + "/": ""}
	for path, content := range want {
		if content == "" {
			path += "/"
		}
		full[at+"/"+path] = content
	}
	return full
}

func TestStageInAFolder(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]string{"": "folder0/top", "mine": "folder0/mine"} {
		f, volume := newFake(), t.TempDir()
		top := plantTree(f)
		var mu sync.Mutex
		var last, want int64
		in := In{Source: f, Folder: top, FolderName: name, Volume: volume, Retry: quick, Progress: func(what string, done, total int64) {
			mu.Lock()
			defer mu.Unlock()
			if what != "top" || done < last || done > total {
				t.Errorf("progress %s, %d of %d after %d", what, done, total, last)
			}
			last = done
		}}
		staged, err := in.Run(t.Context())
		for _, content := range f.tree.contents {
			want += int64(len(content))
		}
		if err != nil || staged.Path != at || staged.Bytes != want || last != want {
			t.Fatal(staged, err, last, want)
		}
		if diff := cmp.Diff(wantTree(at), layout(t, volume)); diff != "" {
			t.Error(diff)
		}
	}
	for _, name := range []string{"../x", "/etc", ".."} {
		f, volume := newFake(), t.TempDir()
		_, err := In{Source: f, Folder: plantTree(f), FolderName: name, Volume: volume, Retry: quick}.Run(t.Context())
		if !errors.Is(err, ErrLeavesVolume) || !IsFailure(err) || len(f.asked) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStageInAFolderHasItsModes(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	if err := os.Chmod(volume, 0o777|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	if _, err := (In{Source: f, Folder: plantTree(f), Volume: volume, Retry: quick}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{
		"folder0": 0o777 | os.ModeSetgid | os.ModeDir, "folder0/top/a_b/_..": 0o777 | os.ModeSetgid | os.ModeDir,
		"folder0/top/pair": 0o777 | os.ModeSetgid | os.ModeDir, "folder0/top/pair/x": 0o644, "folder0/top/a_b/7": 0o644,
	} {
		info, err := os.Stat(filepath.Join(volume, path))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// TestStageInAFolderIsAllOrNothing ends a stage in at every kind of request.
func TestStageInAFolderIsAllOrNothing(t *testing.T) {
	t.Parallel()
	for _, request := range []string{"get folder", "folders 0", "items 0", "items 49", "files 0", "download 0"} {
		f, volume := newFake(), t.TempDir()
		top := plantTree(f)
		f.hook = fail(1, request, &girder.Error{Status: 403, Type: "access"})
		if _, err := (In{Source: f, Folder: top, Volume: volume, Retry: quick}).Run(t.Context()); !errors.Is(err, girder.ErrForbidden) || !IsFailure(err) {
			t.Errorf("%s: %v", request, err)
		}
		if left := files(t, volume); len(left) != 0 {
			t.Errorf("%s leaves %v", request, left)
		}
		f.hook = fail(3, request, errCut)
		if _, err := (In{Source: f, Folder: top, Volume: volume, Retry: quick}).Run(t.Context()); err != nil {
			t.Errorf("%s cut: %v", request, err)
		}
		if diff := cmp.Diff(wantTree("folder0/top"), layout(t, volume)); diff != "" {
			t.Errorf("%s:\n%s", request, diff)
		}
	}
}

// TestStageInAFolderGoesOnWhereverItDies lets the process die at many events in
// turn: the next one fetches no complete file again.
func TestStageInAFolderGoesOnWhereverItDies(t *testing.T) {
	t.Parallel()
	for events := 0; ; events += 41 {
		f, volume := newFake(), t.TempDir()
		in := In{Source: f, Folder: plantTree(f), Volume: volume, Retry: quick}
		var disk keeper
		run := newLife(t, events)
		f.hook = run.hook
		in.Remember = disk.remember
		_, err := in.Run(run)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrSuspended) {
			t.Fatal(err)
		}
		complete := 0
		for _, partial := range disk.Partials {
			if partial.Whole != nil {
				complete++
			}
		}
		f.hook, f.asked, in.Memory = nil, nil, disk.Memory
		if _, err := in.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wantTree("folder0/top"), layout(t, volume)); diff != "" {
			t.Errorf("%d events:\n%s", events, diff)
		}
		if n := f.count("download 0"); n > len(f.tree.contents)-complete {
			t.Errorf("%d events: %d downloads of %d files, %d were complete", events, n, len(f.tree.contents), complete)
		}
	}
}

// TestStageInAFolderChecksEveryFile: one of the wrong length spoils all.
func TestStageInAFolderChecksEveryFile(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func([]byte) []byte{
		"shorter": func(data []byte) []byte { return data[:1] },
		"longer":  func(data []byte) []byte { return append(data, 'x') },
	} {
		f, volume := newFake(), t.TempDir()
		top := plantTree(f)
		f.tree.contents["f-7"] = spoil(f.tree.contents["f-7"])
		_, err := In{Source: f, Folder: top, Volume: volume, Retry: impatient}.Run(t.Context())
		if !errors.Is(err, ErrIncomplete) || IsFailure(err) {
			t.Errorf("%s: %v", name, err)
		}
		if left := files(t, volume); len(left) != 0 {
			t.Errorf("%s leaves %v", name, left)
		}
	}
}

// TestStageInAFolderThroughAStall: a body that stands still is given up, and
// the rest asked for.
func TestStageInAFolderThroughAStall(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	data := noise(1 << 20)
	s.add(t, "big", bytes.NewReader(data))
	s.add(t, "small", strings.NewReader("s"))
	proxy, stalls := stalling(t, s.APIURL())
	c, err := girder.New(girder.Options{APIURL: proxy, Token: s.token, Retry: girder.Retry{Total: -1}, Idle: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	if _, err := (In{Source: c, Item: girder.ItemID(s.item.ID), Volume: volume, Retry: quick}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{s.item.ID + "/item/big": string(data), s.item.ID + "/item/small": "s"}
	if diff := cmp.Diff(want, files(t, volume)); diff != "" || stalls.Load() != 2 {
		t.Errorf("%d stalls, other files: %v", stalls.Load(), diff != "")
	}
}

// stalling starts a proxy that sends a third of the first two large downloads, and then nothing.
func stalling(t *testing.T, api string) (string, *atomic.Int32) {
	t.Helper()
	var stalls atomic.Int32
	done := make(chan struct{})
	transport := &http.Transport{DisableKeepAlives: true}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, err := url.Parse(api + strings.TrimPrefix(r.URL.Path, "/api/v1") + "?" + r.URL.RawQuery)
		if err != nil {
			t.Error(err)
		}
		out := r.Clone(r.Context())
		out.URL, out.Host, out.RequestURI = u, u.Host, ""
		resp, err := transport.RoundTrip(out)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
		for name, values := range resp.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(resp.StatusCode)
		if strings.HasSuffix(r.URL.Path, "/download") && resp.ContentLength > 1000 && stalls.Add(1) <= 2 {
			_, _ = io.CopyN(w, resp.Body, resp.ContentLength/3)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-done:
			}
			panic(http.ErrAbortHandler)
		}
		if stalls.Load() > 2 {
			stalls.Store(2)
		}
		_, _ = io.Copy(w, resp.Body)
	}))
	t.Cleanup(func() { close(done); server.Close() })
	return server.URL + "/api/v1", &stalls
}

func TestStageInAFolderOnAFullVolume(t *testing.T) {
	t.Parallel()
	volume := t.TempDir()
	if err := syscall.Mount("tmpfs", volume, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount a small volume here: %v", err)
	}
	t.Cleanup(func() { unmount(t, func() error { return syscall.Unmount(volume, 0) }) })
	f := newFake()
	top := f.folder("", "top")
	for i := range 20 {
		f.add(top, fmt.Sprint(i), "n", strings.Repeat("x", 30_000))
	}
	_, err := In{Source: f, Folder: top, Volume: volume, Retry: quick}.Run(t.Context())
	if !errors.Is(err, ErrNoSpace) || IsFailure(err) || !strings.Contains(err.Error(), "no space left") {
		t.Fatal(err)
	}
	if left := files(t, volume); len(left) != 0 {
		t.Fatalf("leaves %d files", len(left))
	}
}

func TestStageInAFolderOverALinkStaysInside(t *testing.T) {
	t.Parallel()
	f, volume, outside := newFake(), t.TempDir(), t.TempDir()
	top := plantTree(f)
	if err := errors.Join(os.MkdirAll(filepath.Join(volume, "folder0/top"), 0o777), os.Symlink(outside, filepath.Join(volume, "folder0/top/pair"))); err != nil {
		t.Fatal(err)
	}
	_, err := In{Source: f, Folder: top, Volume: volume, Retry: quick}.Run(t.Context())
	if !errors.Is(err, ErrLeavesVolume) || !IsFailure(err) || len(files(t, outside)) != 0 {
		t.Fatal(err)
	}
}

// TestSimStageInFetchesSeveralFilesAtATime: as many as it may, and no more.
func TestSimStageInFetchesSeveralFilesAtATime(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	for i := range 3 * fetchers {
		s.add(t, fmt.Sprint(i), bytes.NewReader(make([]byte, littleSize+1)))
	}
	together := make(chan struct{})
	var asked atomic.Int32
	s.SetFault(func(r *http.Request) *girdersim.Fault {
		if !strings.HasSuffix(r.URL.Path, "/download") {
			return nil
		}
		if asked.Add(1) == fetchers {
			// None of them has been answered. One more would come now or never.
			close(together)
		}
		return &girdersim.Fault{Hang: together}
	})
	most := 0
	in := In{Source: s.Client, Item: girder.ItemID(s.item.ID), Volume: volume, Retry: quick, Progress: func(string, int64, int64) {
		parts, err := filepath.Glob(filepath.Join(volume, s.item.ID, "item", ".gantry-*"))
		if err != nil {
			t.Error(err)
		}
		most = max(most, len(parts))
	}}
	if _, err := in.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(files(t, volume)); n != 3*fetchers || most < 1 || most > fetchers {
		t.Errorf("%d files, %d parts at a time", n, most)
	}
}

// TestSimStageInOfManySmallFiles takes what real folders are made of through a
// network that fails now and then.
func TestSimStageInOfManySmallFiles(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	top, err := s.Server.CreateFolder(s.item.FolderID, "top", false)
	if err != nil {
		t.Fatal(err)
	}
	const folders, each = 6, 60
	want := map[string]string{top.ID + "/": "", top.ID + "/top/": ""}
	for i := range folders {
		sub, err := s.Server.CreateFolder(top.ID, fmt.Sprint("sub ", i), false)
		if err != nil {
			t.Fatal(err)
		}
		want[fmt.Sprintf("%s/top/sub %d/", top.ID, i)] = ""
		for j := range each {
			name, content := fmt.Sprintf("n%d.txt", j), fmt.Sprintf("%d in %d", j, i)
			item, err := s.Server.CreateItem(sub.ID, name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.AddFile(item.ID, name, strings.NewReader(content)); err != nil {
				t.Fatal(err)
			}
			want[fmt.Sprintf("%s/top/sub %d/%s", top.ID, i, name)] = content
		}
	}
	var mu sync.Mutex
	requests := 0
	s.SetFault(func(*http.Request) *girdersim.Fault {
		mu.Lock()
		defer mu.Unlock()
		switch requests++; requests % 11 {
		case 3:
			return &girdersim.Fault{Status: http.StatusTooManyRequests}
		case 5:
			return &girdersim.Fault{Status: http.StatusInternalServerError}
		case 7:
			return &girdersim.Fault{Close: true}
		case 9:
			return &girdersim.Fault{CutAfter: 3}
		}
		return nil
	})
	staged, err := In{Source: s.Client, Folder: girder.FolderID(top.ID), Volume: volume, Retry: quick}.Run(t.Context())
	if err != nil || staged.Path != top.ID+"/top" {
		t.Fatal(staged, err)
	}
	if diff := cmp.Diff(want, layout(t, volume)); diff != "" {
		t.Error(diff)
	}
}

func TestSimStageInIsCanceledAmidAFolder(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	for i := range 20 {
		s.add(t, fmt.Sprint(i), strings.NewReader("content"))
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	revoked := errors.New("revoked")
	var once sync.Once
	s.SetFault(func(r *http.Request) *girdersim.Fault {
		if strings.HasSuffix(r.URL.Path, "/download") {
			once.Do(func() { cancel(revoked) })
		}
		return nil
	})
	_, err := In{Source: s.Client, Folder: girder.FolderID(s.item.FolderID), Volume: volume, Retry: quick}.Run(ctx)
	if !errors.Is(err, revoked) || len(files(t, volume)) != 0 {
		t.Fatal(err, files(t, volume))
	}
}

// TestStageInAFolderThatShrinks while its pages are read: what stays is there.
func TestStageInAFolderThatShrinks(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	top := f.folder("", "top")
	for i := range 2*girder.PageSize + 3 {
		f.add(top, fmt.Sprint(i), fmt.Sprint(i), "content")
	}
	f.hook = func(asked string) error {
		if asked == "items 0 answered" && len(f.tree.itemsOf[top]) == 2*girder.PageSize+3 {
			f.tree.itemsOf[top] = f.tree.itemsOf[top][1:]
		}
		return nil
	}
	if _, err := (In{Source: f, Folder: top, Volume: volume, Retry: quick}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(files(t, volume)); n != 2*girder.PageSize+2 {
		t.Errorf("%d files", n)
	}
}

// TestAGirderWithoutEnd is believed no longer at some time.
func TestAGirderWithoutEnd(t *testing.T) {
	t.Parallel()
	s := &staging{In: In{Retry: quick}}
	endless := func(offset int) ([]int, error) {
		page := make([]int, girder.PageSize)
		for i := range page {
			page[i] = offset + i
		}
		return page, nil
	}
	if _, err := pages(t.Context(), s, endless, strconv.Itoa); !errors.Is(err, ErrTooMany) || !IsFailure(err) {
		t.Error(err)
	}
	f, volume := newFake(), t.TempDir()
	top := f.folder("", strings.Repeat("d", maxName))
	f.tree.foldersOf[top] = []girder.Folder{f.tree.folders[top]} // it is in itself
	if _, err := (In{Source: f, Folder: top, Volume: volume, Retry: quick}).Run(t.Context()); !errors.Is(err, ErrBadName) || !IsFailure(err) {
		t.Error(err)
	}
}
