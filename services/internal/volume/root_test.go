package volume_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-worker/gantry/services/internal/volume"
)

// A container that sees the folder above a volume may put a link in its place, or
// in that of any folder on the way: it is not followed.
func TestOpenRootFollowsNoSymlink(t *testing.T) {
	t.Parallel()
	top, outside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "secret"))
	if err := errors.Join(os.MkdirAll(filepath.Join(top, "real", "volume"), 0o755), os.Mkdir(filepath.Join(outside, "volume"), 0o755),
		os.Symlink(outside, filepath.Join(top, "moved")), os.Symlink(outside, filepath.Join(top, "real", "link"))); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{filepath.Join(top, "moved"), filepath.Join(top, "moved", "volume"), filepath.Join(top, "real", "link")} {
		root, err := volume.OpenRoot(host)
		if !errors.Is(err, volume.ErrSymlink) {
			t.Errorf("%s: %v, %v", host, root, err)
		}
		err = volume.Volume{Host: host}.Within("secret", func(root *os.Root, clean string) error {
			data, err := root.ReadFile(clean)
			t.Errorf("%s has %q, %v", host, data, err)
			return nil
		})
		if !errors.Is(err, volume.ErrSymlink) {
			t.Error(err)
		}
	}
	root, err := volume.OpenRoot(filepath.Join(top, "real", "volume"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // only read from
	if err := root.WriteFile("file", nil, 0o600); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(top, "real", "volume", "file")); err != nil {
		t.Error(err)
	}
	if _, err := volume.OpenRoot(filepath.Join(top, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, host := range []string{filepath.Join(outside, "secret"), "relative", ""} {
		if _, err := volume.OpenRoot(host); err == nil {
			t.Errorf("%q is opened", host)
		}
	}
	whole, err := volume.OpenRoot("/")
	if err != nil {
		t.Fatal(err)
	}
	if err := whole.Close(); err != nil {
		t.Error(err)
	}
}
