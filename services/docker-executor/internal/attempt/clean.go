package attempt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/removetree"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// Clean removes everything of the attempt that is on the node.
func (a *Attempt) Clean(ctx context.Context) error { return a.tools.Clean(ctx, a.folder) }

// Clean removes what an attempt has on this node: its container, its named pipes
// and temporary volumes, and its folder, whose lock is given back in any case.
func (t *Tools) Clean(ctx context.Context, f *folder.Folder) error {
	err := t.RemoveContainers(ctx, f)
	if err == nil {
		err = t.removeVolumes(ctx, f)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("clean up: %w", err), f.Close())
	}
	if err := RemovePipes(f); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(f.Job)).Msg("named pipe left on a volume, the next attempt takes it over")
	}
	if err := t.RemoveFolder(ctx, f); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// RemoveFolder removes an attempt's folder, with all that its container left
// there, whoever owns it.
func (t *Tools) RemoveFolder(ctx context.Context, f *folder.Folder) error {
	return f.RemoveWith(func(path string) error { return t.empty(ctx, path) })
}

// removeVolumes removes the temporary volumes that are not in the attempt's
// folder.
func (t *Tools) removeVolumes(ctx context.Context, f *folder.Folder) error {
	var errs []error
	for _, v := range f.Volumes {
		if v.Kind != folder.TemporaryVolume || isOurs(f, v.Host) || !strings.HasPrefix(filepath.Base(v.Host), temporaryPrefix) {
			continue
		}
		errs = append(errs, t.removeVolume(ctx, volume.Volume{Host: v.Host}))
		for _, left := range []string{v.Host + unfinished, unfinishedHostDir(&v)} { // by a crash, and empty
			_ = unix.Rmdir(left) // anything else is not ours
		}
	}
	return errors.Join(errs...)
}

func (t *Tools) removeVolume(ctx context.Context, v volume.Volume) error {
	// A container that sees the folder above may have put something else there:
	// that goes, a link without being followed.
	if info, err := os.Lstat(v.Host); err == nil && !info.IsDir() {
		return os.Remove(v.Host)
	}
	err := v.Remove()
	if errors.Is(err, fs.ErrPermission) {
		if err = t.empty(ctx, v.Host); err == nil {
			err = v.Remove()
		}
	}
	return err
}

// empty removes all that is in a folder, by a container: an executor that is not
// root may not remove what those of tasks left.
func (t *Tools) empty(ctx context.Context, path string) error {
	host, err := t.OnHost(path)
	if err != nil {
		return err
	}
	// By the time that the engine resolves the path, somebody who sees the folder
	// above may have put something else there.
	id, err := removetree.IDOf(path)
	if err != nil {
		return err
	}
	return t.Engine.RemoveTree(ctx, host, id, map[string]string{LabelInstallation: t.Installation, LabelNode: string(t.Node)})
}

// RemoveContainers removes the containers that an attempt has on this node, or
// stops those that the task wants to keep.
func (t *Tools) RemoveContainers(ctx context.Context, f *folder.Folder) error {
	found, err := t.containers(ctx, f)
	if err != nil {
		return err
	}
	return t.dispose(ctx, found)
}

// dispose removes containers, or stops those that are to be kept.
func (t *Tools) dispose(ctx context.Context, containers []engine.Container) error {
	for i := range containers {
		if err := Dispose(ctx, t.Engine, &containers[i]); err != nil {
			return err
		}
	}
	return nil
}

// Disposer is the part of an engine that ends containers.
type Disposer interface {
	Remove(ctx context.Context, id string) error
	Signal(ctx context.Context, id, signal string) error
	Wait(ctx context.Context, id string, began engine.Run) (engine.Exit, error)
}

// Dispose removes a container, unless it has run and is to be kept: that one is
// stopped, and stays.
func Dispose(ctx context.Context, from Disposer, c *engine.Container) error {
	switch {
	case c.Labels[LabelKeep] == "" || c.State == engine.Created || c.State == engine.Removing:
		return from.Remove(ctx, c.ID)
	case c.State == engine.Exited:
		return nil
	}
	zerolog.Ctx(ctx).Warn().Str("container", c.Name).Msg("container that is to be kept still runs, killing it")
	err := from.Signal(ctx, c.ID, "SIGKILL")
	if err == nil {
		_, err = from.Wait(ctx, c.ID, engine.Run{})
	}
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	return err
}

// containers returns those of an attempt of this node: another node of the same
// engine may have won the attempt of the same number.
func (t *Tools) containers(ctx context.Context, f *folder.Folder) ([]engine.Container, error) {
	return t.Engine.List(ctx, map[string]string{
		LabelInstallation: t.Installation, LabelNode: string(t.Node),
		LabelJob: string(f.Job), LabelAttempt: strconv.Itoa(f.Attempt),
	})
}

func (t *Tools) remove(ctx context.Context, containers []engine.Container) error {
	for _, container := range containers {
		if err := t.Engine.Remove(ctx, container.ID); err != nil {
			return err
		}
	}
	return nil
}

// removeOlder removes the containers that earlier attempts of a job have on this
// engine, or stops them: two attempts of a job never run side by side.
func (t *Tools) removeOlder(ctx context.Context, job contracts.JobID, attempt int) error {
	older, err := t.older(ctx, job, attempt)
	if err != nil {
		return err
	}
	return t.dispose(ctx, older)
}

func (t *Tools) older(ctx context.Context, job contracts.JobID, attempt int) ([]engine.Container, error) {
	found, err := t.Engine.List(ctx, map[string]string{LabelInstallation: t.Installation, LabelJob: string(job)})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(c engine.Container) bool {
		number, err := strconv.Atoi(c.Labels[LabelAttempt])
		return err != nil || number >= attempt
	}), nil
}

// freeName removes the container of an earlier attempt of a job that has a name,
// also if it is to be kept, and reports whether there was one.
func (t *Tools) freeName(ctx context.Context, job contracts.JobID, attempt int, name string) (bool, error) {
	older, err := t.older(ctx, job, attempt)
	if err != nil {
		return false, err
	}
	held := slices.DeleteFunc(older, func(c engine.Container) bool { return c.Name != name })
	return len(held) > 0, t.remove(ctx, held)
}
