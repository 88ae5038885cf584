package contracts

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// entryKinds are the entry types as a table of what may follow needs them: a
// failure that will be retried is no end.
var entryKinds = map[string]func() EntryData{
	"submitted": func() EntryData { return &Submitted{Task: &Task{}} },
	"queued":    func() EntryData { return &Queued{} },
	"claimed":   func() EntryData { return &Claimed{} },
	"adopted":   func() EntryData { return &Adopted{} },
	"released":  func() EntryData { return &Released{} },
	"started":   func() EntryData { return &Started{} },
	"canceling": func() EntryData { return &Canceling{} },
	"pushing":   func() EntryData { return &Pushing{} },
	"pushed":    func() EntryData { return &Pushed{} },
	"succeeded": func() EntryData { return &Succeeded{} },
	"failed":    func() EntryData { return &Failed{Kind: FailureTask} },
	"retrying":  func() EntryData { return &Failed{Kind: FailureTask, WillRetry: true} },
	"canceled":  func() EntryData { return &Canceled{} },
}

// mayFollow lists what may stand right after each kind of entry, "" for a job
// without a life.
var mayFollow = map[string][]string{
	"": {"submitted"},
	// Intake queues, rejects, or finds the job revoked.
	"submitted": {"queued", "failed", "retrying", "canceled"},
	// An executor claims; the dispatcher cancels or gives up.
	"queued":   {"claimed", "failed", "retrying", "canceled"},
	"released": {"claimed", "failed", "retrying", "canceled"},
	// The owner goes on, a starting executor of its node adopts, another one
	// takes over. An owner stops by way of canceling.
	"claimed": {"claimed", "adopted", "released", "started", "canceling", "failed", "retrying"},
	"started": {"claimed", "adopted", "canceling", "pushing", "succeeded", "failed", "retrying"},
	"pushing": {"claimed", "adopted", "canceling", "pushing", "pushed", "succeeded", "failed", "retrying"},
	"pushed":  {"claimed", "adopted", "canceling", "pushing", "pushed", "succeeded", "failed", "retrying"},
	// The adopter is anywhere between claimed and the end, canceling included.
	"adopted": {
		"claimed", "adopted", "released", "started", "canceling", "pushing", "pushed",
		"succeeded", "failed", "retrying", "canceled",
	},
	// A job that is canceling ends canceled, whoever has to write it.
	"canceling": {"adopted", "canceled"},
	// The dispatcher offers it again, gives up, or finds it revoked.
	"retrying":  {"queued", "failed", "retrying", "canceled"},
	"succeeded": {},
	"failed":    {},
	"canceled":  {},
}

// last returns an entry with numbers that none of the others has.
func last(kind string) *Entry {
	if kind == "" {
		return nil
	}
	data := entryKinds[kind]()
	return &Entry{Version: Version, Type: data.EntryType(), Job: "j", Attempt: 5, Offer: 3, Crashes: 2, Failures: 1, Data: data}
}

func TestCheckNextForEveryPair(t *testing.T) {
	t.Parallel()
	if len(mayFollow) != len(entryKinds)+1 || len(newEntryData)+1 != len(entryKinds) {
		t.Fatal("the table lacks an entry type")
	}
	for before, allowed := range mayFollow {
		for after, data := range entryKinds {
			next := NextEntry(last(before), "j", "test", data())
			err := CheckNext(last(before), next)
			if want := slices.Contains(allowed, after); (err == nil) != want {
				t.Errorf("%s after %q: %v, want it allowed: %t", after, before, err, want)
			}
			if err != nil && !errors.Is(err, ErrIllegalEntry) {
				t.Errorf("%s after %q: %v does not wrap ErrIllegalEntry", after, before, err)
			}
		}
	}
}

