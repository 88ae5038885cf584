package rig

import (
	"testing"
	"time"
)

func TestParseCPU(t *testing.T) {
	t.Parallel()
	got, err := parseCPU("42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 150 25 7 8 20 0 1 0 12 34")
	if want := 1750 * time.Millisecond; err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	for _, bad := range []string{"", "42 (x) S 1 2", "42 (x) S 1 42 42 0 -1 4194560 100 0 0 0 much 25 0 0"} {
		if got, err := parseCPU(bad); err == nil {
			t.Errorf("%q is %s", bad, got)
		}
	}
}
