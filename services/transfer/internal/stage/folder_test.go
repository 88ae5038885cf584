package stage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	volumes "github.com/gantry-worker/gantry/services/internal/volume"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// toFolder is a stage out with small chunks.
func toFolder(f *fakeGirder, id girder.FolderID, volume, path string) Out {
	o := outOf(f, volume, path)
	o.Item, o.Folder = "", id
	return o
}

// plantOutputs makes a folder of results, and returns what Girder is to have of it.
func plantOutputs(t *testing.T, volume string) map[string]string {
	t.Helper()
	want := map[string]string{
		"a.csv": "0123456789", "empty": "", "sub/": "", "sub/a.csv": "other", "sub/deep er/": "", "sub/deep er/ü.txt": "deep", "none/": "",
	}
	for path, content := range want {
		if strings.HasSuffix(path, "/") {
			if err := os.MkdirAll(filepath.Join(volume, "out", path), 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, volume, "out/"+path, content)
	}
	return want
}

func TestStageOutAFileIntoAFolder(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	id := f.shelve("", "results")
	f.put(id, &fakeFile{doc: girder.File{ID: "old", Name: "r.csv", Size: size(3)}, data: []byte("old")})
	write(t, volume, "r.csv", "new")
	o := toFolder(f, id, volume, "r.csv")
	sent, err := o.Run(t.Context())
	if err != nil || len(sent) != 1 || sent[0].Name != "r.csv" || sent[0].Size != 3 {
		t.Fatal(sent, err)
	}
	if diff := cmp.Diff(map[string]string{"r.csv": "old", "r.csv (1)": "new"}, f.shelvedIn(id)); diff != "" {
		t.Error(diff)
	}
	o.Name = "named.bin"
	if sent, err := o.Run(t.Context()); err != nil || sent[0].Name != "named.bin" || f.shelvedIn(id)["named.bin"] != "new" {
		t.Error(sent, err)
	}
}

func TestStageOutAFolderOfFolders(t *testing.T) {
	t.Parallel()
	f, volume, outside := newFake(), t.TempDir(), t.TempDir()
	id := f.shelve("", "results")
	used := f.shelve(id, "sub")
	want := plantOutputs(t, volume)
	write(t, outside, "secret", "s")
	socket, err := net.Listen("unix", filepath.Join(volume, "out/socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	err = errors.Join(
		os.Symlink(outside, filepath.Join(volume, "out/sub/link")), os.Symlink("a.csv", filepath.Join(volume, "out/near")),
		syscall.Mkfifo(filepath.Join(volume, "out/pipe"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	var warnings []string
	var last int64
	o := toFolder(f, id, volume, "out")
	o.Reference = "mine"
	o.Warn = func(text string) { warnings = append(warnings, text) }
	o.Progress = func(_ string, done, total int64) {
		if total != 19 || done < last {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}
	sent, err := o.Run(t.Context())
	if err != nil || len(sent) != 4 || last != 19 {
		t.Fatal(sent, err, last)
	}
	if diff := cmp.Diff(want, f.shelvedIn(id)); diff != "" {
		t.Error(diff)
	}
	if len(f.shelves[used].items) != 1 {
		t.Error("the folder of the same name was not used")
	}
	slices.Sort(warnings)
	said := []string{
		"out/near was not uploaded: it is a symbolic link, which is not followed", "out/pipe was not uploaded: it is a named pipe",
		"out/socket was not uploaded: it is a socket", "out/sub/link was not uploaded: it is a symbolic link, which is not followed",
	}
	if diff := cmp.Diff(said, warnings); diff != "" {
		t.Error(diff)
	}
	if err := o.Delete(); err != nil || len(layout(t, volume)) != 0 || files(t, outside)["secret"] != "s" {
		t.Error(err, layout(t, volume))
	}
}

func TestStageOutOfWhatIsNoFile(t *testing.T) {
	t.Parallel()
	f, volume, outside := newFake(), t.TempDir(), t.TempDir()
	id := f.shelve("", "results")
	write(t, outside, "secret", "s")
	socket, err := net.Listen("unix", filepath.Join(volume, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	err = errors.Join(os.Symlink(outside, filepath.Join(volume, "out")), syscall.Mkfifo(filepath.Join(volume, "pipe"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		"out": volumes.ErrSymlink, "out/secret": volumes.ErrSymlink, "pipe": ErrNotRegular, "socket": ErrNotRegular, "none": ErrMissing, "../x": ErrLeavesVolume,
	} {
		f.asked = nil
		_, err := toFolder(f, id, volume, path).Run(t.Context())
		if !errors.Is(err, want) || !IsFailure(err) || !strings.Contains(err.Error(), strings.TrimSuffix(path, "/secret")) || f.count("start") != 0 {
			t.Errorf("%s: %v, asked %v", path, err, f.asked)
		}
	}
	o := toFolder(f, id, volume, "none")
	o.MustExist = false
	if sent, err := o.Run(t.Context()); err != nil || sent != nil || o.Delete() != nil {
		t.Error(sent, err)
	}
	if len(f.shelvedIn(id)) != 0 || files(t, outside)["secret"] != "s" {
		t.Error(f.shelvedIn(id))
	}
}

// TestStageOutOfWhatChanges changes a file, or removes it, before each request.
func TestStageOutOfWhatChanges(t *testing.T) {
	t.Parallel()
	for _, request := range []string{"start", "chunk 0", "chunk 8"} {
		for name, test := range map[string]struct {
			change func(path string) error
			want   error
		}{
			"other bytes": {func(path string) error {
				later := time.Now().Add(time.Hour) // that of the change itself may be too coarse to tell
				return errors.Join(os.WriteFile(path, []byte("9876543210"), 0o600), os.Chtimes(path, later, later))
			}, ErrChanged},
			"shorter": {func(path string) error { return os.Truncate(path, 5) }, ErrChanged},
			"longer":  {func(path string) error { return os.Truncate(path, 50) }, ErrChanged},
			"gone":    {os.Remove, ErrVanished},
			"another": {func(path string) error {
				return errors.Join(os.Rename(path, path+"2"), os.WriteFile(path, []byte("0123456789"), 0o600))
			}, ErrChanged},
		} {
			f, volume := newFake(), t.TempDir()
			id := f.shelve("", "results")
			plantOutputs(t, volume)
			path := filepath.Join(volume, "out/a.csv")
			f.hook = func(asked string) error {
				if asked == request {
					f.hook = nil
					return test.change(path)
				}
				return nil
			}
			for _, other := range []string{"sub", "empty"} { // so that it is the only one
				_ = os.RemoveAll(filepath.Join(volume, "out", other))
			}
			_, err := toFolder(f, id, volume, "out").Run(t.Context())
			if !errors.Is(err, test.want) || !IsFailure(err) || !strings.Contains(err.Error(), "a.csv") || len(f.uploads) != 0 {
				t.Errorf("%s at %s: %v, uploads %v", name, request, err, f.uploads)
			}
			if request != "chunk 8" && f.shelvedIn(id)["a.csv"] != "" {
				t.Errorf("%s at %s is in Girder", name, request)
			}
		}
	}
}

func TestStageOutOfAFileThatVanishesBeforeItsTurn(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	id := f.shelve("", "results")
	plantOutputs(t, volume)
	f.hook = func(asked string) error {
		if asked == "chunk 0" {
			return os.RemoveAll(filepath.Join(volume, "out/a.csv"))
		}
		return nil
	}
	_, err := toFolder(f, id, volume, "out").Run(t.Context())
	if !errors.Is(err, ErrVanished) && !errors.Is(err, ErrMissing) || !IsFailure(err) {
		t.Fatal(err)
	}
}

// TestStageOutIntoAFolderOnceWhateverIsLost loses every request and every
// answer in turn, once and twice.
func TestStageOutIntoAFolderOnceWhateverIsLost(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{
		"newest", "create folder", "create folder answered", "start", "start answered", "chunk 0", "chunk 0 answered", "chunk 4 answered",
		"chunk 8", "chunk 8 answered", "files 0",
	} {
		for times := 1; times <= 2; times++ {
			for after := range 4 {
				f, volume := newFake(), t.TempDir()
				id := f.shelve("", "results")
				f.put(id, &fakeFile{doc: girder.File{ID: "old", Name: "a.csv", Size: size(10)}, data: []byte("not of ours")})
				want := plantOutputs(t, volume)
				want["a.csv (1)"], want["a.csv"] = want["a.csv"], "not of ours"
				passed, left := after, times
				f.hook = func(asked string) error {
					if asked != lost {
						return nil
					}
					if passed--; passed >= 0 {
						return nil
					}
					if left--; left >= 0 {
						return errCut
					}
					return nil
				}
				sent, err := toFolder(f, id, volume, "out").Run(t.Context())
				if err != nil || len(sent) != 4 {
					t.Errorf("%s after %d, %d times: %v, %v", lost, after, times, sent, err)
				}
				if diff := cmp.Diff(want, f.shelvedIn(id)); diff != "" {
					t.Errorf("%s after %d, %d times:\n%s", lost, after, times, diff)
				}
			}
		}
	}
}

// TestALaterAttemptReplacesWhatIsKnownOfAnEarlierOne: where only the life of
// the job says what it was.
func TestALaterAttemptReplacesWhatIsKnownOfAnEarlierOne(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	id := f.shelve("", "results")
	want := plantOutputs(t, volume)
	o := toFolder(f, id, volume, "out")
	first, err := o.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	write(t, volume, "out/sub/a.csv", "another")
	want["sub/a.csv"] = "another"
	o.Before = append([]contracts.GirderSent{{Name: "a.csv", FileID: "gone", ItemID: "gone"}}, first...)
	again, err := o.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, f.shelvedIn(id)); diff != "" {
		t.Error(diff)
	}
	for i := range again {
		if again[i].FileID != first[i].FileID {
			t.Errorf("%+v instead of %+v", again[i], first[i])
		}
	}
}

// TestOtherBytesInAFolderAreReplaced: what Girder has in the end is compared.
func TestOtherBytesInAFolderAreReplaced(t *testing.T) {
	t.Parallel()
	for times, want := range map[int]error{1: nil, 5: ErrOtherBytes} {
		f, volume := newFake(), t.TempDir()
		id := f.shelve("", "results")
		f.spoil = times
		write(t, volume, "r", "0123456789")
		_, err := toFolder(f, id, volume, "r").Run(t.Context())
		if (err == nil) != (want == nil) || IsFailure(err) || len(f.shelves[id].items) != 1 {
			t.Errorf("spoiled %d times: %v, %v", times, err, f.shelvedIn(id))
		}
		if want == nil && f.shelvedIn(id)["r"] != "0123456789" {
			t.Error(f.shelvedIn(id))
		}
	}
}

func TestSimStageOutOfAFolderThroughErrors(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	plantOutputs(t, volume)
	write(t, volume, "out/sub/big", string(noise(11<<20)))
	dice := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	s.SetFault(func(*http.Request) *girdersim.Fault {
		mu.Lock()
		defer mu.Unlock()
		switch dice.IntN(8) {
		case 1:
			return &girdersim.Fault{Status: http.StatusTooManyRequests}
		case 3:
			return &girdersim.Fault{Perform: true, Close: true} // done, and nobody hears of it
		case 5:
			return &girdersim.Fault{Close: true}
		}
		return nil
	})
	o := Out{Sink: s.Client, Folder: girder.FolderID(s.item.FolderID), Volume: volume, Path: "out", MustExist: true, Retry: quick, Chunk: girder.MinChunk}
	sent, err := o.Run(t.Context())
	if err != nil || len(sent) != 5 {
		t.Fatal(sent, err)
	}
	got := map[string]int64{}
	s.collect(got, s.item.FolderID, "")
	want := map[string]int64{"a.csv": 10, "empty": 0, "sub/a.csv": 5, "sub/big": 11 << 20, "sub/deep er/ü.txt": 4, "none/": 0, "sub/": 0, "sub/deep er/": 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, file := range s.FilesIn(s.item.FolderID) {
		if file.Name == "a.csv" && file.MimeType != "text/csv" {
			t.Errorf("%+v", file)
		}
	}
}

// collect lists the files below a folder, with their size.
func (s *site) collect(into map[string]int64, id, at string) {
	for _, file := range s.FilesIn(id) {
		into[at+file.Name] += file.Size
		if n := len(into); n > 1000 {
			panic(fmt.Sprint(n, " files"))
		}
	}
	for _, folder := range s.Folders(id) {
		into[at+folder.Name+"/"] = 0
		s.collect(into, folder.ID, at+folder.Name+"/")
	}
}

func TestSimStageOutOfAFolderIsCanceled(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	plantOutputs(t, volume)
	ctx, cancel := context.WithCancelCause(t.Context())
	revoked := errors.New("revoked")
	var chunks atomic.Int32
	s.SetFault(func(r *http.Request) *girdersim.Fault {
		if strings.HasSuffix(r.URL.Path, "/chunk") && chunks.Add(1) == 2 {
			cancel(revoked)
			return &girdersim.Fault{Close: true}
		}
		return nil
	})
	o := Out{Sink: s.Client, Folder: girder.FolderID(s.item.FolderID), Volume: volume, Path: "out", Retry: quick}
	sent, err := o.Run(ctx)
	if !errors.Is(err, revoked) || IsFailure(err) || len(sent) >= 4 || s.OpenUploads() != 0 {
		t.Fatalf("%v, %v, %d uploads", sent, err, s.OpenUploads())
	}
}

// TestTheSameNameOfAnotherJob: a file of the same name and size that somebody
// else puts into the folder, while it is not known what became of ours, stays.
func TestTheSameNameOfAnotherJob(t *testing.T) {
	t.Parallel()
	for _, later := range []bool{false, true} {
		for lost, bytes := range map[string]string{"chunk 8": "0123456789", "chunk 8 answered": "0123456789", "chunk 0 answered": "012"} {
			foreign := strings.Repeat("f", len(bytes))
			f, volume := newFake(), t.TempDir()
			id := f.shelve("", "results")
			write(t, volume, "r", bytes)
			o := toFolder(f, id, volume, "r")
			var disk keeper
			o.Remember = disk.remember
			ctx, cancel := context.WithCancelCause(t.Context())
			f.hook = func(asked string) error {
				if asked != lost {
					return nil
				}
				f.hook = nil
				if later {
					cancel(ErrSuspended)
				}
				f.put(id, &fakeFile{doc: girder.File{ID: "foreign", Name: "r", Size: size(len(bytes))}, data: []byte(foreign)})
				return errCut
			}
			sent, err := o.Run(ctx)
			want := map[string]string{"r": bytes, "r (1)": foreign}
			if lost == "chunk 8" {
				want = map[string]string{"r": foreign, "r (1)": bytes}
			}
			if later {
				for upload := range f.uploads { // as who clears away after an attempt does
					err = errors.Join(err, f.CancelUpload(t.Context(), upload))
				}
				o.Memory, o.Remember = Memory{Earlier: []Memory{disk.Memory}}, nil
				sent, err = o.Run(t.Context())
			}
			if err != nil || len(sent) != 1 || sent[0].FileID == "foreign" {
				t.Errorf("%s is lost, later %v: %v, %v", lost, later, sent, err)
			}
			if diff := cmp.Diff(want, f.shelvedIn(id)); diff != "" {
				t.Errorf("%s is lost, later %v:\n%s", lost, later, diff)
			}
		}
	}
}
