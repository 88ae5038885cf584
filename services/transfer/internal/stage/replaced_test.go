package stage

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/cache"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// replace gives a file other contents.
func (s *site) replace(t *testing.T, id girder.FileID, data []byte) {
	up, err := s.Client.ReplaceContents(t.Context(), id, int64(len(data)), "")
	if err == nil {
		_, err = s.Client.UploadChunk(t.Context(), up.ID, 0, bytes.NewReader(data), int64(len(data)))
	}
	if err != nil {
		t.Error(err)
	}
}

// TestAFileThatIsReplacedWhileItsDownloadIsBroken is fetched anew, and never one
// half of the old contents and one of the new: by itself and in its item, and also
// what goes into the cache.
func TestAFileThatIsReplacedWhileItsDownloadIsBroken(t *testing.T) {
	t.Parallel()
	for _, alone := range []bool{true, false} {
		for _, times := range []int32{1, 2, patienceWithBytes} {
			s, volume := startSite(t), t.TempDir()
			states := make([][]byte, times+1)
			for i := range states {
				states[i] = bytes.Repeat([]byte{byte('a' + i)}, 3<<20)
			}
			id := s.add(t, "in.bin", bytes.NewReader(states[0]))
			var requests, replaced atomic.Int32
			s.SetFault(func(r *http.Request) *girdersim.Fault {
				if !strings.HasSuffix(r.URL.Path, "/download") {
					return nil
				}
				if requests.Add(1)%2 == 1 {
					return &girdersim.Fault{CutAfter: 1_000_000}
				}
				if n := replaced.Add(1); n <= times {
					s.replace(t, id, states[n])
				}
				return nil
			})
			in := In{File: id, Filename: "in.bin"}
			if !alone {
				in = In{Item: girder.ItemID(s.item.ID)}
			}
			in.Source, in.Volume, in.Retry = s.Client, volume, quick
			in.Task, in.Fetches, in.Girder, in.Cache = "t", NewFetches(), "g", openCache(t, t.TempDir(), 1<<30)
			staged, err := in.Run(t.Context())
			if times == patienceWithBytes {
				if !errors.Is(err, ErrReplaced) || IsFailure(err) || len(files(t, volume)) != 0 {
					t.Errorf("alone %v: %v, %d files", alone, err, len(files(t, volume)))
				}
				continue
			}
			want := states[times]
			if err != nil || staged.Bytes != int64(len(want)) || !holds(files(t, volume), want) {
				t.Fatalf("alone %v, replaced %d times: %+v, %v", alone, times, staged, err)
			}
			before := requests.Load()
			for _, shared := range []*cache.Cache{in.Cache, nil} { // nil: from where this step put it
				in.Cache, in.Volume = shared, t.TempDir()
				if _, err := in.Run(t.Context()); err != nil || !holds(files(t, in.Volume), want) || requests.Load() != before {
					t.Errorf("alone %v, replaced %d times, again: %v, %d more downloads", alone, times, err, requests.Load()-before)
				}
			}
		}
	}
}

func holds(files map[string]string, want []byte) bool {
	for _, got := range files {
		if got != string(want) {
			return false
		}
	}
	return len(files) == 1
}

// TestAFileThatIsReplacedWhereverItsProcessDies: what the first leaves on disk
// is of one state of the file, and the next one knows of which.
func TestAFileThatIsReplacedWhereverItsProcessDies(t *testing.T) {
	t.Parallel()
	for at := range 12 { // the event at which the file is replaced
		for events := range 20 {
			f, volume := newFake(), t.TempDir()
			f.offers("n", bytes.Repeat([]byte("old"), 30))
			f.doc.Created, f.pieces = "before", 30
			run := newLife(t, events)
			n := 0
			count := func() {
				if n++; n == at {
					f.doc.Created, f.data = "after", bytes.Repeat([]byte("NEW"), 30)
				}
			}
			f.hook = func(request string) error { count(); return run.hook(request) }
			var disk keeper
			in := In{Source: f, File: "f1", Volume: volume, Filename: "n", Retry: quick, Remember: disk.remember}
			_, err := in.Run(run)
			if err != nil {
				f.hook = func(string) error { count(); return nil }
				in.Memory = disk.Memory
				_, err = in.Run(t.Context())
			}
			got := files(t, volume)["n"]
			if err != nil || got != strings.Repeat("old", 30) && got != strings.Repeat("NEW", 30) {
				t.Error(fmt.Sprintf("replaced at %d, ends at %d:", at, events), err, got)
			}
		}
	}
}

// TestOneAnswerNeedsNoOtherLookAtTheFile: its bytes are of one state.
func TestOneAnswerNeedsNoOtherLookAtTheFile(t *testing.T) {
	t.Parallel()
	for pieces, want := range map[int]int{0: 1, 3: 2} {
		f := newFake()
		f.offers("n", []byte("content"))
		f.pieces = pieces
		if _, err := stageIn(t, f, t.TempDir(), "n"); err != nil || f.count("get") != want {
			t.Errorf("pieces of %d: %v after %v", pieces, err, f.asked)
		}
	}
}
