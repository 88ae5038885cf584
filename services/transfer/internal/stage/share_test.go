package stage

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/cache"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

func openCache(t *testing.T, folder string, limit int64) *cache.Cache {
	t.Helper()
	c, err := cache.Open(folder, limit, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// downloads counts a site's answers with a file's bytes.
func (s *site) downloads() *atomic.Int32 {
	n := new(atomic.Int32)
	s.SetFault(func(r *http.Request) *girdersim.Fault {
		if strings.HasSuffix(r.URL.Path, "/download") {
			n.Add(1)
		}
		return nil
	})
	return n
}

// TestOneDownloadForATask: of a file that several of its steps want, at the
// same time and later, by itself, in its item and in its folder.
func TestOneDownloadForATask(t *testing.T) {
	t.Parallel()
	s, fetches := startSite(t), NewFetches()
	data := noise(300_000)
	id := s.add(t, "big", bytes.NewReader(data))
	s.add(t, "small", strings.NewReader("small"))
	n := s.downloads()
	var steps []In
	for i := range 4 {
		steps = append(steps, In{File: id, Filename: fmt.Sprint(i)}, In{Item: girder.ItemID(s.item.ID)}, In{Folder: girder.FolderID(s.item.FolderID)})
	}
	var found atomic.Int64
	run := func(in In, task string) error {
		in.Source, in.Volume, in.Retry, in.Task, in.Fetches, in.Girder = s.Client, t.TempDir(), quick, task, fetches, s.APIURL()
		staged, err := in.Run(t.Context())
		found.Add(staged.Found)
		if err != nil {
			return err
		}
		want := map[string]string{staged.Path: string(data)}
		if in.File == "" {
			at := strings.TrimSuffix(staged.Path, "/item")
			want = map[string]string{at + "/item/big": string(data), at + "/item/small": "small"}
		}
		if diff := cmp.Diff(want, files(t, in.Volume)); diff != "" {
			return errors.New("other files")
		}
		return nil
	}
	var all sync.WaitGroup
	for _, in := range steps {
		all.Go(func() {
			if err := run(in, "job/1"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := n.Load(); got != 2 {
		t.Errorf("%d downloads of two files", got)
	}
	if want := int64(11*300_000 + 7*5); found.Load() != want {
		t.Errorf("%d bytes were on the node, not %d", found.Load(), want)
	}
	if err := run(steps[0], "job/1"); err != nil || n.Load() != 2 {
		t.Error(err, "downloaded again")
	}
	if err := run(steps[0], "job/2"); err != nil || n.Load() != 3 {
		t.Error(err, "taken from another attempt")
	}
	if len(fetches.turns) != 0 {
		t.Errorf("%d turns are left", len(fetches.turns))
	}
}

// TestACopyIsNotTheSameFile: each step has its own, and takes none that changed.
func TestACopyIsNotTheSameFile(t *testing.T) {
	t.Parallel()
	f, fetches, volume := newFake(), NewFetches(), t.TempDir()
	f.offers("n", []byte("content"))
	stage := func(to string) {
		t.Helper()
		in := In{Source: f, File: "f1", Volume: volume, Filename: to, Retry: quick, Task: "t", Fetches: fetches}
		if _, err := in.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	stage("first")
	stage("deep/er/second")
	write(t, volume, "first", "CHANGED")
	if got := files(t, volume)["deep/er/second"]; got != "content" || f.count("download 0") != 1 {
		t.Fatalf("%q after %v", got, f.asked)
	}
	write(t, volume, "deep/er/second", "changed by somebody") // of another size: the time may be too coarse to tell
	stage("third")
	if err := os.Remove(filepath.Join(volume, "third")); err != nil {
		t.Fatal(err)
	}
	stage("fourth")
	if got := files(t, volume)["fourth"]; got != "content" || f.count("download 0") != 3 {
		t.Errorf("%q after %v", got, f.asked)
	}
}

// TestWhoeverFetchesMayFail: those that wait for the file fetch it then.
func TestWhoeverFetchesMayFail(t *testing.T) {
	t.Parallel()
	s, fetches := startSite(t), NewFetches()
	fetches.giveAgain = time.Hour // a turn is given once, however long that takes
	id := s.add(t, "n", strings.NewReader("content"))
	var asked atomic.Int32
	waits, failed := make(chan struct{}), new(atomic.Int32)
	s.SetFault(func(r *http.Request) *girdersim.Fault {
		if strings.HasSuffix(r.URL.Path, "/download") && asked.Add(1) == 1 {
			<-waits
			return &girdersim.Fault{Status: http.StatusForbidden}
		}
		return nil
	})
	retry := quick
	turns := &countedTurns{gave: sync.OnceFunc(func() { close(waits) })}
	retry.Turns = turns
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			volume := t.TempDir()
			in := In{Source: s.Client, File: id, Volume: volume, Filename: "n", Retry: retry, Task: "t", Fetches: fetches}
			_, err := in.Run(t.Context())
			switch {
			case errors.Is(err, girder.ErrForbidden):
				failed.Add(1)
			case err != nil || files(t, volume)["n"] != "content":
				t.Error(err)
			}
		})
	}
	all.Wait()
	if failed.Load() != 1 || asked.Load() != 2 || turns.given.Load() != turns.taken.Load() || turns.given.Load() == 0 {
		t.Errorf("%d failed, %d downloads, %d turns given, %d taken", failed.Load(), asked.Load(), turns.given.Load(), turns.taken.Load())
	}
}

// TestWhoWaitsGivesItsPlaceAgain: another file of its step may have taken it.
func TestWhoWaitsGivesItsPlaceAgain(t *testing.T) {
	t.Parallel()
	f := NewFetches()
	f.giveAgain = time.Millisecond
	id := cache.Key{}.ID()
	leave, err := f.take(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	turns := &countedTurns{}
	turns.gave = func() {
		if turns.given.Load() == 3 {
			leave()
		}
	}
	next, err := f.take(t.Context(), id, turns)
	if err != nil || turns.given.Load() < 3 {
		t.Fatal(err)
	}
	next()
}

// countedTurns says when the first one is given.
type countedTurns struct {
	given, taken atomic.Int32
	gave         func()
}

func (c *countedTurns) Give(time.Duration) { c.given.Add(1); c.gave() }

func (c *countedTurns) Take(context.Context) error { c.taken.Add(1); return nil }

// TestWaitingForAFileEnds with the step.
func TestWaitingForAFileEnds(t *testing.T) {
	t.Parallel()
	f, fetches, volume := newFake(), NewFetches(), t.TempDir()
	in := In{Source: f, File: f.offers("n", []byte("content")), Volume: volume, Retry: quick, Task: "t", Fetches: fetches}
	s := &staging{In: in}
	leave, err := s.turn(t.Context(), f.doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, why := range []error{errors.New("revoked"), ErrSuspended} {
		ctx, cancel := context.WithCancelCause(t.Context())
		in.Retry.Turns = &countedTurns{gave: func() { cancel(why) }}
		if _, err := in.Run(ctx); !errors.Is(err, why) || len(files(t, volume)) != 0 {
			t.Errorf("%v: %v, %v", why, err, files(t, volume))
		}
	}
	leave()
	leave()
	if in.Retry.Turns = nil; len(fetches.turns) != 0 {
		t.Errorf("%d turns are left", len(fetches.turns))
	}
	if _, err := in.Run(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestTheCacheIsForAllTasks of this process and the next, with one download;
// but for nobody who may not have the file.
func TestTheCacheIsForAllTasks(t *testing.T) {
	t.Parallel()
	s, folder := startSite(t), t.TempDir()
	data := noise(300_000)
	id := s.add(t, "n", bytes.NewReader(data))
	n := s.downloads()
	run := func(c *cache.Cache, fetches *Fetches, task string) (string, error) {
		volume := t.TempDir()
		in := In{Source: s.Client, File: id, Volume: volume, Filename: "n", Retry: quick, Task: task, Fetches: fetches, Girder: s.APIURL(), Cache: c}
		_, err := in.Run(t.Context())
		if err == nil {
			write(t, volume, "n", "a container may do as it likes with its volume")
		}
		return volume, err
	}
	for range 2 {
		c, err := cache.Open(folder, 1<<20, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		fetches := NewFetches()
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				if _, err := run(c, fetches, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n.Load() != 1 {
		t.Errorf("%d downloads", n.Load())
	}
	c := openCache(t, folder, 1<<20)
	volume := t.TempDir()
	in := In{Source: s.Client, File: id, Volume: volume, Filename: "n", Retry: quick, Girder: s.APIURL(), Cache: c}
	if _, err := in.Run(t.Context()); err != nil || files(t, volume)["n"] != string(data) || n.Load() != 1 {
		t.Error(err, n.Load(), "the cache has other bytes")
	}
	stranger, err := girder.New(girder.Options{APIURL: s.APIURL(), Retry: girder.Retry{Total: -1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stranger.CloseIdle)
	in.Source, in.Volume = stranger, t.TempDir()
	if _, err := in.Run(t.Context()); !IsFailure(err) || len(files(t, in.Volume)) != 0 {
		t.Errorf("somebody without access: %v, %v", err, files(t, in.Volume))
	}
	for _, change := range []func(*In){func(in *In) { in.Girder = "" }, func(in *In) { in.Girder += "#another way" }} {
		before := n.Load()
		in := in
		in.Source, in.Volume = s.Client, t.TempDir()
		change(&in)
		if _, err := in.Run(t.Context()); err != nil || n.Load() != before+1 {
			t.Errorf("%q: %v, %d more downloads", in.Girder, err, n.Load()-before)
		}
	}
}

// TestACopyThatIsSuspended is finished by the next process, with or without the cache.
func TestACopyThatIsSuspended(t *testing.T) {
	t.Parallel()
	for _, stays := range []bool{true, false} {
		f, volume, folder := newFake(), t.TempDir(), t.TempDir()
		data := pattern(9 << 20)
		f.offers("n", data)
		c := openCache(t, folder, 1<<30)
		in := In{Source: f, File: "f1", Volume: volume, Filename: "first", Retry: quick, Girder: "g", Cache: c}
		if _, err := in.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		var disk keeper
		ctx, cancel := context.WithCancelCause(t.Context())
		in.Filename, in.Remember = "second", disk.remember
		in.Found = func(int64) { cancel(ErrSuspended) }
		if _, err := in.Run(ctx); !errors.Is(err, ErrSuspended) && !sharesBlocks(t, volume) {
			t.Fatal(err)
		}
		if !stays {
			in.Cache = nil
		}
		in.Memory, in.Found = disk.Memory, nil
		if _, err := in.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := files(t, volume)
		if len(got) != 2 || got["second"] != string(data) {
			t.Errorf("cache stays %v: %d files, right: %v", stays, len(got), got["second"] == string(data))
		}
	}
}

// pattern is bytes that repeat themselves, but not at the border of any block.
func pattern(n int) []byte { return bytes.Repeat(noise(4099), n/4099+1)[:n] }

// sharesBlocks reports whether files on a volume can be copied at once.
func sharesBlocks(t *testing.T, volume string) bool {
	t.Helper()
	from, err := os.Create(filepath.Join(t.TempDir(), "from"))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(t.TempDir(), "to"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	return cache.Clone(to, from)
}

// TestTheCacheGivesWay to a file that has no room beside it.
func TestTheCacheGivesWay(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("cannot mount a small disk here: %v", err)
	}
	t.Cleanup(func() { unmount(t, func() error { return syscall.Unmount(disk, 0) }) })
	volume := filepath.Join(disk, "volume")
	if err := os.Mkdir(volume, 0o777); err != nil {
		t.Fatal(err)
	}
	c, err := cache.Open(filepath.Join(disk, "cache"), 1<<30, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stage := func(size int) error {
		f := newFake()
		f.offers(fmt.Sprint(size), pattern(size))
		_, err := In{Source: f, File: "f1", Volume: volume, Filename: "n", Retry: quick, Girder: "g", Cache: c}.Run(t.Context())
		if err == nil && files(t, volume)["n"] != string(f.data) {
			t.Errorf("other bytes than the %d", size)
		}
		return errors.Join(err, os.RemoveAll(filepath.Join(volume, "n")))
	}
	for _, size := range []int{3 << 20, 2 << 20, 5 << 20, 7 << 20} {
		if err := stage(size); err != nil {
			t.Errorf("%d: %v", size, err)
		}
	}
	if err := stage(8 << 20); !errors.Is(err, ErrNoSpace) || IsFailure(err) || len(files(t, volume)) != 0 {
		t.Error(err, files(t, volume))
	}
	if err := stage(1 << 20); err != nil {
		t.Error(err)
	}
}

// TestBytesThatAreWrongOnce are asked for again, from the start.
func TestBytesThatAreWrongOnce(t *testing.T) {
	t.Parallel()
	data := noise(400_000)
	sum := sha512.Sum512(data)
	for name, spoil := range map[string]struct {
		data []byte
		want error
	}{
		"other":   {append([]byte{data[0] + 1}, data[1:]...), ErrChecksum},
		"shorter": {data[:300_000], ErrIncomplete},
		"longer":  {append(bytes.Clone(data), 'x'), ErrIncomplete},
	} {
		for _, unsized := range []bool{false, true} {
			for _, times := range []int{1, patienceWithBytes - 1, patienceWithBytes} {
				if name == "shorter" && unsized {
					continue // a connection that broke
				}
				f, volume := newFake(), t.TempDir()
				f.offers("n", data)
				f.doc.SHA512, f.unsized = hex.EncodeToString(sum[:]), unsized
				asked := 0
				f.hook = func(request string) error {
					if strings.HasPrefix(request, "download 0") && !strings.HasSuffix(request, "answered") {
						f.data = data
						if asked++; asked <= times {
							f.data = spoil.data
						}
					}
					return nil
				}
				_, err := stageIn(t, f, volume, "n")
				if times == patienceWithBytes {
					if !errors.Is(err, spoil.want) || IsFailure(err) || len(files(t, volume)) != 0 {
						t.Errorf("%s %d times: %v, %d files", name, times, err, len(files(t, volume)))
					}
				} else if err != nil || files(t, volume)["n"] != string(data) {
					t.Errorf("%s %d times: %v", name, times, err)
				}
			}
		}
	}
}

// TestFetchesForgets what was placed longest ago.
func TestFetchesForgets(t *testing.T) {
	t.Parallel()
	f := NewFetches()
	var ids []cache.ID
	for i := range mostPlaced + 2 {
		id := cache.Key{File: fmt.Sprint(i)}.ID()
		ids = append(ids, id)
		f.place(id, placedAt{})
		f.place(id, placedAt{path: "again"})
	}
	_, first := f.placed[ids[1]]
	_, second := f.placed[ids[2]]
	if first || !second || len(f.placed) != mostPlaced || len(f.oldest) != mostPlaced {
		t.Errorf("%v, %v, %d, %d", first, second, len(f.placed), len(f.oldest))
	}
}

// TestWhatOthersMayWriteIsNotKept: the bytes of a file that somebody changed on
// the way are on the volume that is his as well, and nowhere else.
func TestWhatOthersMayWriteIsNotKept(t *testing.T) {
	t.Parallel()
	f, folder := newFake(), t.TempDir()
	data := pattern(1 << 20)
	f.offers("n", data)
	c, fetches := openCache(t, folder, 1<<30), NewFetches()
	in := In{Source: f, File: "f1", Filename: "n", Retry: quick, Task: "job/1", Fetches: fetches, Girder: "g", Cache: c}
	in.Exposed, in.Volume = true, t.TempDir()
	in.Progress = func(_ string, bytes, total int64) {
		if bytes != total {
			return
		}
		for name := range files(t, in.Volume) {
			if err := os.WriteFile(filepath.Join(in.Volume, name), pattern(1<<20 + 1)[1:], 0); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := in.Run(t.Context()); err != nil || files(t, in.Volume)["n"] == string(data) {
		t.Fatal(err, "nobody wrote to it")
	}
	if in, err := os.ReadDir(folder); err != nil || len(in) != 0 {
		t.Errorf("%d files are in the cache, %v", len(in), err)
	}
	// What is in the cache goes there as anywhere else.
	in.Progress, in.Task = nil, "job/2"
	in.Exposed, in.Volume = false, t.TempDir()
	if _, err := in.Run(t.Context()); err != nil || files(t, in.Volume)["n"] != string(data) {
		t.Error(err, "other bytes")
	}
	in.Exposed, in.Volume = true, t.TempDir()
	if _, err := in.Run(t.Context()); err != nil || files(t, in.Volume)["n"] != string(data) || f.count("download 0") != 2 {
		t.Error(err, f.asked)
	}
}

// TestACopyOfWhatSomebodyChanged is not taken, though the file says the size, the
// time and the number that it had.
func TestACopyOfWhatSomebodyChanged(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	f.offers("n", []byte("content"))
	in := In{Source: f, File: "f1", Volume: volume, Filename: "first", Retry: quick, Task: "t", Fetches: NewFetches()}
	if _, err := in.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(volume, "first")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	// The file system's clock may stand still for a while: until it goes on, the change cannot be told.
	for began, now := time.Now(), info; stateOf(now) == stateOf(info); {
		err := errors.Join(os.WriteFile(path, []byte("CHANGED"), 0), os.Chtimes(path, info.ModTime(), info.ModTime()))
		if err == nil {
			now, err = os.Stat(path)
		}
		if err != nil || time.Since(began) > long {
			t.Fatal(err, "the time of the change stays the same")
		}
	}
	in.Filename = "second"
	if _, err := in.Run(t.Context()); err != nil || files(t, volume)["second"] != "content" {
		t.Error(err, files(t, volume))
	}
}

// TestNobodyWaitsForWhoWaits: while somebody's next try is far off, others try to
// fetch the file.
func TestNobodyWaitsForWhoWaits(t *testing.T) {
	t.Parallel()
	f, fetches := newFake(), NewFetches()
	f.offers("n", []byte("content"))
	f.hook = func(request string) error {
		if request == "download 0" {
			f.hook = nil
			return errCut
		}
		return nil
	}
	volume, waits := t.TempDir(), make(chan struct{})
	in := In{Source: f, File: "f1", Volume: volume, Filename: "first", Task: "t", Fetches: fetches}
	in.Retry = girder.Retry{Total: 10 * time.Hour, First: time.Hour, Max: time.Hour, Turns: &countedTurns{gave: func() { close(waits) }}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := in.Run(ctx)
		ended <- err
	}()
	<-waits
	next := in
	next.Filename, next.Retry = "second", quick
	if _, err := next.Run(t.Context()); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got := files(t, volume); len(got) != 1 || got["second"] != "content" {
		t.Error(got)
	}
}

// TestWhatIsTooLargeForTheCacheHoldsNobodyUp: tasks that would not find it there
// do not wait for one another.
func TestWhatIsTooLargeForTheCacheHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.offers("n", []byte("content"))
	in := In{
		Source: f, File: "f1", Volume: t.TempDir(), Filename: "n", Retry: quick, Task: "job/1",
		Fetches: NewFetches(), Girder: "g", Cache: openCache(t, t.TempDir(), 6),
	}
	leave, err := (&staging{In: in}).turn(t.Context(), f.doc)
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	in.Task = "job/2"
	if _, err := in.Run(t.Context()); err != nil {
		t.Error(err)
	}
}
