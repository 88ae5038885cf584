// Package show turns what Gantry knows into text for people: tables, the
// details of a job, the line that moves while a job runs. Its functions are
// pure: they get the time and say nothing by themselves. Text that came from
// elsewhere is freed of control characters, so that no title can play tricks on
// a terminal.
package show

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/phrase"
)

// Style says what the reader's terminal can do.
type Style struct {
	// Color allows colors.
	Color bool
	// Width is the number of columns, 0 where there is no terminal.
	Width int
}

type color string

const (
	bold   color = "1"
	dim    color = "2"
	red    color = "31"
	green  color = "32"
	yellow color = "33"
	cyan   color = "36"
)

func (s Style) paint(c color, text string) string {
	if !s.Color || c == "" || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// Bold returns the text so that it stands out.
func (s Style) Bold(text string) string { return s.paint(bold, text) }

// Dim returns the text so that it steps back.
func (s Style) Dim(text string) string { return s.paint(dim, text) }

// Good returns the text as good news.
func (s Style) Good(text string) string { return s.paint(green, text) }

// Warn is for what needs attention soon.
func (s Style) Warn(text string) string { return s.paint(yellow, text) }

// Bad returns the text as bad news.
func (s Style) Bad(text string) string { return s.paint(red, text) }

var statusColors = map[contracts.Status]color{
	contracts.StatusSucceeded: green,
	contracts.StatusFailed:    red,
	contracts.StatusCanceled:  yellow,
	contracts.StatusCanceling: yellow,
	contracts.StatusRetrying:  yellow,
	contracts.StatusClaimed:   cyan,
	contracts.StatusRunning:   cyan,
	contracts.StatusPushing:   cyan,
}

func (s Style) status(status contracts.Status) string {
	return s.paint(statusColors[status], Clean(string(status)))
}

// Clean replaces control characters by spaces.
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
}

// cleanLines is Clean for text of several lines.
func cleanLines(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\r\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(Clean(lines[i]), " ")
	}
	return strings.Join(lines, "\n")
}

// cellsOf is how many columns a text takes on a terminal.
func cellsOf(line string) int {
	cells := 0
	for _, r := range line {
		cells += text.RuneWidth(r)
	}
	return cells
}

// clip shortens a text to at most so many columns.
func clip(line string, columns int) string {
	switch {
	case cellsOf(line) <= columns:
		return line
	case columns < 1:
		return ""
	}
	cells := 0
	for i, r := range line {
		if cells += text.RuneWidth(r); cells >= columns {
			return line[:i] + "…"
		}
	}
	return line
}

// Duration writes a length of time as a person would say it.
func Duration(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// ago writes how long before now a time was, in one unit.
func ago(t, now time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "-"
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", max(int(d.Seconds()), 0))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd ago", int(d.Hours()/24))
	}
}

// Bytes writes a number of bytes with a unit.
func Bytes(n int64) string { return phrase.Bytes(n) }

// Count writes a number with its noun: 1 slot, 2 slots.
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "sh") {
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
