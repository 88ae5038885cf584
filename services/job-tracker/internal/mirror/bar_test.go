package mirror

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

func shows(total, current float64, message string) girder.Progress {
	return girder.Progress{Total: &total, Current: &current, Message: &message}
}

func fetching(bytes, of, rate int64) *contracts.Phase {
	return &contracts.Phase{Phase: contracts.PhaseFetchingInput, What: "big.tif", Bytes: bytes, Of: of, Rate: rate}
}

var (
	runs    = &contracts.Phase{Phase: contracts.PhaseRunning}
	pushing = &contracts.Phase{Phase: contracts.PhasePushingOutput, What: "out.csv", Bytes: 5, Of: 10, Rate: 1}
)

// said is what a task says.
func said(total, current float64) *contracts.Progress {
	return &contracts.Progress{Total: &total, Current: &current, Message: "tile"}
}

// update is what Girder gets, which has to be news.
func (b *bar) update(t *testing.T, want girder.Progress) {
	t.Helper()
	if !b.news() {
		t.Fatal("there is nothing that Girder should show")
	}
	if diff := cmp.Diff(want, b.next()); diff != "" {
		t.Error(diff)
	}
	b.sent()
	b.quiet(t)
}

func (b *bar) quiet(t *testing.T) {
	t.Helper()
	if b.news() {
		t.Fatalf("Girder should show %+v", b.next())
	}
}

func TestABarShowsThePhaseUntilTheTaskSpeaks(t *testing.T) {
	t.Parallel()
	var b bar
	b.hear(1, nil, &contracts.Phase{Phase: contracts.PhasePulling, What: "my/image"})
	b.update(t, shows(0, 0, "Pulling image my/image"))
	b.hear(1, nil, fetching(412e6, 1e9, 105e6))
	b.update(t, shows(1e9, 412e6, "Fetching input big.tif: 412 MB of 1.0 GB, 105 MB/s, 6 s left"))
	b.hear(1, nil, fetching(412e6, 1e9, 105e6))
	b.quiet(t)
	b.hear(1, nil, fetching(412e6, 0, 105e6))
	b.update(t, shows(0, 0, "Fetching input big.tif: 412 MB, 105 MB/s"))
	b.hear(1, nil, runs)
	b.update(t, shows(0, 0, "Running"))
	b.hear(1, nil, pushing)
	b.update(t, shows(10, 5, "Uploading results out.csv: 5 B of 10 B, 1 B/s, 5 s left"))
	b.hear(1, said(25, 3), nil)
	b.update(t, shows(25, 3, "tile"))
	b.hear(1, nil, pushing)
	b.quiet(t)
	b.finish(contracts.GirderSuccess)
	b.quiet(t)
	if diff := cmp.Diff(girder.Progress{}, b.last(contracts.GirderSuccess)); diff != "" {
		t.Error(diff)
	}
}

func TestWhatATaskDoesNotSayIsNotLeftOfThePhase(t *testing.T) {
	t.Parallel()
	var b bar
	b.hear(1, nil, fetching(1, 2, 0))
	b.update(t, shows(2, 1, "Fetching input big.tif: 1 B of 2 B"))
	b.hear(1, &contracts.Progress{Message: "starting"}, nil)
	b.update(t, shows(0, 0, "starting"))
	b.hear(1, &contracts.Progress{Message: "going on"}, nil)
	going := "going on"
	b.update(t, girder.Progress{Message: &going})
}

// Why nothing moves is shown while it is so, and costs no request where it is
// over before the next update.
func TestWhatAPhaseWaitsForComesAndGoes(t *testing.T) {
	t.Parallel()
	waiting := fetching(5, 10, 0)
	waiting.Waiting = "Girder answers 503"
	var b bar
	b.hear(1, nil, fetching(5, 10, 0))
	b.update(t, shows(10, 5, "Fetching input big.tif: 5 B of 10 B"))
	b.hear(1, nil, waiting)
	b.update(t, shows(10, 5, "Fetching input big.tif: 5 B of 10 B, waiting: Girder answers 503"))
	b.hear(1, nil, waiting)
	b.quiet(t)
	b.hear(1, nil, fetching(5, 10, 0))
	b.hear(1, nil, waiting)
	b.quiet(t)
	b.hear(1, nil, fetching(5, 10, 0))
	b.update(t, shows(10, 5, "Fetching input big.tif: 5 B of 10 B"))
	b.hear(1, nil, waiting)
	b.hear(1, nil, fetching(5, 10, 0))
	b.quiet(t)
	b.hear(1, said(2, 1), nil)
	b.update(t, shows(2, 1, "tile"))
	b.hear(1, nil, waiting)
	b.quiet(t)
}

