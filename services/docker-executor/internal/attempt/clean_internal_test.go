package attempt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/removetree"
)

// exchanging is an engine before which somebody puts a folder, or a link to one,
// in the place of the one that is to be emptied.
type exchanging struct {
	engine.Engine
	exchange func(path string) error
}

func (e exchanging) RemoveTree(ctx context.Context, path string, id removetree.ID, labels map[string]string) error {
	return errors.Join(e.exchange(path), e.Engine.RemoveTree(ctx, path, id, labels))
}

// TestAForeignFolderIsNotEmptied, which somebody puts in a volume's place between
// our look at it and the engine's.
func TestAForeignFolderIsNotEmptied(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(foreign, path string) error{"link": os.Symlink, "folder": os.Rename} {
		dir := t.TempDir()
		foreign, at := filepath.Join(dir, "foreign"), filepath.Join(dir, "gantry-x")
		err := errors.Join(os.Mkdir(at, 0o755), os.Mkdir(foreign, 0o755), os.WriteFile(filepath.Join(foreign, "kept"), nil, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		tools := &Tools{Engine: &engine.Watched{Engine: exchanging{fake.New(), func(path string) error {
			return errors.Join(os.Rename(path, path+"-away"), put(foreign, path))
		}}}}
		if err := tools.empty(t.Context(), at); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(filepath.Join(at, "kept")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
