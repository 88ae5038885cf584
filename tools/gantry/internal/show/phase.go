package show

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/phrase"
)

// phasesOf are the phases that go with a status. Notes come on another way than
// the life, so the last one may be of an earlier status, or of a later one. A
// stream into Girder is uploaded before the outputs are.
var phasesOf = map[contracts.Status][]contracts.PhaseName{
	contracts.StatusClaimed: {contracts.PhasePulling, contracts.PhaseFetchingInput},
	contracts.StatusRunning: {contracts.PhasePushingOutput},
	contracts.StatusPushing: {contracts.PhasePushingOutput},
}

// tells reports whether a phase says more than the status.
func tells(p *contracts.Phase, status contracts.Status) bool {
	return p != nil && slices.Contains(phasesOf[status], p.Phase)
}

// phaseWords is a phase within a line: "fetching input", and so on.
func phaseWords(p *contracts.Phase) phrase.Phase {
	words := phrase.Of(p)
	first, size := utf8.DecodeRuneInString(words.Doing)
	words.Doing = string(unicode.ToLower(first)) + words.Doing[size:]
	words.What, words.Waiting = Clean(words.What), Clean(words.Waiting)
	return words
}

// phaseText says all of a phase: "fetching input big.tif  412 MB of 1.0 GB  105 MB/s  6 s left",
// or why nothing moves: "fetching input big.tif  412 MB of 1.0 GB  waiting: Girder answers 503".
func phaseText(p *contracts.Phase) string { return joined(phaseWords(p)) }

func joined(words phrase.Phase) string {
	parts := []string{strings.TrimSpace(words.Doing + " " + words.What), words.Amount, words.Rate, words.Left, words.Waiting}
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), "  ")
}

// leastName is the least number of columns that a name is worth.
const leastName = 6

// numbers is how many columns the numbers of a phase mostly need.
const numbers = len("  412 MB of 97.4 GB") + len("  10.5 MB/s") + len("  25 min left")

// fitted is phaseText in so many columns: a name is shortened or left out, then
// the rate, the time left, the amount. Why nothing moves is worth more than all of
// these.
func fitted(p *contracts.Phase, columns int) string {
	words := phaseWords(p)
	if words.Waiting != "" && cellsOf(joined(words)) > columns {
		words.Amount = ""
	}
	nameless := words
	nameless.What = ""
	room := columns - cellsOf(joined(nameless)) - 1
	if words.Amount != "" { // however long the numbers are, the name ends in the same place
		room = min(room, max(columns-cellsOf(words.Doing)-1-numbers, leastName))
	}
	if room < min(leastName, cellsOf(words.What)) {
		room = 0
	}
	words.What = clip(words.What, room)
	for _, less := range []*string{&words.Rate, &words.Left, &words.Amount} {
		if cellsOf(joined(words)) > columns {
			*less = ""
		}
	}
	if words.Waiting != "" && cellsOf(joined(words)) > columns {
		words.Doing = ""
	}
	return clip(joined(words), columns)
}

// phasePercent is how far a phase is.
func phasePercent(p *contracts.Phase) (int, bool) {
	if p.Bytes > p.Of {
		return 0, false
	}
	return percent(float64(p.Bytes), float64(p.Of))
}

// phaseBrief is a phase in a word and a percentage, and whether it waits.
func phaseBrief(p *contracts.Phase) string {
	brief, _, _ := strings.Cut(phaseWords(p).Doing, " ")
	if at, known := phasePercent(p); known {
		brief += fmt.Sprintf(" %d%%", at)
	}
	if p.Waiting != "" {
		brief += ", waiting"
	}
	return brief
}
