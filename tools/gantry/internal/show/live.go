package show

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

// Live is what is known of a job that is being followed.
type Live struct {
	Job      contracts.JobID
	Status   contracts.Status
	Attempt  int
	Phase    *contracts.Phase
	Progress *contracts.Progress
	// Since is when following began.
	Since time.Time
}

// Percent is how far a task says it is, between 0 and 100.
func Percent(p *contracts.Progress) (int, bool) {
	if p == nil || p.Total == nil || p.Current == nil {
		return 0, false
	}
	return percent(*p.Current, *p.Total)
}

func percent(current, total float64) (int, bool) {
	share := 100 * current / total
	if math.IsNaN(share) || math.IsInf(share, 0) || total <= 0 {
		return 0, false
	}
	return int(math.Floor(min(max(share, 0), 100))), true
}

const (
	barWidth      = 24
	plainBarWidth = 20
)

// Bar draws a percentage.
func Bar(percent int, s Style) string {
	full := barWidth * percent / 100
	return s.paint(cyan, strings.Repeat("█", full)) + s.Dim(strings.Repeat("░", barWidth-full))
}

var spinner = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

// spinnerStep is how long one picture of the spinner stands.
const spinnerStep = 100 * time.Millisecond

// LiveLine is the line that is drawn again and again while a job runs: what it
// does, a bar, its own words, and the time. It fits into the terminal's width.
func LiveLine(l Live, now time.Time, s Style) string {
	elapsed := now.Sub(l.Since)
	picture := string(spinner[int(elapsed/spinnerStep)%len(spinner)])
	words := l.doing()
	at, known := l.percent()
	if message := l.message(); message != "" {
		words += "  " + message
	}
	// spinner, bar, percentage and time have a fixed width
	taken := len("x ") + len("  000:00")
	if known {
		taken += barWidth + len("  100%  ")
	}
	if s.Width > 0 {
		words = clip(words, max(s.Width-1-taken, 8))
	}
	line := s.paint(cyan, picture) + " "
	if known {
		line += fmt.Sprintf("%s %3d%%  ", Bar(at, s), at)
	}
	clock := fmt.Sprintf("%d:%02d", int(elapsed.Minutes()), int(elapsed.Seconds())%60)
	return line + words + "  " + s.Dim(clock)
}

// PlainLine says the same in words, for logs. Lines that differ by little have
// the same key, so that a caller prints one of them.
func PlainLine(l Live) (line, key string) {
	line = l.doing()
	keys := []string{string(l.Status), fmt.Sprint(l.Attempt)}
	if l.inPhase() {
		keys = append(keys, string(l.Phase.Phase), l.Phase.What)
	}
	if at, known := l.percent(); known {
		full := plainBarWidth * at / 100
		line += fmt.Sprintf("  [%s%s] %d%%", strings.Repeat("#", full), strings.Repeat("-", plainBarWidth-full), at)
		keys = append(keys, fmt.Sprint(at/10))
	} else {
		keys = append(keys, l.message())
	}
	if message := l.message(); message != "" {
		line += "  " + message
	}
	return line, strings.Join(keys, "/")
}

// doing is the status, or the phase where it says more.
func (l Live) doing() string {
	words := Clean(string(l.Status))
	switch {
	case l.Status == "":
		words = "submitted"
	case l.Status == contracts.StatusQueued:
		words = "queued, waiting for an executor"
	case l.inPhase():
		words = phaseText(l.Phase)
	}
	if l.Attempt > 1 {
		words += fmt.Sprintf(" (attempt %d)", l.Attempt)
	}
	return words
}

// phasesOf are the phases that go with a status. Notes come on another way than
// the life, so the last one may be of an earlier status, or of a later one.
var phasesOf = map[contracts.Status][]contracts.PhaseName{
	contracts.StatusClaimed: {contracts.PhasePulling, contracts.PhaseFetchingInput},
	contracts.StatusPushing: {contracts.PhasePushingOutput},
}

// inPhase reports whether the phase says more than the status.
func (l Live) inPhase() bool {
	return l.Phase != nil && slices.Contains(phasesOf[l.Status], l.Phase.Phase)
}

// runs reports whether what the task says of itself is of interest.
func (l Live) runs() bool {
	return l.Progress != nil && (l.Status == contracts.StatusRunning || l.Status == contracts.StatusCanceling)
}

func phaseText(p *contracts.Phase) string {
	words := strings.ReplaceAll(Clean(string(p.Phase)), "_", " ")
	if p.What != "" {
		words += " " + Clean(p.What)
	}
	if p.Of > 0 {
		words += fmt.Sprintf(" (%s of %s)", Bytes(p.Bytes), Bytes(p.Of))
	}
	return words
}

// percent is the task's own progress while it runs, else the phase's.
func (l Live) percent() (int, bool) {
	switch {
	case l.runs():
		return Percent(l.Progress)
	case l.inPhase():
		return percent(float64(l.Phase.Bytes), float64(l.Phase.Of))
	default:
		return 0, false
	}
}

func (l Live) message() string {
	if !l.runs() {
		return ""
	}
	return strings.TrimSpace(Clean(l.Progress.Message))
}

// End says in a sentence how a job ended.
func End(job contracts.JobID, end *contracts.Entry) string {
	switch data := end.Data.(type) {
	case *contracts.Succeeded:
		return fmt.Sprintf("job %s succeeded", job)
	case *contracts.Canceled:
		out := fmt.Sprintf("job %s was canceled", job)
		if data.By != "" {
			out += " by " + Clean(data.By)
		}
		if data.Reason != "" {
			out += ": " + Clean(data.Reason)
		}
		return out
	case *contracts.Failed:
		return fmt.Sprintf("job %s %s: %s", job, failed(data.Kind), cleanLines(data.Message))
	default:
		return fmt.Sprintf("job %s ended", job)
	}
}

func failed(kind contracts.FailureKind) string {
	switch kind {
	case contracts.FailureTimeout:
		return "ran too long"
	case contracts.FailureExpired:
		return "expired"
	default:
		return "failed"
	}
}

// Warnings says what an entry warns of, each in a line; nil warns of nothing.
func Warnings(end *contracts.Entry) []string {
	var all []string
	if end == nil {
		return nil
	}
	switch data := end.Data.(type) {
	case *contracts.Succeeded:
		all = data.Warnings
	case *contracts.Failed:
		all = data.Warnings
	}
	return warnings(all)
}

func warnings(all []string) []string {
	lines := make([]string, len(all))
	for i, warning := range all {
		lines[i] = "warning: " + Clean(strings.Join(strings.Fields(warning), " "))
	}
	return lines
}

// Turn says in a sentence what it means for a job that its attempt changed
// hands; empty where it did not. before is the job's last entry until now.
func Turn(before, e *contracts.Entry) string {
	switch data := e.Data.(type) {
	case *contracts.Adopted:
		return fmt.Sprintf("executor %s goes on with attempt %d, which another one left", Clean(string(data.Executor)), e.Attempt)
	case *contracts.Released:
		return fmt.Sprintf("executor %s stops before the container started and gives the job back", Clean(string(data.Executor)))
	case *contracts.Claimed:
		if before != nil && before.Running() && e.Crashes > before.Crashes {
			return fmt.Sprintf("attempt %d was lost with its worker, executor %s begins attempt %d", before.Attempt, Clean(string(data.Executor)), e.Attempt)
		}
	case *contracts.Failed:
		if data.WillRetry {
			return fmt.Sprintf("attempt %d failed and will be tried again: %s", e.Attempt, Clean(data.Message))
		}
	}
	return ""
}
