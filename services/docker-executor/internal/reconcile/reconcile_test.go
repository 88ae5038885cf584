package reconcile_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/reconcile"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

const grace = 2 * time.Minute

func TestMain(m *testing.M) { leaktest.Main(m) }

// lives has the last entry of each job.
type lives map[contracts.JobID]*contracts.Entry

var errAway = errors.New("away")

func (l lives) Last(_ context.Context, job contracts.JobID) (*bus.Seen, error) {
	entry, ok := l[job]
	switch {
	case !ok:
		return nil, nil
	case entry == nil:
		return nil, errAway
	}
	return &bus.Seen{Entry: entry}, nil
}

func entry(attempt int, data contracts.EntryData) *contracts.Entry {
	return &contracts.Entry{Type: data.EntryType(), Attempt: attempt, Data: data}
}

// container makes one with labels of the given job and attempt; an empty
// installation is ours.
func container(t *testing.T, eng *fake.Engine, name, installation string, job contracts.JobID, number string) {
	t.Helper()
	if installation == "" {
		installation = "ours"
	}
	_, err := eng.Create(t.Context(), engine.Spec{Name: name, Image: fake.ScriptImage, Labels: map[string]string{
		attempt.LabelInstallation: installation, attempt.LabelJob: string(job), attempt.LabelAttempt: number,
	}})
	if err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, eng *fake.Engine) map[string]bool {
	t.Helper()
	list, err := eng.List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, c := range list {
		left[c.Name] = true
	}
	return left
}

func TestOnlyOrphansAreRemoved(t *testing.T) {
	t.Parallel()
	eng := fake.New()
	t.Cleanup(eng.Close)
	known := lives{
		"runs":     entry(2, &contracts.Started{}),
		"ended":    entry(1, &contracts.Succeeded{}),
		"retrying": entry(1, &contracts.Failed{WillRetry: true}),
		"released": entry(1, &contracts.Released{}),
		"unknown":  nil,
	}
	orphans := map[string]bool{"no life": true, "ended": true, "retrying": true, "released": true, "older attempt": true}
	container(t, eng, "runs", "", "runs", "2")
	container(t, eng, "older attempt", "", "runs", "1")
	container(t, eng, "ended", "", "ended", "1")
	container(t, eng, "retrying", "", "retrying", "1")
	container(t, eng, "released", "", "released", "1")
	container(t, eng, "no life", "", "none", "1")
	container(t, eng, "not readable now", "", "unknown", "1")
	container(t, eng, "of another installation", "theirs", "none", "1")
	container(t, eng, "without an attempt", "", "none", "")
	container(t, eng, "without a job", "", "", "1")
	all := names(t, eng)

	r := &reconcile.Reconciler{Engine: eng, Lives: known, Installation: "ours", Grace: grace}
	now := time.Now()
	look := func(after time.Duration, want map[string]bool) {
		t.Helper()
		if err := r.Look(t.Context(), now.Add(after)); !errors.Is(err, errAway) {
			t.Errorf("after %s: %v", after, err)
		}
		left := names(t, eng)
		for name := range all {
			if left[name] != want[name] {
				t.Errorf("after %s: %q is there: %t", after, name, left[name])
			}
		}
	}
	look(0, all)
	look(grace-1, all)
	kept := map[string]bool{}
	for name := range all {
		kept[name] = !orphans[name]
	}
	look(grace, kept)
}

// A container that was somebody's in between begins its grace anew.
func TestTheGraceIsWithoutAGap(t *testing.T) {
	t.Parallel()
	eng := fake.New()
	t.Cleanup(eng.Close)
	container(t, eng, "it", "", "job", "1")
	known := lives{}
	r := &reconcile.Reconciler{Engine: eng, Lives: known, Installation: "ours", Grace: grace}
	now := time.Now()
	look := func(after time.Duration) {
		t.Helper()
		if err := r.Look(t.Context(), now.Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	look(0)
	known["job"] = entry(1, &contracts.Claimed{})
	look(grace)
	delete(known, "job")
	look(grace + time.Second)
	look(2 * grace)
	if !names(t, eng)["it"] {
		t.Error("removed too early")
	}
	// An outage in between neither removes nor forgives.
	known["job"] = nil
	if err := r.Look(t.Context(), now.Add(4*grace)); !errors.Is(err, errAway) {
		t.Errorf("got %v", err)
	}
	delete(known, "job")
	look(4*grace + 1)
	if names(t, eng)["it"] {
		t.Error("not removed")
	}
}

// TestKeptContainersStay once they have ended; one that runs on is stopped. What
// helps Gantry is its own as long as it runs.
func TestKeptContainersStay(t *testing.T) {
	t.Parallel()
	eng := fake.New()
	t.Cleanup(eng.Close)
	put := func(name string, start bool, label string, steps ...string) {
		id, err := eng.Create(t.Context(), engine.Spec{Name: name, Image: fake.ScriptImage, Args: steps, Labels: map[string]string{
			attempt.LabelInstallation: "ours", attempt.LabelJob: "job", attempt.LabelAttempt: "1", label: "true",
		}})
		if err == nil && start {
			err = eng.Start(t.Context(), id)
		}
		if err == nil && start && len(steps) == 0 {
			_, err = eng.Wait(t.Context(), id, engine.Run{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put("kept", true, attempt.LabelKeep)
	put("runs on", true, attempt.LabelKeep, "hang")
	put("never ran", false, attempt.LabelKeep)
	put("helps", true, engine.LabelHelper, "hang")
	put("helped", true, engine.LabelHelper)
	put("is to help", false, engine.LabelHelper)
	r := &reconcile.Reconciler{Engine: eng, Lives: lives{}, Installation: "ours", Grace: grace}
	now := time.Now()
	look := func(times ...time.Duration) {
		t.Helper()
		for _, after := range times {
			if err := r.Look(t.Context(), now.Add(after)); err != nil {
				t.Fatal(err)
			}
		}
	}
	look(0, grace, 2*grace)
	if !names(t, eng)["is to help"] {
		t.Error("a helper was removed that may be about to be started")
	}
	look(time.Hour) // its executor died
	list, err := eng.List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]engine.State{}
	for _, c := range list {
		states[c.Name] = c.State
	}
	if len(states) != 3 || states["kept"] != engine.Exited || states["runs on"] != engine.Exited || states["helps"] != engine.Running {
		t.Errorf("containers are %v", states)
	}
}
