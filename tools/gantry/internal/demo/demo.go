// Package demo runs one real task from end to end and shows it: an embedded
// NATS server, a simulated Girder, the four services, an image made of one
// static program, a file that goes from Girder through a container back into
// Girder, and the Girder job that tells of it. What it claims it checks.
package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/gantry/internal/cli"
	"github.com/gantry-worker/gantry/tools/gantry/internal/imageimport"
	"github.com/gantry-worker/gantry/tools/gantry/internal/local"
)

// patience bounds all of the demo: a machine that is that slow is stuck.
const patience = 15 * time.Minute

// cleanTime bounds the removal of the image.
const cleanTime = 2 * time.Minute

// Options say how to run the demo.
type Options struct {
	// Data is the data folder, empty for a temporary one.
	Data string
	// Keep leaves image and data folder behind.
	Keep bool
	// Program is the path of the static program that the image is made of.
	Program string
	// DockerHost is where the Docker engine is, as in DOCKER_HOST.
	DockerHost string
}

// errImpatient is the cause of the context's end after patience.
var errImpatient = fmt.Errorf("the demo did not end within %s", patience)

// Run runs the demo. It returns nil only if the right bytes and the right
// history are in Girder.
func Run(ctx context.Context, env *cli.Env, o Options) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errImpatient)
	defer cancel()
	d := &demo{env: env, options: o}
	d.title("Gantry: one task from end to end")
	engine, err := d.makeImage(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.removeImage(ctx, engine)) }()
	folder, err := d.makeFolder()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(folder, "demo.log"))
	if err != nil {
		return fmt.Errorf("make log of the services: %w", err)
	}
	err = d.withGantry(ctx, folder, zerolog.New(log).With().Timestamp().Logger())
	if errors.Is(context.Cause(ctx), errImpatient) {
		err = errImpatient
	}
	return errors.Join(d.leave(folder, err), log.Close())
}

type demo struct {
	env     *cli.Env
	options Options
	image   string
}

// makeImage makes the image that the task runs.
func (d *demo) makeImage(ctx context.Context) (*imageimport.Engine, error) {
	program, err := os.ReadFile(d.options.Program)
	if err != nil {
		return nil, fmt.Errorf("read the task's program: %w: 'make demo' builds it", err)
	}
	engine, err := imageimport.New(d.options.DockerHost)
	if err != nil {
		return nil, err
	}
	version, err := engine.Version(ctx)
	if errors.Is(err, imageimport.ErrNoEngine) {
		return nil, fmt.Errorf("%w: start Docker, or name an engine in DOCKER_HOST; 'make demo' starts one where it can", err)
	}
	if err != nil {
		return nil, err
	}
	d.image = "gantry-demo:" + contracts.NewToken()[:8]
	if err := engine.Import(ctx, d.image, program); err != nil {
		return nil, err
	}
	d.step("Docker %s answers; image %s is made of one static program", version, d.image)
	return engine, nil
}

func (d *demo) removeImage(ctx context.Context, engine *imageimport.Engine) error {
	if d.options.Keep {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	return engine.Remove(ctx, d.image)
}

func (d *demo) makeFolder() (string, error) {
	if d.options.Data == "" {
		folder, err := os.MkdirTemp("", "gantry-demo-")
		if err != nil {
			return "", fmt.Errorf("make data folder: %w", err)
		}
		return folder, nil
	}
	folder, err := filepath.Abs(d.options.Data)
	if err != nil {
		return "", err
	}
	return folder, os.MkdirAll(folder, 0o755)
}

// leave removes a temporary folder after a success or Ctrl-C, and says where it
// is otherwise.
func (d *demo) leave(folder string, err error) error {
	temporary := d.options.Data == "" && !d.options.Keep
	switch {
	case temporary && errors.Is(err, context.Canceled):
		return errors.Join(err, os.RemoveAll(folder))
	case err != nil:
		return fmt.Errorf("%w (the services' log is %s)", err, filepath.Join(folder, "demo.log"))
	case temporary:
		return os.RemoveAll(folder)
	default:
		d.say("\nIts data is in %s: 'gantry up --girder-sim --data %s' goes on with it.", folder, folder)
		return nil
	}
}

// withGantry starts everything, plays the demo, and stops everything.
func (d *demo) withGantry(ctx context.Context, folder string, log zerolog.Logger) error {
	ready := make(chan local.Running, 1)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return local.Run(ctx, local.Config{
			Data: folder, Work: filepath.Join(folder, "work"), SimAddr: "127.0.0.1:0",
			Slots: 1, Queues: []string{string(contracts.DefaultQueue)}, Log: log,
			Ready: func(r local.Running) { ready <- r },
		})
	})
	g.Go(func() error {
		defer stop()
		select {
		case running := <-ready:
			return d.play(ctx, running)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	return g.Wait()
}

func (d *demo) title(text string) {
	d.say("%s", d.env.OutStyle().Bold(text))
}

// step says something that was done.
func (d *demo) step(format string, args ...any) {
	d.say(d.env.OutStyle().Good("✓")+" "+format, args...)
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintln(d.env.Stdout, strings.TrimRight(fmt.Sprintf(format, args...), " "))
}
