package contracts

import (
	"fmt"
	"slices"
	"time"
)

// after lists, for each type, the types that may stand right before it. A
// failed entry counts only while it will be retried; a job's first entry has
// no predecessor.
var after = map[EntryType][]EntryType{
	EntrySubmitted: nil,
	EntryQueued:    {EntrySubmitted, EntryFailed},
	EntryClaimed:   {EntryQueued, EntryReleased, EntryClaimed, EntryAdopted, EntryStarted, EntryPushing, EntryPushed},
	EntryAdopted:   {EntryClaimed, EntryAdopted, EntryStarted, EntryCanceling, EntryPushing, EntryPushed},
	EntryReleased:  {EntryClaimed, EntryAdopted},
	EntryStarted:   {EntryClaimed, EntryAdopted},
	EntryCanceling: {EntryClaimed, EntryAdopted, EntryStarted, EntryPushing, EntryPushed},
	EntryPushing:   {EntryStarted, EntryAdopted, EntryPushing, EntryPushed},
	EntryPushed:    {EntryPushing, EntryPushed, EntryAdopted},
	EntrySucceeded: {EntryStarted, EntryAdopted, EntryPushing, EntryPushed},
	EntryFailed: {
		EntrySubmitted, EntryQueued, EntryReleased, EntryClaimed, EntryAdopted, EntryStarted,
		EntryPushing, EntryPushed, EntryFailed,
	},
	EntryCanceled: {EntrySubmitted, EntryQueued, EntryReleased, EntryCanceling, EntryAdopted, EntryFailed},
}

// CheckNext says whether next may follow last, which is nil for a job without
// a life: by type, and by the numbers of attempt, offer, crashes and failures.
// The error wraps [ErrIllegalEntry].
func CheckNext(last, next *Entry) error {
	if last == nil {
		if next.Type != EntrySubmitted {
			return fmt.Errorf("%w: %s is no first entry", ErrIllegalEntry, next.Type)
		}
		if next.Attempt != 0 || next.Offer != 0 || next.Crashes != 0 || next.Failures != 0 {
			return fmt.Errorf("%w: a first entry counts nothing", ErrIllegalEntry)
		}
		return nil
	}
	if last.Terminal() {
		return fmt.Errorf("%w: %s follows %s, which is terminal", ErrIllegalEntry, next.Type, last.Type)
	}
	if !slices.Contains(after[next.Type], last.Type) {
		return fmt.Errorf("%w: %s follows %s", ErrIllegalEntry, next.Type, last.Type)
	}
	return checkNumbers(last, next)
}

func checkNumbers(last, next *Entry) error {
	attempt, offer := last.Attempt, last.Offer
	switch next.Type {
	case EntryClaimed:
		attempt++
	case EntryQueued:
		offer++
	}
	if next.Attempt != attempt || next.Offer != offer {
		return fmt.Errorf("%w: %s of attempt %d, offer %d follows %s of attempt %d, offer %d",
			ErrIllegalEntry, next.Type, next.Attempt, next.Offer, last.Type, last.Attempt, last.Offer)
	}
	crashes, failures := last.Crashes, last.Failures
	switch {
	case next.Type == EntryClaimed && last.Running():
		crashes++
	case next.Type == EntryFailed && last.Running():
		if failed, ok := next.Data.(*Failed); ok && failed.Kind == FailureInfrastructure {
			crashes++
		} else {
			failures++
		}
	}
	if next.Crashes != crashes || next.Failures != failures {
		return fmt.Errorf("%w: %s with %d crashes and %d failures follows %s with %d and %d",
			ErrIllegalEntry, next.Type, next.Crashes, next.Failures, last.Type, last.Crashes, last.Failures)
	}
	return nil
}

// NextEntry returns the entry that says data on top of last, which is nil for
// a job's first entry; job is needed only then. Its numbers are those that
// [CheckNext] asks for.
func NextEntry(last *Entry, job JobID, source string, data EntryData) *Entry {
	next := &Entry{
		Version: Version,
		Type:    data.EntryType(),
		Entry:   NewToken(),
		Job:     job,
		Time:    time.Now().UTC(),
		Source:  source,
		Data:    data,
	}
	if last == nil {
		return next
	}
	next.Job, next.Attempt, next.Offer = last.Job, last.Attempt, last.Offer
	next.Crashes, next.Failures = last.Crashes, last.Failures
	switch d := data.(type) {
	case *Queued:
		next.Offer++
	case *Claimed:
		next.Attempt++
		if last.Running() {
			next.Crashes++
		}
	case *Failed:
		if last.Running() && d.Kind == FailureInfrastructure {
			next.Crashes++
		} else if last.Running() {
			next.Failures++
		}
	}
	return next
}

// DecideRetry fills in whether a new attempt follows the failure, and when.
// last is the entry that the failure will follow.
func (f *Failed) DecideRetry(retry *Retry, last *Entry, now time.Time) {
	ended, allowed := last.Failures, retry.Failures()
	if f.Kind == FailureInfrastructure {
		ended, allowed = last.Crashes, retry.Crashes()
	}
	f.WillRetry = ended < allowed && (f.Kind == FailureTask || f.Kind == FailureInfrastructure || f.Kind == FailureTimeout)
	if f.WillRetry {
		f.RetryAt = now.Add(retry.Delay(last.Crashes + last.Failures + 1)).UTC()
	}
}
