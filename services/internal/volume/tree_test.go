package volume

import (
	"os"
	"testing"
)

// TestWhatIsNotThereIsNoProgress: a name that is listed and cannot be unlinked
// would be tried for ever.
func TestWhatIsNotThereIsNoProgress(t *testing.T) {
	t.Parallel()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := os.WriteFile(dir.Name()+"/there", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	top := &tree{top: dir}
	for name, want := range map[string]bool{"there": true, "absent": false} {
		if got := top.remove(dir, name, name, 0); got != want || top.stays() != nil {
			t.Errorf("%s: %t, %v", name, got, top.stays())
		}
	}
}
