package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gantry-worker/gantry/tools/gantry/internal/cli"
	"github.com/gantry-worker/gantry/tools/gantry/internal/demo"
)

// Demo is `gantry demo`.
type Demo struct {
	Keep    bool   `help:"Leave the data folder and the image behind."`
	Program string `help:"Static program to make the image of (default: demo-task beside this one)." placeholder:"FILE"`
}

// Help is the long help.
func (*Demo) Help() string {
	return `Starts an embedded NATS server, the four services and a simulated Girder in a temporary folder (or
--data), makes an image of one static program, and runs a task: a file is downloaded from Girder,
processed in a container that tells its progress, the result is uploaded. Exits with 0 only if the
right bytes and the right job history are in Girder at the end. 'make demo' builds what it needs.`
}

// Run runs the demo.
func (c *Demo) Run(ctx context.Context, env *cli.Env) error {
	program := c.Program
	if program == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find demo-task: %w", err)
		}
		program = filepath.Join(filepath.Dir(self), "demo-task")
	}
	data := env.Globals.Data
	if data == os.Getenv("GANTRY_DATA") {
		data = "" // the folder of a Gantry that is there to stay
	}
	ctx, stop := env.UntilSignal(ctx)
	defer stop()
	err := demo.Run(ctx, env, demo.Options{
		Data: data, Keep: c.Keep, Program: program, DockerHost: os.Getenv("DOCKER_HOST"),
	})
	if err != nil {
		return err
	}
	fmt.Fprint(env.Stdout, next)
	return nil
}

const next = `
Next:
  gantry up --girder-sim            the same, to stay; prints how to reach it
  gantry run alpine echo hello      a container of your choice, log and exit code here
  gantry jobs ls                    what ran and runs
`
