package show_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/gantry/internal/show"
)

func fetching(what string, bytes, of, rate int64) *contracts.Phase {
	return &contracts.Phase{Phase: contracts.PhaseFetchingInput, What: what, Bytes: bytes, Of: of, Rate: rate}
}

// waiting is a phase in which nothing moves.
func waiting(p *contracts.Phase, why string) *contracts.Phase {
	p.Waiting = why
	return p
}

// phases are those that people see, and some that they should not.
var phases = []*contracts.Phase{
	fetching("big.tif", 412e6, 1e9, 105e6),
	fetching("big.tif", 0, 1e9, 0),
	fetching("big.tif", 1e9, 1e9, 105e6),
	fetching("", 0, 0, 0),
	fetching("big.tif", 12_345_678, 0, 10_500_000),
	fetching("grown.tif", 2e9, 1e9, 5),
	fetching("slide 4711 of the second series, stained.ome.tif and 12 more", 98_765_432_100, 987e9, 99_949_000),
	fetching("肺のスライド画像 第二シリーズ.tif", 412e6, 1e9, 105e6),
	fetching("evil\x1b[2J\nname\u2028", 412e6, 1e9, 105e6),
	waiting(fetching("big.tif", 412e6, 1e9, 0), "Girder answers 503 Service Unavailable"),
	waiting(fetching("slide 4711 of the second series, stained.ome.tif", 0, 0, 0), "no\x1b[2J connection\nto girder.example.org"),
	{Phase: contracts.PhasePulling, What: "registry.example.org/pathology/segment-lung:2026.3", Bytes: 12e6, Of: 40e6, Rate: 3e6},
}

func TestAPhaseFitsIntoEveryWidth(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	for _, width := range []int{20, 40, 60, 80, 100, 120, 200} {
		fmt.Fprintf(&out, "%d columns\n", width)
		for _, phase := range phases {
			l := show.Live{Status: contracts.StatusClaimed, Attempt: 1, Phase: phase, Since: before(65 * time.Second)}
			line := show.LiveLine(l, now, show.Style{Width: width})
			if got := text.StringWidthWithoutEscSequences(line); got >= max(width, 24) {
				t.Errorf("%d columns of %d: %s", got, width, line)
			}
			out.WriteString(line + "\n")
		}
	}
	golden(t, "phases", out.String())
}

func TestAPhaseInPlainLinesAndTables(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	for _, phase := range phases {
		line, key := show.PlainLine(show.Live{Status: contracts.StatusClaimed, Attempt: 2, Phase: phase})
		out.WriteString(line + "  [" + key + "]\n")
	}
	job := &contracts.Job{ID: "big-one", Status: contracts.StatusClaimed, Title: "Segment", Queue: "default", Attempt: 1, Phase: phases[0], SubmittedAt: now}
	other := *job
	other.ID, other.Phase = "unknown", phases[4]
	stuck := *job
	stuck.ID, stuck.Phase = "stuck", phases[9]
	late := *job // its note came before its entry
	late.ID, late.Status = "late", contracts.StatusRunning
	out.WriteString(show.Jobs(&contracts.JobList{Jobs: []contracts.Job{*job, other, stuck, late}, Total: 4}, now, show.Style{}))
	out.WriteString(show.Job(job, false, now, show.Style{}))
	out.WriteString(show.Job(job, true, now, show.Style{}))
	out.WriteString(show.Job(&stuck, false, now, show.Style{Width: 80}))
	out.WriteString(show.Job(&stuck, true, now, show.Style{Width: 80}))
	out.WriteString(show.Job(&late, false, now, show.Style{}))
	golden(t, "phases_plain", out.String())
}

// The bar stands where it is however long the words beside it are.
func TestTheBarDoesNotMove(t *testing.T) {
	t.Parallel()
	for _, width := range []int{80, 100, 120} {
		at := -2
		for bytes := int64(0); bytes < 20e9; bytes += 37_123_456 {
			l := show.Live{Status: contracts.StatusClaimed, Phase: fetching("big.tif", bytes, 20e9, bytes/7), Since: now}
			line := show.LiveLine(l, now, show.Style{Width: width})
			percent := strings.Index(strings.Map(func(r rune) rune {
				if r > 127 {
					return 'x' // one byte a column
				}
				return r
			}, line), "%")
			if at == -2 {
				at = percent
			}
			if percent != at {
				t.Fatalf("the percentage moved from column %d to %d: %s", at, percent, line)
			}
		}
	}
}

// Notes and entries come on two ways: whatever comes first, the words fit.
func TestAPhaseOfAnotherStatus(t *testing.T) {
	t.Parallel()
	running := &contracts.Phase{Phase: contracts.PhaseRunning}
	for want, l := range map[string]show.Live{
		"⠋ starting  0:00":                                    {Status: contracts.StatusClaimed, Phase: running},
		"⠋ uploading results  0:00":                           {Status: contracts.StatusPushing, Phase: running},
		"⠋ running  0:00":                                     {Status: contracts.StatusRunning, Phase: phases[0]},
		"⠋   0%  uploading results out.csv  0 B of 5 B  0:00": {Status: contracts.StatusRunning, Phase: &contracts.Phase{Phase: contracts.PhasePushingOutput, What: "out.csv", Of: 5}},
	} {
		l.Since = now
		if line := show.LiveLine(l, now, show.Style{Width: 90}); line != want {
			t.Errorf("got %q, want %q", line, want)
		}
	}
}
