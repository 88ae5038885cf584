// Package phrase says in words what people read in several places: numbers of
// bytes, rates, times left, and how far a phase of an attempt is. Units are
// decimal, as Girder and most networks count.
package phrase

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/gantry-worker/gantry/contracts"
)

var byteUnits = [...]string{"kB", "MB", "GB", "TB", "PB", "EB"}

// Bytes writes a number of bytes: "512 B", "4.2 kB", "97.3 MB", "412 MB".
func Bytes(n int64) string {
	if n < 1000 && n > -1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	value, unit := float64(n)/1000, 0
	for (value >= 999.5 || value <= -999.5) && unit < len(byteUnits)-1 {
		value, unit = value/1000, unit+1
	}
	digits := 1
	if value >= 99.95 || value <= -99.95 {
		digits = 0
	}
	return strconv.FormatFloat(value, 'f', digits, 64) + " " + byteUnits[unit]
}

// Rate writes how many bytes a second are moved: "105 MB/s".
func Rate(n int64) string { return Bytes(n) + "/s" }

// longest is the longest time left that is told: what would take longer is not
// known.
const longest = 100 * 24 * time.Hour

// Left writes a time that something still takes: "6 s", "2 min 5 s", "25 min",
// "3 h 5 min", "4 days". It is empty where nothing is left or nobody would wait.
func Left(d time.Duration) string {
	seconds := int64((d + time.Second - 1) / time.Second)
	minutes := (seconds + 59) / 60
	switch {
	case d <= 0, d > longest:
		return ""
	case seconds < 60:
		return fmt.Sprintf("%d s", seconds)
	case seconds < 600 && seconds%60 == 0:
		return fmt.Sprintf("%d min", seconds/60)
	case seconds < 600:
		return fmt.Sprintf("%d min %d s", seconds/60, seconds%60)
	case minutes < 60:
		return fmt.Sprintf("%d min", minutes)
	case minutes%60 == 0 && minutes < 48*60:
		return fmt.Sprintf("%d h", minutes/60)
	case minutes < 48*60:
		return fmt.Sprintf("%d h %d min", minutes/60, minutes%60)
	default:
		return fmt.Sprintf("%d days", (minutes+24*60-1)/(24*60))
	}
}

// Phase is a phase in words; what is not known is empty.
type Phase struct {
	Doing  string // "Fetching input"
	What   string // "big.tif"
	Amount string // "412 MB of 1.0 GB"
	Rate   string // "105 MB/s"
	Left   string // "6 s left"
	// Waiting is why nothing moves: "waiting: Girder answers 503 Service Unavailable".
	Waiting string
}

var doing = map[contracts.PhaseName]string{
	contracts.PhasePulling:       "Pulling image",
	contracts.PhaseFetchingInput: "Fetching input",
	contracts.PhaseRunning:       "Running",
	contracts.PhasePushingOutput: "Uploading results",
}

// Of returns the words for a phase. Rate and time left are only those of bytes
// that are not all there yet.
func Of(p *contracts.Phase) Phase {
	words := Phase{Doing: doing[p.Phase], What: line(p.What)}
	if words.Doing == "" { // of a newer version
		words.Doing = line(strings.ReplaceAll(string(p.Phase), "_", " "))
	}
	switch {
	case p.Of > 0 && p.Bytes <= p.Of:
		words.Amount = Bytes(p.Bytes) + " of " + Bytes(p.Of)
	case p.Bytes > 0:
		words.Amount = Bytes(p.Bytes)
	}
	if p.Waiting != "" {
		words.Waiting = "waiting: " + line(p.Waiting)
		return words
	}
	if p.Rate > 0 && p.Bytes != p.Of {
		words.Rate = Rate(p.Rate)
		if left, known := p.Left(); known {
			words.Left = Left(left)
		}
	}
	if words.Left != "" {
		words.Left += " left"
	}
	return words
}

// String is one sentence: "Fetching input big.tif: 412 MB of 1.0 GB, 105 MB/s, 6 s left".
func (p Phase) String() string {
	words := strings.TrimSpace(p.Doing + " " + p.What)
	var far []string
	for _, part := range []string{p.Amount, p.Rate, p.Left, p.Waiting} {
		if part != "" {
			far = append(far, part)
		}
	}
	if far == nil {
		return words
	}
	return words + ": " + strings.Join(far, ", ")
}

// line makes text of elsewhere fit into a line.
func line(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD")))
}
