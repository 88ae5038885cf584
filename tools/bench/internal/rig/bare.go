package rig

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/docker/docker/api/types/container"
)

// mounted is where a bare container sees its folder.
const mounted = "/mnt/volume"

// Bare runs the same container by the engine's own calls: create, start, wait,
// remove.
func (r *Rig) Bare(ctx context.Context, args ...string) error {
	return r.BareWith(ctx, func(string) error { return nil }, func(string) error { return nil }, args...)
}

// BareWith is Bare of a container that needs something: prepared in the folder
// that it sees at [Mounted], and done while it runs, given its id.
func (r *Rig) BareWith(ctx context.Context, prepare func(folder string) error, meanwhile func(id string) error, args ...string) error {
	folder, err := os.MkdirTemp(r.folder, "bare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder) //nolint:errcheck // the rig's folder goes as a whole
	if err := prepare(folder); err != nil {
		return err
	}
	id, err := r.create(ctx, folder, args)
	if err != nil {
		return err
	}
	err = r.bare(ctx, id, meanwhile)
	// Also after an interrupt.
	return errors.Join(err, r.Docker.ContainerRemove(context.WithoutCancel(ctx), id, container.RemoveOptions{Force: true}))
}

func (r *Rig) bare(ctx context.Context, id string, meanwhile func(id string) error) error {
	if err := r.Docker.ContainerStart(ctx, id, container.StartOptions{}); err != nil {
		return err
	}
	ended, failed := r.Docker.ContainerWait(ctx, id, container.WaitConditionNotRunning)
	if err := meanwhile(id); err != nil {
		return err
	}
	select {
	case end := <-ended:
		if end.StatusCode != 0 {
			return fmt.Errorf("container ended with %d", end.StatusCode)
		}
		return nil
	case err := <-failed:
		return err
	}
}

// Mounted is where a container of BareWith sees a file of its folder.
func Mounted(name string) string { return mounted + "/" + name }

// create makes the container that Gantry would make: with an init, a folder
// mounted, a log that keeps every byte, and no network.
func (r *Rig) create(ctx context.Context, folder string, args []string) (string, error) {
	withInit := true
	created, err := r.Docker.ContainerCreate(ctx,
		&container.Config{Image: Image, Cmd: args},
		&container.HostConfig{
			NetworkMode: "none", Init: &withInit, Binds: []string{folder + ":" + mounted},
			LogConfig: container.LogConfig{Type: "local", Config: map[string]string{"max-size": "100g", "max-file": "1", "compress": "false"}},
		}, nil, nil, "")
	return created.ID, err
}

// StartBare starts a container and leaves it running.
func (r *Rig) StartBare(ctx context.Context, args ...string) (string, error) {
	id, err := r.create(ctx, r.folder, args)
	if err != nil {
		return "", err
	}
	return id, r.Docker.ContainerStart(ctx, id, container.StartOptions{})
}
