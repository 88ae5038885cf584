package stage

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestSimStageOutSendsSeveralFilesAtATime: as many as it may, and no more. Its
// results are in the order of the names all the same.
func TestSimStageOutSendsSeveralFilesAtATime(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	var names []string
	for i := range 3 * uploaders {
		names = append(names, fmt.Sprintf("%02d", i))
		write(t, volume, "out/"+names[i], "content "+names[i])
	}
	together := make(chan struct{})
	var asked atomic.Int32
	s.SetFault(func(r *http.Request) *girdersim.Fault {
		if !strings.HasSuffix(r.URL.Path, "/chunk") {
			return nil
		}
		if asked.Add(1) == uploaders {
			// None of them has been answered. One more would come now or never.
			close(together)
		}
		return &girdersim.Fault{Hang: together}
	})
	most := 0
	o := s.out(volume, "out")
	o.Progress = func(string, int64, int64) { most = max(most, s.OpenUploads()) }
	sent, err := o.Run(t.Context())
	if err != nil || most < 1 || most > uploaders {
		t.Fatalf("%d at a time, %v", most, err)
	}
	var told []string
	for _, one := range sent {
		told = append(told, one.Name)
	}
	if diff := cmp.Diff(names, told); diff != "" || len(s.Files(s.item.ID)) != len(names) {
		t.Error(diff)
	}
	if n := len(slices.DeleteFunc(s.Requests(), func(r girdersim.Request) bool { return !strings.HasSuffix(r.Path, "/files") })); n != 1 {
		t.Errorf("the item was listed %d times", n)
	}
}

// watched is what the progress of a Run says.
type watched struct {
	last, total, found, moved int64
}

func (w *watched) watch(t *testing.T, o *Out) {
	o.Found = func(bytes int64) {
		w.found += bytes
		w.moved -= bytes
	}
	o.Progress = func(what string, done, total int64) {
		if what != "out" || done < w.last || done > total {
			t.Errorf("%s: %d of %d after %d", what, done, total, w.last)
		}
		w.moved += done - w.last
		w.last, w.total = done, total
	}
}

// TestProgressOfAFolder grows to the total, whatever is sent again, and tells
// what was there before.
func TestProgressOfAFolder(t *testing.T) {
	t.Parallel()
	for events := range 40 {
		f, volume := newFake(), t.TempDir()
		id := f.shelve("", "results")
		plantOutputs(t, volume)
		var disk keeper
		o := toFolder(f, id, volume, "out")
		o.Remember = disk.remember
		run := newLife(t, events)
		f.hook = run.hook
		_, _ = o.Run(run) // which ends somewhere
		var was int64
		for _, sent := range disk.Sent {
			was += sent.File.Size
		}
		for _, upload := range f.uploads {
			was += int64(upload.data.Len())
		}
		f.hook, o.Memory = fail(2, "chunk 4 answered", errCut), disk.Memory
		var w watched
		w.watch(t, &o)
		sent, err := o.Run(t.Context())
		if err != nil || len(sent) != 4 || w.last != 19 || w.total != 19 || w.moved != 19-w.found {
			t.Errorf("%d events: %+v, %v", events, w, err)
		}
		if w.found < was { // or more, of what arrived without an answer
			t.Errorf("%d events: %d found, %d were there", events, w.found, was)
		}
	}
}

// TestProgressOfAFileThatGrows before its turn.
func TestProgressOfAFileThatGrows(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	plantOutputs(t, volume)
	f.hook = func(asked string) error {
		if asked == "create folder" { // before the files beside it
			return os.Truncate(filepath.Join(volume, "out/empty"), 7)
		}
		return nil
	}
	o := toFolder(f, f.shelve("", "results"), volume, "out")
	var w watched
	w.watch(t, &o)
	if sent, err := o.Run(t.Context()); err != nil || len(sent) != 4 || w != (watched{last: 26, total: 26, moved: 26}) {
		t.Fatalf("%+v, %v", w, err)
	}
}

