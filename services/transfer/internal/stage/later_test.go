package stage

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

// TestStageInThatFailsInALaterProcessLeavesNothing: a process ended when a
// folder's files had their names, and before its result was known. Girder
// refuses to tell the next one of them.
func TestStageInThatFailsInALaterProcessLeavesNothing(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	folder := f.folder("", "data")
	for _, name := range []string{"a", "b", "c"} {
		f.add(folder, name, name, "content of "+name)
	}
	write(t, volume, "kept", "somebody else's")
	var disk keeper
	in := In{Source: f, Folder: folder, Volume: volume, Retry: quick, Remember: disk.remember}
	staged, err := in.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(staged.Path, "b")
	write(t, volume, changed, "not what was brought")
	in.Memory = disk.Memory
	f.hook = func(string) error { return &girder.Error{Status: 403, Type: "access", Message: "no access any more"} }
	if _, err := in.Run(t.Context()); !errors.Is(err, girder.ErrForbidden) {
		t.Fatal(err)
	}
	want := map[string]string{"kept": "somebody else's", changed: "not what was brought"}
	if diff := cmp.Diff(want, files(t, volume)); diff != "" {
		t.Error(diff)
	}
}
