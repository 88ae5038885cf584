package stage

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLocalNamesOfAFolder(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300)
	got := localNames([]string{"a", "a", "a (1)", "a/b.tif", "a_b.tif", "", "_", long, long, ".x", ".x"}, exactly)
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
		got := localNames(names, exactly)
		seen := map[string]bool{}
		for _, name := range got {
			if seen[name] || !filepath.IsLocal(name) || filepath.Base(name) != name || len(name) > 255 || strings.ContainsRune(name, 0) || name == "." {
				t.Fatalf("%q becomes %q", names, got)
			}
			seen[name] = true
		}
		if diff := cmp.Diff(got, localNames(names, exactly)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestNamesThatAVolumeTakesForOne(t *testing.T) {
	t.Parallel()
	for want, names := range map[string][]string{
		"a.txt|A (1).TXT|b":          {"a.txt", "A.TXT", "b"},
		"é|e\u0301 (1)|É (2)":        {"é", "e\u0301", "É"},
		"straße|STRASSE (1)":         {"straße", "STRASSE"},
		"A|a (2)|a (1)":              {"A", "a", "a (1)"},
		"ſ|s (1)|S (2)|K|\u212a (1)": {"ſ", "s", "S", "K", "\u212a"},
	} {
		if got := strings.Join(localNames(names, loosely), "|"); got != want {
			t.Errorf("%q become %q, want %q", names, got, want)
		}
		if got := localNames(names, exactly); !slices.Equal(got, names) {
			t.Errorf("%q become %q", names, got)
		}
	}
	if got := localNames([]string{"..", "_.."}, exactly); !slices.Equal(got, []string{"_..", "_.. (1)"}) {
		t.Errorf("%q", got)
	}
}
