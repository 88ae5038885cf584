package attempt

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
)

// Clean removes everything of the attempt that is on the node.
func (a *Attempt) Clean(ctx context.Context) error { return a.tools.Clean(ctx, a.folder) }

// Clean removes what an attempt has on this node: its container, its named pipes
// and its folder, whose lock is given back in any case.
func (t *Tools) Clean(ctx context.Context, f *folder.Folder) error {
	if err := t.RemoveContainers(ctx, f); err != nil {
		return errors.Join(fmt.Errorf("clean up: %w", err), f.Close())
	}
	if err := RemovePipes(f); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(f.Job)).Msg("named pipe left on a volume, the next attempt takes it over")
	}
	if err := f.Remove(); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// RemoveContainers removes the containers that an attempt has on this node.
func (t *Tools) RemoveContainers(ctx context.Context, f *folder.Folder) error {
	found, err := t.containers(ctx, f)
	if err != nil {
		return err
	}
	return t.remove(ctx, found)
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
// engine: two attempts of a job never run side by side.
func (t *Tools) removeOlder(ctx context.Context, job contracts.JobID, attempt int) error {
	found, err := t.Engine.List(ctx, map[string]string{LabelInstallation: t.Installation, LabelJob: string(job)})
	if err != nil {
		return err
	}
	var older []engine.Container
	for _, container := range found {
		if number, err := strconv.Atoi(container.Labels[LabelAttempt]); err == nil && number < attempt {
			older = append(older, container)
		}
	}
	return t.remove(ctx, older)
}
