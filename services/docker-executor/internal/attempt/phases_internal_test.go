package attempt

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
)

// told collects phases.
type told []contracts.Phase

func (t *told) tell(phase contracts.Phase) { *t = append(*t, phase) }

func (t told) want(test *testing.T, want contracts.Phase) {
	test.Helper()
	if len(t) == 0 {
		test.Fatal("nothing was told")
	}
	if diff := cmp.Diff(want, t[len(t)-1]); diff != "" {
		test.Error(diff)
	}
}

func steps(names ...string) []contracts.Step {
	all := make([]contracts.Step, len(names))
	for i, name := range names {
		all[i].Step = name
	}
	return all
}

func TestInputsSideBySideAreOnePhase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const fetching = contracts.PhaseFetchingInput
		var told told
		moving := inputs(steps("in-0", "in-1", "in-2"), told.tell)
		moving.hear(&contracts.TransferNote{ID: "in-1", What: "b.tif", Bytes: 10, Total: 100, Rate: 5})
		told.want(t, contracts.Phase{Phase: fetching, What: "b.tif and 2 more", Bytes: 10, Rate: 5})
		moving.hear(&contracts.TransferNote{ID: "in-0", What: "a.tif", Bytes: 20, Total: 200, Rate: 8})
		moving.hear(&contracts.TransferNote{ID: "in-2", What: "c.tif", Bytes: 0, Total: 300})
		told.want(t, contracts.Phase{Phase: fetching, What: "a.tif and 2 more", Bytes: 30, Of: 600, Rate: 13})
		moving.end("in-0", &contracts.StepResult{Bytes: 200})
		told.want(t, contracts.Phase{Phase: fetching, What: "b.tif and 1 more", Bytes: 210, Of: 600, Rate: 13})
		moving.hear(&contracts.TransferNote{ID: "in-0", What: "a.tif", Bytes: 20, Total: 200, Rate: 7}) // late
		moving.hear(&contracts.TransferNote{ID: "stream-0", Bytes: 9999})                               // not one of them
		// The others have the place of the one that is done: their rates follow.
		time.Sleep(fade / 2)
		moving.hear(&contracts.TransferNote{ID: "in-1", What: "b.tif", Bytes: 20, Total: 100, Rate: 9})
		told.want(t, contracts.Phase{Phase: fetching, What: "b.tif and 1 more", Bytes: 220, Of: 600, Rate: 13})
		time.Sleep(fade)
		moving.hear(&contracts.TransferNote{ID: "in-1", What: "b.tif", Bytes: 30, Total: 100, Rate: 13})
		told.want(t, contracts.Phase{Phase: fetching, What: "b.tif and 1 more", Bytes: 230, Of: 600, Rate: 13})
		moving.hear(&contracts.TransferNote{ID: "in-1", Done: true})
		moving.end("in-1", &contracts.StepResult{Bytes: 100})
		time.Sleep(fade)
		moving.end("in-2", &contracts.StepResult{Bytes: 310}) // it grew
		told.want(t, contracts.Phase{Phase: fetching, Bytes: 610, Of: 610})
	})
}

func TestAnInputOfUnknownSizeHasNoTotal(t *testing.T) {
	t.Parallel()
	var told told
	moving := inputs(steps("in-0", "in-1"), told.tell)
	moving.hear(&contracts.TransferNote{ID: "in-0", What: "a", Bytes: 50, Rate: 5})
	moving.end("in-1", &contracts.StepResult{Bytes: 100}) // its notes were lost
	told.want(t, contracts.Phase{Phase: contracts.PhaseFetchingInput, What: "a", Bytes: 150, Rate: 5})
	moving.end("in-0", &contracts.StepResult{Bytes: 60})
	told.want(t, contracts.Phase{Phase: contracts.PhaseFetchingInput, Bytes: 160, Of: 160})
}

func TestOutputsOneAfterTheOtherAreOnePhase(t *testing.T) {
	t.Parallel()
	const pushing = contracts.PhasePushingOutput
	var told told
	moving := outputs(3, told.tell)
	moving.begin("out-0") // one of a former owner
	moving.end("out-0", &contracts.StepResult{Bytes: 100})
	moving.begin("out-1")
	moving.hear(&contracts.TransferNote{ID: "out-1", What: "b.csv", Bytes: 10, Total: 50, Rate: 3})
	told.want(t, contracts.Phase{Phase: pushing, What: "b.csv (2 of 3)", Bytes: 110, Of: 150, Rate: 3})
	moving.hear(&contracts.TransferNote{ID: "out-1", What: "b.csv", Bytes: 50, Total: 50})
	moving.end("out-1", &contracts.StepResult{Bytes: 50})
	moving.begin("out-2")
	moving.hear(&contracts.TransferNote{ID: "out-2", What: "empty"})
	told.want(t, contracts.Phase{Phase: pushing, What: "empty (3 of 3)", Bytes: 150})
	moving.end("out-2", &contracts.StepResult{})
	told.want(t, contracts.Phase{Phase: pushing, What: "empty (3 of 3)", Bytes: 150, Of: 150})

	only := outputs(1, told.tell)
	only.begin("out-0")
	only.hear(&contracts.TransferNote{ID: "out-0", What: "a.csv", Bytes: 1, Total: 2})
	told.want(t, contracts.Phase{Phase: pushing, What: "a.csv", Bytes: 1, Of: 2})
}

func TestAPullComesBeforeTheInputsBesideIt(t *testing.T) {
	t.Parallel()
	var told told
	busy := &preparing{tell: told.tell}
	pull := func(bytes, of int64) contracts.Phase {
		return contracts.Phase{Phase: contracts.PhasePulling, Bytes: bytes, Of: of}
	}
	fetch := func(bytes int64) contracts.Phase {
		return contracts.Phase{Phase: contracts.PhaseFetchingInput, Bytes: bytes, Of: 100}
	}
	busy.pull(pull(0, 0))
	busy.fetch(fetch(1))
	busy.pull(pull(0, 0)) // nothing of it is to come as far as is known
	told.want(t, fetch(1))
	busy.pull(pull(5, 10))
	busy.fetch(fetch(2))
	told.want(t, pull(5, 10))
	busy.fetch(fetch(3))
	busy.pulled()
	told.want(t, fetch(3))
	if len(told) != 4 {
		t.Errorf("told %+v", told)
	}

	alone := &preparing{tell: told.tell}
	alone.pull(pull(0, 0))
	told.want(t, pull(0, 0))
	alone.pulled()
	told.want(t, pull(0, 0))
}
