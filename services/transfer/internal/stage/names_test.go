package stage

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLocalNamesOfAFolder(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300)
	got := localNames([]string{"a", "a", "a (1)", "a/b.tif", "a_b.tif", "", "_", long, long, ".x", ".x"})
	want := []string{"a", "a (2)", "a (1)", "a_b.tif", "a_b (1).tif", "_", "_ (1)", long[:255], long[:251] + " (1)", ".x", ".x (1)"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzLocalNames: never outside, distinct, and the same names again.
func FuzzLocalNames(f *testing.F) {
	f.Add("a|a|a (1)")
	f.Add("a/b|a_b|..|.|_..|" + strings.Repeat("ä", 200) + "|" + strings.Repeat("ä", 200) + "x")
	f.Add("\x00|_|\\|\n|\xff|\xff")
	f.Fuzz(func(t *testing.T, text string) {
		names := strings.Split(text, "|")
		got := localNames(names)
		seen := map[string]bool{}
		for _, name := range got {
			if seen[name] || !filepath.IsLocal(name) || filepath.Base(name) != name || len(name) > 255 || strings.ContainsRune(name, 0) || name == "." {
				t.Fatalf("%q becomes %q", names, got)
			}
			seen[name] = true
		}
		if diff := cmp.Diff(got, localNames(names)); diff != "" {
			t.Error(diff)
		}
	})
}
