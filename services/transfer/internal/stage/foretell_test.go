package stage

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

// TestAFileThatNeverBegan: what is noted of a small file before it begins does
// not make another job's ours that has the same name and the same bytes, neither
// for the next process nor for a later attempt.
func TestAFileThatNeverBegan(t *testing.T) {
	t.Parallel()
	for _, later := range []bool{false, true} {
		f, volume := newFake(), t.TempDir()
		id := f.shelve("", "results")
		write(t, volume, "r", "abc")
		o := toFolder(f, id, volume, "r")
		var disk keeper
		o.Remember = disk.remember
		ctx, suspend := context.WithCancelCause(t.Context())
		f.hook = func(asked string) error {
			if asked != "start" {
				return nil
			}
			suspend(ErrSuspended)
			return errCut
		}
		if _, err := o.Run(ctx); !errors.Is(err, ErrSuspended) || disk.Begun["r"].SHA512 == "" {
			t.Fatalf("%v, %+v", err, disk.Begun)
		}
		f.hook = nil
		f.put(id, &fakeFile{doc: girder.File{ID: "foreign", Name: "r", Size: size(3)}, data: []byte("abc")})
		o.Memory, o.Remember = disk.Memory, nil
		if later {
			o.Memory = Memory{Earlier: []Memory{disk.Memory}}
			write(t, volume, "r", "xyz")
		}
		sent, err := o.Run(t.Context())
		if err != nil || len(sent) != 1 || sent[0].FileID == "foreign" {
			t.Errorf("later %v: %+v, %v", later, sent, err)
		}
		want := map[string]string{"r": "abc", "r (1)": files(t, volume)["r"]}
		if diff := cmp.Diff(want, f.shelvedIn(id)); diff != "" {
			t.Errorf("later %v:\n%s", later, diff)
		}
	}
}

// TestNothingBeginsAfterTheEnd: of a file whose turn comes when the context has
// ended, Girder hears nothing.
func TestNothingBeginsAfterTheEnd(t *testing.T) {
	t.Parallel()
	ended := errors.New("ended")
	f, volume := newFake(), t.TempDir()
	write(t, volume, "out/a", "")
	write(t, volume, "out/b", "")
	o := outOf(f, volume, "out")
	ctx, end := context.WithCancelCause(t.Context())
	o.Allowed = func(context.Context) error { end(ended); return nil }
	f.hook = func(asked string) error {
		if !strings.HasPrefix(asked, "list") {
			t.Errorf("%s after the end", asked)
		}
		return nil
	}
	if sent, err := o.Run(ctx); !errors.Is(err, ended) || len(sent) > 0 {
		t.Error(sent, err)
	}
}
