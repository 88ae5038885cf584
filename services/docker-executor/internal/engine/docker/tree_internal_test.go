package docker

import (
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
)

// TestOldHelpers: only what has their name, and only under that name.
func TestOldHelpers(t *testing.T) {
	t.Parallel()
	now := time.Now()
	made := func(age time.Duration, tags ...string) image.Summary {
		return image.Summary{ID: "sha256:1", Created: now.Add(-age).Unix(), RepoTags: tags}
	}
	got := oldHelpers([]image.Summary{
		made(48*time.Hour, "gantry-helper:keep", "gantry-helper:same"),
		made(48*time.Hour, "gantry-helper:old", "tool:1"),
		made(48*time.Hour, "tool:2"),
		made(48*time.Hour, "gantry-helper-of-mine:1", "registry.example.org/gantry-helper:1"),
		made(48 * time.Hour),
		made(time.Hour, "gantry-helper:young"),
	}, "gantry-helper:keep", now)
	if !slices.Equal(got, []string{"gantry-helper:old"}) {
		t.Errorf("old are %q", got)
	}
}
