package stage

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/services/internal/girder"
	volumes "github.com/gantry-worker/gantry/services/internal/volume"
)

// outOf is a stage out with small chunks.
func outOf(f *fakeGirder, volume, path string) Out {
	return Out{Sink: f, Item: "item", Volume: volume, Path: path, MustExist: true, Chunk: 4, Retry: quick}
}

func write(t *testing.T, volume, path, content string) {
	t.Helper()
	name := filepath.Join(volume, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func (f *fakeGirder) contents() map[string]string {
	found := map[string]string{}
	for _, file := range f.item {
		found[file.doc.Name] += string(file.data)
	}
	return found
}

func TestStageOutAFile(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	write(t, volume, "out/result.csv", "0123456789")
	var last int64
	o := outOf(f, volume, "out/result.csv")
	o.Progress = func(_ string, done, total int64) {
		if total != 10 || done < last {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}
	sent, err := o.Run(t.Context())
	if err != nil || len(sent) != 1 || last != 10 {
		t.Fatal(sent, err, last)
	}
	sum := sha512.Sum512([]byte("0123456789"))
	if s := sent[0]; s.Name != "result.csv" || s.FileID != string(f.item[0].doc.ID) || s.ItemID != "item" || s.Size != 10 || s.SHA512 != hex.EncodeToString(sum[:]) {
		t.Errorf("%+v", s)
	}
	if diff := cmp.Diff([]string{"list", "start", "chunk 0", "chunk 4", "chunk 8"}, f.asked); diff != "" {
		t.Error(diff)
	}
	if f.item[0].doc.MIMEType != "text/csv" || f.contents()["result.csv"] != "0123456789" {
		t.Errorf("%+v", f.item[0])
	}
}

func TestStageOutAFolderFlat(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	want := map[string]string{"a.txt": "aaaaa", "b.bin": ""}
	write(t, volume, "out/a.txt", "aaaaa")
	write(t, volume, "out/b.bin", "")
	write(t, volume, "out/deeper/c.txt", "not this one")
	if err := errors.Join(os.Symlink("a.txt", filepath.Join(volume, "out/link")), syscall.Mkfifo(filepath.Join(volume, "out/pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	o := outOf(f, volume, "out")
	var warnings []string
	o.Warn = func(text string) { warnings = append(warnings, text) }
	sent, err := o.Run(t.Context())
	if err != nil || len(sent) != 2 {
		t.Fatal(sent, err)
	}
	if diff := cmp.Diff(want, f.contents()); diff != "" {
		t.Error(diff)
	}
	said := []string{
		"out/link was not uploaded: it is a symbolic link, which is not followed", "out/pipe was not uploaded: it is a named pipe",
	}
	if diff := cmp.Diff(said, warnings); diff != "" {
		t.Error(diff)
	}
	if err := o.Delete(); err != nil || len(files(t, volume)) != 0 {
		t.Error(err, files(t, volume))
	}
	if err := o.Delete(); err != nil {
		t.Error("deleting twice:", err)
	}
}

func TestStageOutReplacesTheSameName(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"old bytes", "new bytes", "longer than before", ""} {
		f, volume := newFake(), t.TempDir()
		write(t, volume, "r", "old bytes")
		first, err := outOf(f, volume, "r").Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		write(t, volume, "r", content)
		again, err := outOf(f, volume, "r").Run(t.Context())
		if err != nil || again[0].FileID != first[0].FileID || f.count("replace") != 1 {
			t.Errorf("%q: %+v after %+v, %v", content, again, first, err)
		}
		if diff := cmp.Diff(map[string]string{"r": content}, f.contents()); diff != "" {
			t.Error(diff)
		}
	}
}

// TestStageOutOnceWhateverIsLost loses every request and every answer in turn:
// the item has the file exactly once, with the right bytes.
func TestStageOutOnceWhateverIsLost(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"0123456789", ""} {
		for _, replace := range []bool{false, true} {
			for _, lost := range []string{
				"list", "start", "start answered", "replace", "replace answered", "offset", "offset answered",
				"chunk 0", "chunk 0 answered", "chunk 4", "chunk 4 answered", "chunk 8", "chunk 8 answered",
			} {
				for times := 1; times <= 2; times++ {
					name := fmt.Sprintf("%d bytes, replace %v, %s lost %d times", len(content), replace, lost, times)
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						loseAndCheck(t, content, replace, lost, times)
					})
				}
			}
		}
	}
}

func loseAndCheck(t *testing.T, content string, replace bool, lost string, times int) {
	f, volume := newFake(), t.TempDir()
	if replace {
		write(t, volume, "r", strings.Repeat("x", len(content))) // of the same size
		if _, err := outOf(f, volume, "r").Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	write(t, volume, "r", content)
	f.hook = fail(times, lost, errCut)
	if strings.HasPrefix(lost, "offset") {
		one, other := fail(1, "chunk 4", errCut), fail(times, lost, errCut)
		f.hook = func(request string) error { return errors.Join(one(request), other(request)) }
	}
	var disk keeper
	o := outOf(f, volume, "r")
	o.Remember = disk.remember
	sent, err := o.Run(t.Context())
	if err != nil || len(sent) != 1 || sent[0].FileID != string(f.item[0].doc.ID) {
		t.Fatal(sent, err)
	}
	if diff := cmp.Diff(map[string]string{"r": content}, f.contents()); diff != "" || len(f.item) != 1 {
		t.Errorf("%d files:\n%s", len(f.item), diff)
	}
	sum := sha512.Sum512([]byte(content))
	if sent[0].SHA512 != hex.EncodeToString(sum[:]) {
		t.Error("wrong checksum")
	}
	if sent := f.count("start") + f.count("replace"); strings.HasPrefix(lost, "chunk 8 answered") && len(content) > 0 {
		if want := 1; !replace && sent != want || replace && sent != want+1 {
			t.Errorf("a complete file was uploaded again: %d uploads", sent)
		}
	}
	if len(disk.Pending) != 0 || disk.Sent["r"].File != sent[0] {
		t.Errorf("remembered: %+v", disk.Memory)
	}
}

func TestStageOutEndsWithNothingUnfinished(t *testing.T) {
	t.Parallel()
	revoked := errors.New("revoked")
	for name, test := range map[string]struct {
		err     error
		cancel  bool
		failure bool
	}{
		"refused":  {err: &girder.Error{Status: 403, Type: "access"}, failure: true},
		"400":      {err: &girder.Error{Status: 400, Message: "Chunk is smaller than the minimum size."}, failure: true},
		"down":     {err: errCut},
		"canceled": {err: revoked, cancel: true},
	} {
		f, volume := newFake(), t.TempDir()
		write(t, volume, "r", "0123456789")
		ctx, cancel := context.WithCancelCause(t.Context())
		f.hook = func(request string) error {
			if request != "chunk 4" {
				return nil
			}
			if test.cancel {
				cancel(revoked)
			}
			return test.err
		}
		var noted []girder.UploadID
		o := outOf(f, volume, "r")
		o.Retry = impatient
		o.Remember = func(n Note) error {
			if n.Pending != nil {
				noted = append(noted, n.Pending.ID)
			}
			noted = append(noted, n.Canceled)
			return nil
		}
		_, err := o.Run(ctx)
		if !errors.Is(err, test.err) || IsFailure(err) != test.failure {
			t.Errorf("%s: %v", name, err)
		}
		if len(f.uploads) != 0 || len(f.item) != 0 || f.count("cancel") != 1 {
			t.Errorf("%s leaves %v and %v", name, f.uploads, f.item)
		}
		if !slices.Equal(noted, []girder.UploadID{"u1", "", "u1"}) {
			t.Errorf("%s: noted %q", name, noted)
		}
		cancel(nil)
	}
}

func TestStageOutMissing(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	_, err := outOf(f, volume, "none").Run(t.Context())
	if !errors.Is(err, ErrMissing) || !IsFailure(err) {
		t.Error(err)
	}
	o := outOf(f, volume, "none")
	o.MustExist = false
	if sent, err := o.Run(t.Context()); err != nil || len(sent) != 0 || len(f.asked) != 0 {
		t.Error(sent, err, f.asked)
	}
}

func TestStageOutLeavesLinksThatLeadNowhere(t *testing.T) {
	t.Parallel()
	for _, mustExist := range []bool{true, false} {
		f, volume, outside := newFake(), t.TempDir(), t.TempDir()
		write(t, volume, "out/a.txt", "aaa")
		write(t, outside, "secret", "s")
		for name, target := range map[string]string{
			"dangling": "nothing", "outward": filepath.Join(outside, "secret"), "round": "round", "through": "a.txt/b",
		} {
			if err := os.Symlink(target, filepath.Join(volume, "out", name)); err != nil {
				t.Fatal(err)
			}
		}
		var log bytes.Buffer
		o := outOf(f, volume, "out")
		o.MustExist, o.Log = mustExist, zerolog.New(&log)
		if sent, err := o.Run(t.Context()); err != nil || len(sent) != 1 {
			t.Fatal(sent, err)
		}
		if diff := cmp.Diff(map[string]string{"a.txt": "aaa"}, f.contents()); diff != "" {
			t.Error(diff)
		}
		for _, name := range []string{"out/dangling", "out/outward", "out/round", "out/through"} {
			if !strings.Contains(log.String(), name) {
				t.Errorf("%s is not named in %s", name, &log)
			}
		}
	}
}

func TestStageOutStaysOnTheVolume(t *testing.T) {
	t.Parallel()
	volume, outside := t.TempDir(), t.TempDir()
	write(t, outside, "secret", "s")
	for name, target := range map[string]string{
		"absolute": filepath.Join(outside, "secret"), "relative": "../" + filepath.Base(outside) + "/secret",
		"folder": outside, "round": "round", "in/link": filepath.Join(outside, "secret"),
	} {
		_ = os.MkdirAll(filepath.Dir(filepath.Join(volume, name)), 0o755)
		if err := os.Symlink(target, filepath.Join(volume, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{
		"absolute", "relative", "folder", "folder/secret", "round", "in/link", "..", "../x", "/etc/passwd", "in/../../" + filepath.Base(outside),
	} {
		f := newFake()
		_, err := outOf(f, volume, path).Run(t.Context())
		if !errors.Is(err, ErrLeavesVolume) && !errors.Is(err, volumes.ErrSymlink) || !IsFailure(err) || len(f.asked) != 0 {
			t.Errorf("%s: %v, asked %v", path, err, f.asked)
		}
	}
	for _, path := range []string{"..", "/etc", ".", "folder"} {
		_ = outOf(newFake(), volume, path).Delete()
	}
	if diff := cmp.Diff(map[string]string{"secret": "s"}, files(t, outside)); diff != "" {
		t.Error(diff)
	}
}

func TestStageOutRefusesWhatIsNoFile(t *testing.T) {
	t.Parallel()
	volume := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(volume, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", filepath.Join(volume, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, path := range []string{"pipe", "socket"} {
		f := newFake()
		if _, err := outOf(f, volume, path).Run(t.Context()); !errors.Is(err, ErrNotRegular) || len(f.asked) != 0 {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestStageOutOfAFileThatShrinks(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	write(t, volume, "r", "0123456789")
	f.hook = func(request string) error {
		if request == "chunk 4" {
			return os.Truncate(filepath.Join(volume, "r"), 5)
		}
		return nil
	}
	_, err := outOf(f, volume, "r").Run(t.Context())
	if !errors.Is(err, ErrChanged) || len(f.uploads) != 0 || len(f.item) != 0 {
		t.Fatal(err)
	}
}

func TestContentIsHashedOnce(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("abcdefghij"), 10)
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c := newContent(file, int64(len(data)))
	buffer := make([]byte, 7)
	for _, span := range [][2]int64{{0, 30}, {0, 50}, {20, 50}, {60, 40}, {60, 40}} {
		r := c.chunk(span[0], span[1], func(int64) {})
		for err = nil; err == nil; {
			_, err = r.Read(buffer)
		}
	}
	sum := sha512.Sum512(data)
	if c.checksum() != hex.EncodeToString(sum[:]) {
		t.Error("another checksum")
	}
}
