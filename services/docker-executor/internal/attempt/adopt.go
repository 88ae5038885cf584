package attempt

import (
	"context"
	"slices"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Find returns the container of an attempt, its ID empty where there is none.
// One that is only created is not removed: its start may be under way, asked
// for by an executor that died since. Any other one is gone when Find returns: a
// create whose asker died may come to its end beside another one.
func (t *Tools) Find(ctx context.Context, f *folder.Folder) (engine.Container, error) {
	found, err := t.containers(ctx, f)
	if err != nil {
		return engine.Container{}, err
	}
	slices.SortStableFunc(found, func(a, b engine.Container) int { return progress(b, f) - progress(a, f) })
	if len(found) == 0 || found[0].State == engine.Removing {
		return engine.Container{}, t.remove(ctx, found)
	}
	return found[0], t.remove(ctx, found[1:])
}

// progress orders an attempt's containers by how far they came. Only the one
// that the folder names was ever asked to start.
func progress(c engine.Container, f *folder.Folder) int {
	switch {
	case c.State == engine.Removing:
		return 0
	case c.State == engine.Created && c.ID != f.ContainerID:
		return 1
	case c.State == engine.Created:
		return 2
	default:
		return 3
	}
}

// Adopt returns an attempt that another executor of the node began. life is what
// came before the adopted entry; container is the one that was found.
func Adopt(tools *Tools, task *contracts.Task, adopted *bus.Seen, life []*contracts.Entry, f *folder.Folder, container engine.Container, log zerolog.Logger) *Attempt {
	a := New(tools, task, adopted, f, log)
	for _, entry := range life {
		if entry.Attempt != adopted.Attempt {
			continue
		}
		switch data := entry.Data.(type) {
		case *contracts.Claimed:
			f.Timings.Claimed = entry.Time
		case *contracts.Started:
			a.started, f.Timings.Started = true, entry.Time
		case *contracts.Canceling:
			a.canceling = data
		case *contracts.Pushing:
			a.pushing = true
		case *contracts.Pushed:
			a.pushed++
			a.outputs = append(a.outputs, data.Files...)
		}
	}
	a.container, a.created = container.ID, container.State == engine.Created
	a.begun = a.started || container.ID != "" && (!a.created || f.ContainerID == container.ID && f.EngineRun.ID != "")
	f.ContainerID, a.logSeq = container.ID, f.LogSeq
	return a
}
