package attempt

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
)

// signaled is an engine that notes the signals that are sent. What it is told to
// say of images, and of signals, comes first.
type signaled struct {
	*fake.Engine
	image engine.Image
	errs  []error
	sent  []string
	fails []error // of signals
}

func (e *signaled) Image(context.Context, string) (engine.Image, error) {
	if len(e.errs) > 0 {
		err := e.errs[0]
		e.errs = e.errs[1:]
		return engine.Image{}, err
	}
	return e.image, nil
}

func (e *signaled) Signal(_ context.Context, _, signal string) error {
	e.sent = append(e.sent, signal)
	if len(e.fails) == 0 {
		return nil
	}
	err := e.fails[0]
	e.fails = e.fails[1:]
	return err
}

// A stop's signal is the revoke's, else that of the options, else the image's.
func TestAContainerIsStoppedWithItsOwnSignal(t *testing.T) {
	t.Parallel()
	known := engine.Image{ID: "known", StopSignal: "SIGQUIT"}
	away, silent := &engine.Error{Op: "find", Subject: "image", Kind: engine.ErrUnavailable}, &engine.Error{Op: "find", Subject: "image", Kind: engine.ErrSilent}
	for name, test := range map[string]struct {
		revoke, option, operator string
		pulled, asked            engine.Image
		errs                     []error
		want                     string
	}{
		"by default":                     {asked: engine.Image{ID: "plain"}, want: "SIGTERM"},
		"revoke's":                       {revoke: "SIGHUP", option: "SIGINT", pulled: known, want: "SIGHUP"},
		"task's":                         {option: "SIGINT", operator: "SIGUSR2", pulled: known, want: "SIGINT"},
		"operator's":                     {operator: "SIGUSR2", pulled: known, want: "SIGUSR2"},
		"image's":                        {pulled: known, want: "SIGQUIT"},
		"image's, of an adopted one":     {asked: known, want: "SIGQUIT"},
		"image's, after a while":         {asked: known, errs: []error{away}, want: "SIGQUIT"},
		"of an image that is gone":       {asked: known, errs: []error{&engine.Error{Kind: engine.ErrImageNotFound}}, want: "SIGTERM"},
		"of an engine that says nothing": {asked: known, errs: []error{silent}, want: "SIGTERM"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules, err := policy.New(policy.Config{RunOptions: contracts.DockerOptions{StopSignal: test.operator}})
			if err != nil {
				t.Fatal(err)
			}
			eng := &signaled{Engine: fake.New(), image: test.asked, errs: test.errs}
			t.Cleanup(eng.Close)
			a := &Attempt{
				tools: &Tools{Engine: &engine.Watched{Engine: eng}, Policy: rules}, log: zerolog.Nop(), image: test.pulled, // no grace, SIGKILL comes at once
				task: &contracts.Task{Docker: &contracts.DockerRun{Options: contracts.DockerOptions{StopSignal: test.option}}},
			}
			ctx, revoke := context.WithCancelCause(t.Context())
			grace := contracts.Duration(time.Hour)
			revoke(&Revoked{contracts.Revoke{Signal: test.revoke, Grace: &grace}})
			a.stop(ctx, t.Context())
			if want := []string{test.want, "SIGKILL"}; !slices.Equal(eng.sent, want) {
				t.Errorf("signals were %v, want %v", eng.sent, want)
			}
		})
	}
}

// A container has its grace also where the engine failed to send it the signal:
// it gets it a little later. Only where it never will there is nothing to wait
// for.
func TestAFaultOfTheStopSignalDoesNotEndTheGrace(t *testing.T) {
	t.Parallel()
	const grace = contracts.DefaultGrace
	tries := int(grace/signalRetry) + 1
	failing := func(kind error, times int) []error {
		return slices.Repeat([]error{&engine.Error{Op: "send", Subject: "it", Kind: kind}}, times)
	}
	terms := func(times int) []string { return slices.Repeat([]string{"SIGTERM"}, times) }
	for name, test := range map[string]struct {
		fails []error
		want  []string
		grace bool
	}{
		"none":                         {nil, append(terms(1), "SIGKILL"), true},
		"for a while":                  {failing(engine.ErrFailed, 2), append(terms(3), "SIGKILL"), true},
		"of the signal":                {failing(engine.ErrRefused, 1), append(terms(1), "SIGKILL"), false},
		"that does not go":             {failing(engine.ErrFailed, tries), append(terms(tries), "SIGKILL"), true},
		"after it was away for longer": {append(failing(engine.ErrUnavailable, 2*tries), failing(engine.ErrFailed, 1)...), append(terms(2*tries+2), "SIGKILL"), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules, err := policy.New(policy.Config{})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				eng := &signaled{Engine: fake.New(), fails: test.fails}
				defer eng.Close()
				a := &Attempt{
					tools: &Tools{Engine: &engine.Watched{Engine: eng}, Policy: rules, MaxGrace: grace}, log: zerolog.Nop(), image: engine.Image{ID: "known"},
					task: &contracts.Task{Docker: &contracts.DockerRun{}},
				}
				ctx, revoke := context.WithCancelCause(t.Context())
				revoke(&Revoked{})
				began := time.Now() // of the bubble's clock
				a.stop(ctx, t.Context())
				if !slices.Equal(eng.sent, test.want) || time.Since(began) >= grace != test.grace {
					t.Errorf("signals were %v, SIGKILL after %s", eng.sent, time.Since(began))
				}
			})
		})
	}
}
