package mirror

import (
	"strings"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/phrase"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// bar is the progress of a Girder job: what the task says of itself, and, until
// it says anything, what its attempt is busy with. A phase that nobody would see
// is not worth a request: one that is over before the next update, and Running
// where the bar has shown nothing else.
type bar struct {
	attempt int  // that the rest is about
	said    bool // the task says how far it is
	ours    bool // what Girder shows is a phase
	shown   contracts.Phase

	// What Girder does not know yet.
	progress *contracts.Progress
	phase    *contracts.Phase
	end      *girder.Progress // goes with the last status
}

// barOf goes on with the bar of a job whose mirror ran before: said says whether
// the task's present attempt did, shown whether Girder shows anything of
// that mirror.
func barOf(attempt int, said, shown bool) bar {
	return bar{attempt: attempt, said: said, ours: shown && !said}
}

// hear takes in what an attempt says, its progress or its phase.
func (b *bar) hear(attempt int, progress *contracts.Progress, phase *contracts.Phase) {
	if attempt < b.attempt || progress == nil && phase == nil {
		return
	}
	if attempt > b.attempt {
		*b = bar{attempt: attempt, ours: b.ours, shown: b.shown}
	}
	switch {
	case progress != nil:
		b.said, b.progress, b.phase = true, progress, nil
	case !b.said:
		b.phase = phase
	}
}

// news reports whether there is anything that Girder should show.
func (b *bar) news() bool {
	if b.phase != nil && b.phase.Phase == contracts.PhaseRunning {
		return b.ours && b.shown.Phase != contracts.PhaseRunning
	}
	return b.progress != nil || b.phase != nil && *b.phase != b.shown
}

// next returns the news.
func (b *bar) next() girder.Progress {
	if b.progress == nil {
		return progressOfPhase(b.phase)
	}
	progress := progressOf(b.progress)
	if b.ours { // what the task does not say must not be left of the phase
		nothing, silent := 0.0, ""
		if progress.Total == nil {
			progress.Total = &nothing
		}
		if progress.Current == nil {
			progress.Current = &nothing
		}
		if progress.Message == nil {
			progress.Message = &silent
		}
	}
	return progress
}

// sent says that Girder has the news.
func (b *bar) sent() {
	if b.progress != nil {
		b.ours = false
	} else if b.phase != nil {
		b.ours, b.shown = true, *b.phase
	}
	b.progress, b.phase = nil, nil
}

// finish decides what the bar of a job shows that has ended: what its task said
// last, or else that it is done, or how far it came.
func (b *bar) finish(status contracts.GirderStatus) {
	if b.said || !b.ours {
		b.phase = nil
		return
	}
	last := b.shown
	if b.phase != nil {
		last = *b.phase
	}
	last.Rate, last.Waiting, b.phase = 0, "", nil
	b.shown = last
	end := progressOfPhase(&last)
	words := ""
	switch {
	case status == contracts.GirderSuccess:
		words = "Done"
		all := 1.0
		end.Total, end.Current = &all, &all
	case last.Phase != contracts.PhaseRunning && last.Phase != "":
	case status == contracts.GirderCanceled:
		words = "Canceled"
	default:
		words = "Failed"
	}
	if words != "" {
		end.Message = &words
	}
	b.end = &end
}

// last returns what goes with a status, nothing but with the last one.
func (b *bar) last(status contracts.GirderStatus) girder.Progress {
	if b.end == nil || !status.Terminal() {
		return girder.Progress{}
	}
	return *b.end
}

// progressOfPhase is a bar in bytes; one without a known end has no width.
func progressOfPhase(p *contracts.Phase) girder.Progress {
	total, current := float64(p.Of), float64(p.Bytes)
	if p.Of <= 0 || p.Bytes > p.Of || p.Phase == contracts.PhaseRunning {
		total, current = 0, 0
	}
	message := cut(phrase.Of(p).String())
	return girder.Progress{Total: &total, Current: &current, Message: &message}
}

// maxProgressMessage bounds the text below a progress bar, in bytes.
const maxProgressMessage = 4 << 10

func cut(message string) string {
	return strings.ToValidUTF8(message[:min(len(message), maxProgressMessage)], "")
}

// progressOf leaves out what is not a number, which the client does as well:
// Girder could not show such a job any more.
func progressOf(p *contracts.Progress) girder.Progress {
	progress := girder.Progress{Total: p.Total, Current: p.Current}
	if p.Message != "" {
		message := cut(p.Message)
		progress.Message = &message
	}
	return progress
}