// TestAFolderThatVanishes while what is in it is uploaded.
func TestAFolderThatVanishes(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	id := f.shelve("", "results")
	plantOutputs(t, volume)
	f.hook = func(asked string) error {
		if asked == "create folder" {
			return os.RemoveAll(filepath.Join(volume, "out/sub"))
		}
		return nil
	}
	_, err := toFolder(f, id, volume, "out").Run(t.Context())
	if !errors.Is(err, ErrVanished) || !IsFailure(err) || len(f.uploads) != 0 {
		t.Fatal(err)
	}
}

// TestAFileThatIsRemovedFromTheItem after that was listed is made anew.
func TestAFileThatIsRemovedFromTheItem(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	write(t, volume, "r", "old")
	if _, err := outOf(f, volume, "r").Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, volume, "r", "newer")
	f.hook = func(asked string) error {
		if asked == "replace" {
			f.item = nil
		}
		return nil
	}
	sent, err := outOf(f, volume, "r").Run(t.Context())
	if err != nil || len(sent) != 1 || f.contents()["r"] != "newer" || len(f.item) != 1 {
		t.Fatal(sent, err, f.contents())
	}
}

// TestARefusalThatIsAnEcho of a request that did arrive, as where it was
// delivered twice, ends nothing.
func TestARefusalThatIsAnEcho(t *testing.T) {
	t.Parallel()
	for _, chunk := range []string{"chunk 0 answered", "chunk 4 answered", "chunk 8 answered"} {
		f, volume := newFake(), t.TempDir()
		id := f.shelve("", "results")
		write(t, volume, "r", "0123456789")
		f.hook = fail(1, chunk, &girder.Error{Method: "POST", Path: "file/chunk", Status: 400, Message: "Invalid upload id (u)."})
		if sent, err := toFolder(f, id, volume, "r").Run(t.Context()); err != nil || len(sent) != 1 {
			t.Errorf("%s: %v", chunk, err)
		}
		if diff := cmp.Diff(map[string]string{"r": "0123456789"}, f.shelvedIn(id)); diff != "" {
			t.Errorf("%s:\n%s", chunk, diff)
		}
	}
}