func TestCheckNextChecksTheNumbers(t *testing.T) {
	t.Parallel()
	owned := func(kind string) func() *Entry { return func() *Entry { return last(kind) } }
	infrastructure := func() EntryData { return &Failed{Kind: FailureInfrastructure} }
	timeout := func() EntryData { return &Failed{Kind: FailureTimeout} }
	for _, test := range []struct {
		name                              string
		last                              func() *Entry
		data                              func() EntryData
		attempt, offer, crashes, failures int
	}{
		{"an offer is counted", owned("submitted"), entryKinds["queued"], 5, 4, 2, 1},
		{"a retry is a new offer", owned("retrying"), entryKinds["queued"], 5, 4, 2, 1},
		{"a claim is a new attempt", owned("queued"), entryKinds["claimed"], 6, 3, 2, 1},
		{"a released one too, without a crash", owned("released"), entryKinds["claimed"], 6, 3, 2, 1},
		{"taking over is a crash", owned("claimed"), entryKinds["claimed"], 6, 3, 3, 1},
		{"also of a started attempt", owned("started"), entryKinds["claimed"], 6, 3, 3, 1},
		{"also while pushing", owned("pushed"), entryKinds["claimed"], 6, 3, 3, 1},
		{"adopting is the same attempt", owned("started"), entryKinds["adopted"], 5, 3, 2, 1},
		{"releasing is no crash", owned("claimed"), entryKinds["released"], 5, 3, 2, 1},
		{"starting counts nothing", owned("claimed"), entryKinds["started"], 5, 3, 2, 1},
		{"succeeding counts nothing", owned("started"), entryKinds["succeeded"], 5, 3, 2, 1},
		{"a failure is counted", owned("started"), entryKinds["failed"], 5, 3, 2, 2},
		{"a failure that will be retried too", owned("started"), entryKinds["retrying"], 5, 3, 2, 2},
		{"a timeout is a failure", owned("started"), timeout, 5, 3, 2, 2},
		{"infrastructure is a crash", owned("started"), infrastructure, 5, 3, 3, 1},
		{"no attempt, no failure", owned("queued"), entryKinds["failed"], 5, 3, 2, 1},
		{"no attempt, no crash", owned("queued"), infrastructure, 5, 3, 2, 1},
		{"giving up a retry counts nothing more", owned("retrying"), infrastructure, 5, 3, 2, 1},
		{"canceling counts nothing", owned("started"), entryKinds["canceling"], 5, 3, 2, 1},
		{"canceled counts nothing", owned("canceling"), entryKinds["canceled"], 5, 3, 2, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			data := test.data()
			next := &Entry{
				Type: data.EntryType(), Data: data,
				Attempt: test.attempt, Offer: test.offer, Crashes: test.crashes, Failures: test.failures,
			}
			if err := CheckNext(test.last(), next); err != nil {
				t.Fatal(err)
			}
			for name, number := range map[string]*int{
				"attempt": &next.Attempt, "offer": &next.Offer, "crashes": &next.Crashes, "failures": &next.Failures,
			} {
				for _, off := range []int{-1, 1} {
					*number += off
					if err := CheckNext(test.last(), next); !errors.Is(err, ErrIllegalEntry) {
						t.Errorf("%s wrong by %d: %v", name, off, err)
					}
					*number -= off
				}
			}
		})
	}
}

func TestFirstEntryCountsNothing(t *testing.T) {
	t.Parallel()
	first := NextEntry(nil, "j", "test", &Submitted{Task: &Task{}})
	if err := CheckNext(nil, first); err != nil {
		t.Fatal(err)
	}
	for _, number := range []*int{&first.Attempt, &first.Offer, &first.Crashes, &first.Failures} {
		*number = 1
		if err := CheckNext(nil, first); !errors.Is(err, ErrIllegalEntry) {
			t.Errorf("%+v: %v", first, err)
		}
		*number = 0
	}
}

func TestNextEntryFillsTheEnvelope(t *testing.T) {
	t.Parallel()
	first := NextEntry(nil, "j", "dispatcher/d", &Submitted{Task: &Task{}})
	if first.Version != Version || first.Type != EntrySubmitted || first.Job != "j" || first.Source != "dispatcher/d" {
		t.Errorf("%+v", first)
	}
	if first.Time.IsZero() || first.Time.Location() != time.UTC {
		t.Errorf("the time %v is not UTC", first.Time)
	}
	second := NextEntry(first, "other", "dispatcher/d", &Queued{})
	if second.Job != "j" {
		t.Errorf("job %q, want the one of the last entry", second.Job)
	}
	if second.Entry == first.Entry || len(second.Entry) != 26 {
		t.Errorf("entry ids %q and %q, want them random", first.Entry, second.Entry)
	}
}

