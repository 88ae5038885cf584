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

// What moves speaks for all: why nothing does is told when every step waits.
func TestAPhaseWaitsWhenAllOfItsStepsDo(t *testing.T) {
	t.Parallel()
	const fetching = contracts.PhaseFetchingInput
	var told told
	moving := inputs(steps("in-0", "in-1", "in-2"), told.tell)
	waits := func(id, what, why string) *contracts.TransferNote {
		return &contracts.TransferNote{ID: id, What: what, Bytes: 10, Total: 100, Waiting: why}
	}
	moving.end("in-0", &contracts.StepResult{Bytes: 100})
	moving.hear(waits("in-2", "c.tif", "no room on the disk"))
	told.want(t, contracts.Phase{Phase: fetching, What: "c.tif and 1 more", Bytes: 110}) // nothing is known of the other
	moving.hear(waits("in-1", "b.tif", "Girder answers 503"))
	told.want(t, contracts.Phase{Phase: fetching, What: "b.tif and 1 more", Bytes: 120, Of: 300, Waiting: "Girder answers 503"})
	moving.hear(&contracts.TransferNote{ID: "in-2", What: "c.tif", Bytes: 20, Total: 100, Rate: 5})
	told.want(t, contracts.Phase{Phase: fetching, What: "b.tif and 1 more", Bytes: 130, Of: 300, Rate: 5})
	moving.end("in-2", &contracts.StepResult{Bytes: 100})
	told.want(t, contracts.Phase{Phase: fetching, What: "b.tif", Bytes: 210, Of: 300, Waiting: "Girder answers 503"})
	moving.end("in-1", &contracts.StepResult{Bytes: 100})
	told.want(t, contracts.Phase{Phase: fetching, Bytes: 300, Of: 300})

	pushed := outputs(2, told.tell)
	pushed.begin("out-0")
	pushed.hear(waits("out-0", "a.csv", "Girder answers 503"))
	told.want(t, contracts.Phase{Phase: contracts.PhasePushingOutput, What: "a.csv (1 of 2)", Bytes: 10, Of: 100, Waiting: "Girder answers 503"})
}

// A transfer that is not there is told of in time, until one answers.
func TestATransferThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		step := &contracts.Step{Step: "in-0"}
		told := make(chan contracts.Phase, 10)
		moving := inputs([]contracts.Step{*step}, func(phase contracts.Phase) { told <- phase })
		want := func(want ...contracts.Phase) {
			t.Helper()
			synctest.Wait()
			for _, phase := range want {
				if got := <-told; got != phase {
					t.Errorf("told %+v, want %+v", got, phase)
				}
			}
			if len(told) != 0 {
				t.Errorf("told as well: %+v", <-told)
			}
		}
		heard, stop := unanswered(step, moving.hear)
		time.Sleep(answerPatience - time.Nanosecond)
		want()
		time.Sleep(time.Nanosecond)
		want(contracts.Phase{Phase: contracts.PhaseFetchingInput, Waiting: noTransfer})
		heard(&contracts.TransferNote{ID: "in-0", What: "a"})
		want(contracts.Phase{Phase: contracts.PhaseFetchingInput, What: "a"})
		stop()

		heard, stop = unanswered(step, moving.hear) // one that answers
		heard(&contracts.TransferNote{ID: "in-0", What: "b"})
		_, done := unanswered(step, moving.hear) // one that is done at once
		done()
		time.Sleep(time.Hour)
		want(contracts.Phase{Phase: contracts.PhaseFetchingInput, What: "b"})
		stop()
	})
}

// Streams that do not begin are told of where nothing else is to be told.
func TestStreamsThatWaitAreAPhase(t *testing.T) {
	t.Parallel()
	const fetching = contracts.PhaseFetchingInput
	wait := contracts.Phase{Phase: fetching, Waiting: noTransfer}
	pull := contracts.Phase{Phase: contracts.PhasePulling, Bytes: 5, Of: 10}
	input := contracts.Phase{Phase: fetching, Bytes: 1, Of: 2}

	var told told
	alone := &preparing{tell: told.tell}
	alone.fetched()
	alone.pull(pull)
	alone.open(wait)
	told.want(t, pull)
	alone.pulled()
	told.want(t, wait)
	alone.open(contracts.Phase{Phase: fetching})
	told.want(t, contracts.Phase{Phase: fetching})

	beside := &preparing{tell: told.tell}
	beside.fetch(input)
	beside.open(wait)
	told.want(t, input) // which move
	beside.fetched()
	told.want(t, wait)
	said := len(told)
	beside.open(wait)
	if len(told) != said {
		t.Errorf("told the same again: %+v", told[said:])
	}
}
