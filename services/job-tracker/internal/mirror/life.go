package mirror

import (
	"fmt"

	"github.com/gantry-worker/gantry/contracts"
)

// life is what a mirror knows of its job's life.
type life struct {
	seq      uint64 // of the last entry that was read
	last     *contracts.Entry
	ends     map[int]attemptEnd // of attempts behind which the job goes on
	terminal *contracts.Entry
}

// attemptEnd says how an attempt ended behind which the job goes on.
type attemptEnd struct {
	// logSeq is the seq of its last piece of log, where known.
	logSeq uint64
	known  bool
	// line tells people about it, empty for nothing to tell.
	line string
}

func (l *life) add(entry *contracts.Entry, seq uint64) {
	before := l.last
	l.seq, l.last = seq, entry
	if l.ends == nil {
		l.ends = map[int]attemptEnd{}
	}
	switch data := entry.Data.(type) {
	case *contracts.Failed:
		if data.WillRetry {
			l.ends[entry.Attempt] = attemptEnd{data.LogSeq, true, withWarnings(data.Message+" (will be tried again)", data.Warnings)}
		}
	case *contracts.Claimed:
		lost := entry.Attempt - 1
		if _, told := l.ends[lost]; lost > 0 && !told && before != nil && before.Running() {
			l.ends[lost] = attemptEnd{line: fmt.Sprintf("Attempt %d was lost with its worker, attempt %d begins.", lost, entry.Attempt)}
		}
	}
	if entry.Terminal() {
		l.terminal = entry
	}
}

// attempted reports whether an attempt was begun.
func (l *life) attempted() bool { return l.last != nil && l.last.Attempt > 0 }

// started reports whether the present attempt is past its gate for certain.
func (l *life) started() bool {
	if l.last == nil {
		return false
	}
	switch l.last.Type {
	case contracts.EntryStarted, contracts.EntryPushing, contracts.EntryPushed:
		return true
	default:
		return false
	}
}

// target is the status that Girder should show before the end, also of a job
// that has ended by now: RUNNING for one that was attempted. One that waits has
// none, except where its handler asks for QUEUED.
func (l *life) target(handler contracts.GirderHandler) (contracts.GirderStatus, bool) {
	switch {
	case l.attempted():
		return contracts.GirderRunning, true
	case handler == contracts.HandlerWorker && l.terminal == nil && l.last != nil && l.last.Type != contracts.EntrySubmitted:
		return contracts.GirderQueued, true
	default:
		return contracts.GirderInactive, false
	}
}

func finalStatus(terminal *contracts.Entry) contracts.GirderStatus {
	switch terminal.Data.(type) {
	case *contracts.Succeeded:
		return contracts.GirderSuccess
	case *contracts.Canceled:
		return contracts.GirderCanceled
	default:
		return contracts.GirderError
	}
}

// lastLogSeq returns the seq of the last piece of log of the attempt that the
// job ended with.
func lastLogSeq(terminal *contracts.Entry) uint64 {
	switch data := terminal.Data.(type) {
	case *contracts.Succeeded:
		return data.LogSeq
	case *contracts.Failed:
		return data.LogSeq
	case *contracts.Canceled:
		return data.LogSeq
	default:
		return 0
	}
}