func TestDecideRetry(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", 3600))
	times := func(n int) *int { return &n }
	for _, test := range []struct {
		name              string
		kind              FailureKind
		retry             *Retry
		crashes, failures int
		want              bool
		delay             time.Duration
	}{
		{"a crash, nothing said", FailureInfrastructure, nil, 0, 0, true, 2 * time.Second},
		{"the third crash", FailureInfrastructure, nil, 2, 0, true, 8 * time.Second},
		{"the fourth crash", FailureInfrastructure, nil, 3, 0, false, 0},
		{"at most once", FailureInfrastructure, &Retry{MaxCrashes: times(0)}, 0, 0, false, 0},
		{"a failure, nothing said", FailureTask, nil, 0, 0, false, 0},
		{"a failure that may be tried again", FailureTask, &Retry{MaxFailures: 2}, 0, 0, true, 2 * time.Second},
		{"crashes do not use up failures", FailureTask, &Retry{MaxFailures: 1}, 3, 0, true, 16 * time.Second},
		{"failures do not use up crashes", FailureInfrastructure, &Retry{MaxCrashes: times(1)}, 0, 5, true, 64 * time.Second},
		{"the last failure", FailureTask, &Retry{MaxFailures: 1}, 0, 1, false, 0},
		{"a timeout counts as a failure", FailureTimeout, &Retry{MaxFailures: 1}, 0, 0, true, 2 * time.Second},
		{"never when expired", FailureExpired, &Retry{MaxFailures: 9}, 0, 0, false, 0},
		{"never when rejected", FailureRejected, &Retry{MaxFailures: 9}, 0, 0, false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			failed := &Failed{Kind: test.kind}
			failed.DecideRetry(test.retry, &Entry{Crashes: test.crashes, Failures: test.failures}, now)
			if failed.WillRetry != test.want {
				t.Fatalf("will be retried: %t, want %t", failed.WillRetry, test.want)
			}
			if !test.want {
				if !failed.RetryAt.IsZero() {
					t.Errorf("retried at %v, want never", failed.RetryAt)
				}
				return
			}
			if want := now.Add(test.delay); !failed.RetryAt.Equal(want) || failed.RetryAt.Location() != time.UTC {
				t.Errorf("retried at %v, want %v in UTC", failed.RetryAt, want)
			}
		})
	}
}

func TestRetryDelay(t *testing.T) {
	t.Parallel()
	seconds := func(backoff, most int) *Retry {
		return &Retry{Backoff: Duration(time.Duration(backoff) * time.Second), MaxBackoff: Duration(time.Duration(most) * time.Second)}
	}
	for _, test := range []struct {
		name  string
		retry *Retry
		ended int
		want  time.Duration
	}{
		{"nothing said", nil, 1, 2 * time.Second},
		{"nothing ended", nil, 0, 2 * time.Second},
		{"doubled", nil, 2, 4 * time.Second},
		{"doubled again", nil, 5, 32 * time.Second},
		{"up to five minutes", nil, 9, 5 * time.Minute},
		{"however many", nil, 1 << 40, 5 * time.Minute},
		{"own backoff", seconds(1, 0), 3, 4 * time.Second},
		{"own ceiling", seconds(3, 10), 3, 10 * time.Second},
		{"ceiling met exactly", seconds(3, 12), 3, 12 * time.Second},
		{"ceiling below the backoff", seconds(10, 5), 1, 5 * time.Second},
		{"as long as can be", &Retry{Backoff: 1<<63 - 1, MaxBackoff: 1<<63 - 1}, 7, 1<<63 - 1},
	} {
		if got := test.retry.Delay(test.ended); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
