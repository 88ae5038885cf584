package simseed_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
	"github.com/gantry-worker/gantry/tools/girder-sim/simseed"
)

func plant(t *testing.T, dir string) simseed.Seed {
	t.Helper()
	sim, err := girdersim.Start(girdersim.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
	}()
	seed, err := simseed.Plant(sim, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sim.Item(seed.ItemID); err != nil {
		t.Errorf("the seed's item: %v", err)
	}
	return seed
}

func TestSeedIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := plant(t, dir), plant(t, dir)
	first.APIURL, second.APIURL = "", "" // each start has its own port
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
	if info, err := os.Stat(simseed.Path(dir)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file with tokens: %v, %v", info.Mode(), err)
	}
}
