package setup

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
)

// storyLines is how much of the services' logs a story has.
const storyLines = 80

// inquiry is for what is asked when a test may have waited for too long.
func (g *Gantry) inquiry() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(g.ctx), answerTime)
}

// giveUp ends the test, and tells all that is known of the job.
func (g *Gantry) giveUp(job contracts.JobID, format string, args ...any) {
	g.T.Helper()
	g.T.Log(g.Story(job))
	g.T.Fatalf(format, args...)
}

// Story is everything that is known of a job, for whoever has to find out why
// it went wrong: its life, and what the services logged about it.
func (g *Gantry) Story(job contracts.JobID) string {
	g.T.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "the life of %s:\n", job)
	ctx, cancel := g.inquiry()
	defer cancel()
	life, err := g.Life(ctx, job)
	if err != nil {
		fmt.Fprintln(&text, " ", err)
	}
	for _, entry := range life {
		data, err := json.Marshal(entry.Data)
		if entry.Type == contracts.EntrySubmitted || err != nil {
			data = nil
		}
		fmt.Fprintf(&text, "  %s %s attempt %d offer %d crashes %d by %s %s\n", entry.Time.Format("15:04:05.000"),
			entry.Type, entry.Attempt, entry.Offer, entry.Crashes, entry.Source, data)
	}
	for _, p := range g.services() {
		log, err := os.ReadFile(p.LogFile)
		if err != nil {
			continue // it was never started
		}
		var lines []string
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, string(job)) {
				lines = append(lines, "  "+line)
			}
		}
		fmt.Fprintf(&text, "the log of %s about it (last %d of %d lines), which was started last at %s:\n", p.Name, min(len(lines), storyLines), len(lines),
			p.startedAt().Format(time.TimeOnly))
		text.WriteString(strings.Join(lines[max(0, len(lines)-storyLines):], ""))
	}
	return text.String()
}
