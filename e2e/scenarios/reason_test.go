package scenarios

import (
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// checkReason waits for a job's failure and checks that the reason, with all
// the words, stands wherever its owner may look: in its life, in the Girder
// job's log and in `gantry jobs show`.
func checkReason(t *testing.T, g *setup.Gantry, job contracts.JobID, kind contracts.FailureKind, words ...string) {
	t.Helper()
	failed := g.AwaitFailure(job)
	if failed.Kind != kind {
		t.Errorf("failed as %s (%s), want %s", failed.Kind, failed.Message, kind)
	}
	mirrored := g.AwaitMirrored(job)
	if got := setup.Statuses(mirrored); !slices.Equal(got, []string{"RUNNING", "ERROR"}) {
		t.Errorf("Girder's history: %v", got)
	}
	g.AwaitJob(job, func(j *contracts.Job) bool { return j.Status.Terminal() })
	places := map[string]string{
		"the life": failed.Message, "Girder's log": setup.LogOf(mirrored), "gantry jobs show": g.MustGantry("jobs", "show", string(job)),
	}
	for place, text := range places {
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("%q is missing in %s, which says %q", word, place, text)
			}
		}
	}
}
