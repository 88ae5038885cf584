package attempt

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
)

// signaled is an engine that notes the signals that are sent. What it is told to
// say of images comes first.
type signaled struct {
	*fake.Engine
	image engine.Image
	errs  []error
	sent  []string
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
	return nil
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
			eng := &signaled{fake.New(), test.asked, test.errs, nil}
			t.Cleanup(eng.Close)
			a := &Attempt{
				tools: &Tools{Engine: eng, Policy: rules}, log: zerolog.Nop(), image: test.pulled, // no grace, SIGKILL comes at once
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