// TestEveryFileHasItsTypeAndTheReference, new or replaced, empty or not.
func TestEveryFileHasItsTypeAndTheReference(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	want := map[string]string{
		"a.csv": "text/csv", "b.TIF": "image/tiff", "c": "application/octet-stream", "d.json": "application/json", "empty.txt": "text/plain",
	}
	for name := range want {
		write(t, volume, "out/"+name, strings.TrimPrefix(name, "empty.txt"))
	}
	o := s.out(volume, "out")
	o.Reference = "mine & yours"
	for range 2 {
		if _, err := o.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	for _, file := range s.Files(s.item.ID) {
		got[file.Name] += file.MimeType
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	begun := 0
	for _, r := range s.Requests() {
		if r.Method == http.MethodPost && strings.HasSuffix(r.Path, "/file") || r.Method == http.MethodPut {
			begun++
			if !strings.Contains(r.Query, "reference=mine+%26+yours") {
				t.Errorf("%s %s?%s", r.Method, r.Path, r.Query)
			}
		}
	}
	if begun != 2*len(want) {
		t.Errorf("%d uploads", begun)
	}
}

// TestDeleteAfterSeveralAtATime removes what was sent, and nothing else.
func TestDeleteAfterSeveralAtATime(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	write(t, volume, "other", "stays")
	for i := range 3 * uploaders {
		write(t, volume, fmt.Sprintf("out/sub %d/n", i%3)+fmt.Sprint(i), "content")
	}
	o := toFolder(f, f.shelve("", "results"), volume, "out")
	if sent, err := o.Run(t.Context()); err != nil || len(sent) != 3*uploaders {
		t.Fatal(sent, err)
	}
	if err := o.Delete(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"other": "stays"}, files(t, volume)); diff != "" {
		t.Error(diff)
	}
}

// TestSimALargeFileInAFolder has chunks of which the last is short, and is
// hashed beside; each byte is sent once.
func TestSimALargeFileInAFolder(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	data := noise(40 << 20)
	if err := os.WriteFile(filepath.Join(volume, "r.bin"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	o := s.out(volume, "r.bin")
	o.Item, o.Folder = "", girder.FolderID(s.item.FolderID)
	sent, err := o.Run(t.Context())
	sum := sha512.Sum512(data)
	if err != nil || len(sent) != 1 || sent[0].SHA512 != hex.EncodeToString(sum[:]) {
		t.Fatal(sent, err)
	}
	var offsets []string
	for _, r := range s.Requests() {
		if _, offset, ok := strings.Cut(r.Query, "offset="); ok && strings.HasSuffix(r.Path, "/chunk") {
			offsets = append(offsets, strings.Split(offset, "&")[0])
		}
	}
	if diff := cmp.Diff([]string{"0", fmt.Sprint(36 << 20)}, offsets); diff != "" {
		t.Error(diff)
	}
	file, err := s.ReadFile(sent[0].FileID)
	if err != nil || !bytes.Equal(file, data) {
		t.Error("other bytes", err)
	}
}

// TestSimChunksThatAreTooLarge for a proxy before Girder get shorter, for every
// file after too. Where it takes not even the least, the error says what to do.
func TestSimChunksThatAreTooLarge(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	data := noise(12 << 20)
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(volume, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var limit, refused atomic.Int64
	limit.Store(7 << 20)
	s.SetFault(func(r *http.Request) *girdersim.Fault {
		if r.ContentLength <= limit.Load() {
			return nil
		}
		refused.Add(1)
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		return &girdersim.Fault{Status: http.StatusRequestEntityTooLarge, Body: "<html>413", ContentType: "text/html"}
	})
	sent, err := s.out(volume, "a").Run(t.Context())
	if err != nil || len(sent) != 1 || refused.Load() != 1 {
		t.Fatal(sent, err, refused.Load())
	}
	if file, err := s.ReadFile(sent[0].FileID); err != nil || !bytes.Equal(file, data) {
		t.Error("other bytes", err)
	}
	limit.Store(1 << 20)
	_, err = s.out(volume, "b").Run(t.Context())
	if err == nil || !IsFailure(err) || !strings.Contains(err.Error(), "requests of 5 MiB") || s.OpenUploads() != 0 {
		t.Errorf("%v, %d uploads", err, s.OpenUploads())
	}
}

// TestContentIsHashedBeside whoever reads it, in pieces of any size, and from
// the start again.
func TestContentIsHashedBeside(t *testing.T) {
	t.Parallel()
	data := noise(3*besides + 12345)
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sum := sha512.Sum512(data)
	for _, piece := range []int{1000, 4096, blockSize, blockSize + 1, 3 * blockSize} {
		c := newContent(file, int64(len(data)))
		for range 2 {
			half := int64(len(data) / 2)
			for _, span := range [][2]int64{{0, half}, {half / 2, half}, {half, int64(len(data)) - half}} {
				r := c.chunk(span[0], span[1], func(int64) {})
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, piece)); err != nil {
					t.Fatal(err)
				}
			}
			if c.checksum() != hex.EncodeToString(sum[:]) {
				t.Errorf("another checksum in pieces of %d", piece)
			}
			c.restart()
		}
		if err := c.hashTo(5); err != nil { // and what follows beside
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c.chunk(0, int64(len(data)), func(int64) {})); err != nil || c.checksum() != hex.EncodeToString(sum[:]) {
			t.Errorf("another checksum behind what was hashed before: %v", err)
		}
		c.close()
	}
}

// TestNotesOfOneRunAreNotAnothers: what a Run is told to know does not change
// while it goes on.
func TestNotesOfOneRunAreNotAnothers(t *testing.T) {
	t.Parallel()
	var m Memory
	m.Add(Note{Sent: &Sent{Path: "a", File: contracts.GirderSent{FileID: "f"}}})
	c := m.Clone()
	m.Add(Note{Pending: &Pending{Path: "b", ID: "u"}})
	m.Add(Note{Sent: &Sent{Path: "c"}})
	if len(c.Sent) != 1 || len(c.Pending) != 0 || c.Sent["a"].File.FileID != "f" {
		t.Errorf("%+v", c)
	}
}
