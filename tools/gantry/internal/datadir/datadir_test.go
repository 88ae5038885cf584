package datadir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/gantry/internal/datadir"
)

func open(t *testing.T, path string) *datadir.Folder {
	t.Helper()
	folder, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

func TestSecondOpenIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "data")
	first := open(t, path)
	if _, err := datadir.Open(path); !errors.Is(err, datadir.ErrInUse) {
		t.Errorf("second open: got %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := open(t, path).Close(); err != nil {
		t.Error(err)
	}
}

func TestFindWhatWasAnnounced(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if _, err := datadir.Find(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("find in an empty folder: got %v", err)
	}
	folder := open(t, path)
	defer folder.Close() //nolint:errcheck // only a lock
	want := client.Config{URL: "nats://127.0.0.1:4222", Token: "secret", CA: "/ca.pem"}
	if err := folder.Announce(want, true); err != nil {
		t.Fatal(err)
	}
	got, err := datadir.Find(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(filepath.Join(path, "nats.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of nats.json: %v, %v", info.Mode(), err)
	}
}

func TestTokenIsKeptButNotOfAnotherServer(t *testing.T) {
	t.Parallel()
	folder := open(t, t.TempDir())
	defer folder.Close() //nolint:errcheck // only a lock
	token, err := folder.Token()
	if err != nil || len(token) < 20 {
		t.Fatalf("token %q: %v", token, err)
	}
	if err := folder.Announce(client.Config{URL: "nats://x", Token: token}, true); err != nil {
		t.Fatal(err)
	}
	if again, err := folder.Token(); err != nil || again != token {
		t.Errorf("token after a restart: %q, %v", again, err)
	}
	if err := folder.Announce(client.Config{URL: "nats://x", Token: "theirs"}, false); err != nil {
		t.Fatal(err)
	}
	if again, err := folder.Token(); err != nil || again == "theirs" {
		t.Errorf("token after joining another server: %q, %v", again, err)
	}
}

func TestUnreadableFileIsNamed(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "nats.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := datadir.Find(path); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