// A job that has ended waits for nothing.
func TestTheEndOfABarThatWaited(t *testing.T) {
	t.Parallel()
	waiting := fetching(5, 10, 0)
	waiting.Waiting = "Girder answers 503"
	var b bar
	b.hear(1, nil, waiting)
	b.sent()
	b.finish(contracts.GirderError)
	if diff := cmp.Diff(shows(10, 5, "Fetching input big.tif: 5 B of 10 B"), b.last(contracts.GirderError)); diff != "" {
		t.Error(diff)
	}
}

func TestAPhaseThatIsOverBeforeTheNextUpdateIsNotShown(t *testing.T) {
	t.Parallel()
	var b bar
	b.hear(1, nil, fetching(1, 2, 0))
	b.hear(1, nil, runs)
	b.quiet(t)
	b.hear(1, nil, pushing)
	b.finish(contracts.GirderSuccess)
	b.quiet(t)
	if diff := cmp.Diff(girder.Progress{}, b.last(contracts.GirderSuccess)); diff != "" {
		t.Error(diff)
	}
}

func TestTheEndOfABarThatOnlyShowedPhases(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		last   *contracts.Phase
		status contracts.GirderStatus
		want   girder.Progress
	}{
		"success":            {pushing, contracts.GirderSuccess, shows(1, 1, "Done")},
		"failed fetching":    {fetching(5, 10, 1), contracts.GirderError, shows(10, 5, "Fetching input big.tif: 5 B of 10 B")},
		"failed running":     {runs, contracts.GirderError, shows(0, 0, "Failed")},
		"canceled running":   {runs, contracts.GirderCanceled, shows(0, 0, "Canceled")},
		"canceled uploading": {pushing, contracts.GirderCanceled, shows(10, 5, "Uploading results out.csv: 5 B of 10 B")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b bar
			b.hear(1, nil, fetching(0, 10, 0))
			b.sent()
			b.hear(1, nil, c.last)
			b.finish(c.status)
			b.quiet(t)
			if diff := cmp.Diff(girder.Progress{}, b.last(contracts.GirderRunning)); diff != "" {
				t.Errorf("before the end: %s", diff)
			}
			if diff := cmp.Diff(c.want, b.last(c.status)); diff != "" {
				t.Error(diff)
			}
			b.finish(contracts.GirderCanceled) // it came in between
			if got := *b.last(contracts.GirderCanceled).Message; got == "Done" || got == "" {
				t.Errorf("canceled after all: %q", got)
			}
		})
	}
}

func TestABarThatAnotherMirrorBegan(t *testing.T) {
	t.Parallel()
	b := barOf(2, true, true)
	b.hear(2, nil, pushing)
	b.quiet(t)
	b = barOf(2, false, true)
	b.hear(1, said(1, 1), nil) // of an earlier attempt
	b.quiet(t)
	b.hear(2, nil, runs)
	b.update(t, shows(0, 0, "Running"))
	b = barOf(2, false, false)
	b.hear(2, nil, runs)
	b.quiet(t)
}

func TestTheNextAttemptHasABarOfItsOwn(t *testing.T) {
	t.Parallel()
	var b bar
	b.hear(1, said(25, 25), nil)
	b.update(t, shows(25, 25, "tile"))
	b.hear(2, nil, fetching(1, 2, 0))
	b.update(t, shows(2, 1, "Fetching input big.tif: 1 B of 2 B"))
	b.hear(1, said(25, 25), nil)
	b.quiet(t)
	b.hear(2, said(25, 1), nil)
	b.update(t, shows(25, 1, "tile"))
}
