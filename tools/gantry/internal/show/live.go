package show

import (
	"fmt"
	"math"
	"math/bits"
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

// barOf is how wide a bar is on a terminal: where much else is to be said, there
// is none on a narrow one.
func barOf(width int, muchElse bool) int {
	switch {
	case width == 0 || width >= 120:
		return barWidth
	case muchElse && width < 100 || width < 60:
		return 0
	case muchElse:
		return barWidth / 2
	default:
		return barWidth
	}
}

// Bar draws a percentage in so many columns.
func Bar(percent, width int, s Style) string {
	full := width * percent / 100
	return s.paint(cyan, strings.Repeat("█", full)) + s.Dim(strings.Repeat("░", width-full))
}

var spinner = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

// spinnerStep is how long one picture of the spinner stands.
const spinnerStep = 100 * time.Millisecond

// LiveLine is the line that is drawn again and again while a job runs: what it
// does, a bar, its own words, and the time. It fits into the terminal's width.
func LiveLine(l Live, now time.Time, s Style) string {
	elapsed := now.Sub(l.Since)
	head := s.paint(cyan, string(spinner[int(elapsed/spinnerStep)%len(spinner)])) + " "
	taken := len("x ")
	if at, known := l.percent(); known {
		if width := barOf(s.Width, l.inPhase()); width > 0 {
			head += Bar(at, width, s) + " "
			taken += width + len(" ")
		}
		head += fmt.Sprintf("%3d%%  ", at)
		taken += len("100%  ")
	}
	clock := fmt.Sprintf("%d:%02d", int(elapsed.Minutes()), int(elapsed.Seconds())%60)
	taken += len("  ") + len(clock)
	columns := math.MaxInt
	if s.Width > 0 {
		columns = max(s.Width-1-taken, 8)
	}
	return head + l.words(columns) + "  " + s.Dim(clock)
}

// words says what goes on, in so many columns.
func (l Live) words(columns int) string {
	if l.inPhase() {
		again := l.again()
		return clip(fitted(l.Phase, columns-cellsOf(again))+again, columns)
	}
	words := l.doing()
	if message := l.message(); message != "" {
		words += "  " + message
	}
	return clip(words, columns)
}

// PlainLine says the same in words, for logs. Lines that differ by little have
// the same key, so that a caller prints one of them.
func PlainLine(l Live) (line, key string) {
	keys := []string{string(l.Status), fmt.Sprint(l.Attempt)}
	if l.inPhase() {
		keys = append(keys, string(l.Phase.Phase))
		if l.Phase.Waiting != "" {
			keys = append(keys, phaseWords(l.Phase).Waiting)
		}
	}
	at, known := l.percent()
	bar := ""
	if known {
		full := plainBarWidth * at / 100
		bar = fmt.Sprintf("  [%s%s] %d%%", strings.Repeat("#", full), strings.Repeat("-", plainBarWidth-full), at)
		keys = append(keys, fmt.Sprint(at/10))
	}
	switch {
	case l.inPhase() && known:
		return l.doing() + bar + "  " + farOf(l.Phase), strings.Join(keys, "/")
	case l.inPhase():
		words := strings.Join(nonEmpty(l.doing(), farOf(l.Phase)), "  ")
		// Each time that there is twice as much: nobody knows how much it will be.
		return words, strings.Join(append(keys, fmt.Sprint(bits.Len64(uint64(max(l.Phase.Bytes, 0)>>plainStep)))), "/")
	case !known:
		keys = append(keys, l.message())
	}
	return strings.Join(nonEmpty(l.doing()+bar, l.message()), "  "), strings.Join(keys, "/")
}

// plainStep is from how many bytes on, as a power of two, a plain line tells of a
// movement without a known end.
const plainStep = 26

func farOf(p *contracts.Phase) string {
	words := phaseWords(p)
	return strings.Join(nonEmpty(words.Amount, words.Rate, words.Left, words.Waiting), "  ")
}

func nonEmpty(parts ...string) []string {
	return slices.DeleteFunc(parts, func(part string) bool { return part == "" })
}

// doing is the status, or the phase where it says more.
func (l Live) doing() string {
	words := Clean(string(l.Status))
	switch {
	case l.Status == "":
		words = "submitted"
	case l.Status == contracts.StatusQueued:
		words = "queued, waiting for an executor"
	case l.Status == contracts.StatusClaimed && l.Phase != nil && l.Phase.Phase == contracts.PhaseRunning:
		words = "starting" // the entry follows
	case l.Status == contracts.StatusPushing && !l.inPhase(): // the note follows
		words = phaseWords(&contracts.Phase{Phase: contracts.PhasePushingOutput}).Doing
	case l.inPhase():
		phase := phaseWords(l.Phase)
		words = strings.TrimSpace(phase.Doing + " " + phase.What)
	}
	return words + l.again()
}

// again says that it is not the first attempt.
func (l Live) again() string {
	if l.Attempt > 1 {
		return fmt.Sprintf(" (attempt %d)", l.Attempt)
	}
	return ""
}

func (l Live) inPhase() bool { return tells(l.Phase, l.Status) }

// runs reports whether what the task says of itself is of interest.
func (l Live) runs() bool {
	return l.Progress != nil && !l.inPhase() && (l.Status == contracts.StatusRunning || l.Status == contracts.StatusCanceling)
}

// percent is the task's own progress while it runs, else the phase's.
func (l Live) percent() (int, bool) {
	switch {
	case l.runs():
		return Percent(l.Progress)
	case l.inPhase():
		return phasePercent(l.Phase)
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
		back := fmt.Sprintf("executor %s gives attempt %d back before its container started", Clean(string(data.Executor)), e.Attempt)
		if data.Reason != "" {
			back += ": " + Clean(data.Reason)
		}
		return back
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
