package executor

import (
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// What was written behind the last entry of an attempt says whether it still is
// its executor's.
func TestIsLost(t *testing.T) {
	t.Parallel()
	const ours, theirs = "docker-executor/ours", "docker-executor/theirs"
	for name, test := range map[string]struct {
		data    contracts.EntryData
		attempt int
		source  string
		lost    bool
	}{
		"our claim":                        {&contracts.Claimed{}, 2, ours, false},
		"our adoption":                     {&contracts.Adopted{}, 2, ours, false},
		"our end":                          {&contracts.Succeeded{}, 2, ours, false},
		"our container":                    {&contracts.Started{}, 2, ours, false},
		"somebody's adoption":              {&contracts.Adopted{}, 2, theirs, true},
		"somebody's end":                   {&contracts.Canceled{}, 2, theirs, true},
		"somebody's end, tried again":      {&contracts.Failed{WillRetry: true}, 2, theirs, true},
		"somebody's end, and queued again": {&contracts.Queued{}, 2, theirs, true},
		"a newer attempt":                  {&contracts.Claimed{}, 3, theirs, true},
		"an older attempt":                 {&contracts.Failed{WillRetry: true}, 1, theirs, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			last := &bus.Seen{Entry: &contracts.Entry{Type: test.data.EntryType(), Attempt: test.attempt, Source: test.source, Data: test.data}}
			if got := isLost(last, 2, ours); got != test.lost {
				t.Errorf("lost: %v", got)
			}
		})
	}
}

// An attempt that is about to be adopted is another one's so far, which is no
// reason to stop it.
func TestWhatIsNotOursYetCannotBeLost(t *testing.T) {
	t.Parallel()
	a := newActive()
	a.add("job", 2, nil)
	if got := a.attempts(); len(got) != 0 {
		t.Errorf("ours are %v", got)
	}
	a.won("job")
	if got := a.attempts(); len(got) != 1 || got["job"] != 2 {
		t.Errorf("ours are %v", got)
	}
}

// A connection that was never heard of is no connection that fell silent, which
// would have been known only a while after it did.
func TestSilence(t *testing.T) {
	t.Parallel()
	for fell, want := range map[bool]time.Duration{false: time.Second, true: time.Second + contracts.InstanceTTL} {
		if got := silence(time.Second, fell); got != want {
			t.Errorf("fell silent %t: %s", fell, got)
		}
	}
}
