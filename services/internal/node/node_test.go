package node

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
)

func TestOpenIsTheSameForAllOnAFolder(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "work")
	ids := make([]contracts.NodeID, 20)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			id, err := open(root, "machine")
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	all.Wait()
	for _, id := range ids {
		if id != ids[0] || id == "" {
			t.Fatalf("ids differ: %v", ids)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(root, "*")); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOpenRefusesAnotherMachine(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if _, err := open(root, "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := open(root, "two"); !errors.Is(err, ErrOtherMachine) {
		t.Errorf("got %v", err)
	}
	if _, err := open(root, ""); err != nil {
		t.Errorf("a machine that cannot be told was refused: %v", err)
	}
}

func TestOpenNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	if _, err := open("relative", "m"); err == nil {
		t.Error("a relative folder was accepted")
	}
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, identityFile), []byte(`{"node":"A B"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(root, "m"); err == nil {
		t.Error("a damaged identity was accepted")
	}
}
