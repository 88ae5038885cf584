// Package rig is what benchmarks run on: Gantry's services and a NATS server, each
// in a process of its own, with their data in a temporary folder, the container
// engine, and a small image.
package rig

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	docker "github.com/docker/docker/client"

	"github.com/gantry-worker/gantry/contracts/client"
)

// Image is the reference of the image: a static busybox and nothing else.
const Image = "gantry-bench:latest"

// busybox is where Debian's busybox-static puts its binary.
const busybox = "/bin/busybox"

// Slots is how many tasks Gantry runs at once.
const Slots = 2

// Rig is ready for benchmarks.
type Rig struct {
	Client    *client.Client
	Docker    *docker.Client
	processes []process // in the order of their start
	folder    string
}

// Start starts Gantry's services and NATS from the binaries in a folder, and
// builds the image.
func Start(ctx context.Context, binaries string) (*Rig, error) {
	r := new(Rig)
	if err := r.start(ctx, binaries); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Rig) start(ctx context.Context, binaries string) error {
	var err error
	if r.Docker, err = docker.NewClientWithOpts(docker.FromEnv, docker.WithAPIVersionNegotiation()); err != nil {
		return fmt.Errorf("find Docker: %w", err)
	}
	if err := r.importImage(ctx); err != nil {
		return err
	}
	if r.folder, err = os.MkdirTemp("", "gantry-bench-"); err != nil {
		return err
	}
	url, err := r.startNATS(filepath.Join(binaries, natsServer))
	if err != nil {
		return err
	}
	return r.startServices(ctx, binaries, url)
}

// importImage makes the image from the static busybox of this machine, and leaves
// no older one of the name behind.
func (r *Rig) importImage(ctx context.Context) error {
	older, err := r.Docker.ImageInspect(ctx, Image)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("look for image: %w", err)
	}
	if err := r.makeImage(ctx); err != nil || older.ID == "" {
		return err
	}
	if _, err := r.Docker.ImageRemove(ctx, older.ID, image.RemoveOptions{}); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
		return fmt.Errorf("remove the older image: %w", err)
	}
	return nil
}

func (r *Rig) makeImage(ctx context.Context) error {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return fmt.Errorf("the image needs Debian's busybox-static: %w", err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err = w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))})
	if err == nil {
		_, err = w.Write(program)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	reply, err := r.Docker.ImageImport(ctx, image.ImportSource{Source: &layer, SourceName: "-"}, Image,
		image.ImportOptions{Changes: []string{`ENTRYPOINT ["/bin/busybox"]`}})
	if err != nil {
		return fmt.Errorf("import image: %w", err)
	}
	_, err = io.Copy(io.Discard, reply)
	return errors.Join(err, reply.Close())
}

// Folder is where benchmarks keep what goes with the rig.
func (r *Rig) Folder() string { return r.folder }

// Shared is a folder that tasks may mount and write to.
func (r *Rig) Shared() string { return filepath.Join(r.folder, "shared") }

// Close stops Gantry and removes what the rig made.
func (r *Rig) Close() {
	if r.Client != nil {
		r.Client.Close()
	}
	for _, p := range slices.Backward(r.processes) {
		p.stop()
	}
	if r.folder != "" {
		_ = os.RemoveAll(r.folder)
	}
	if r.Docker != nil {
		_ = r.Docker.Close()
	}
}
