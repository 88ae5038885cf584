package docker

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// oomPatience is how long word of an out-of-memory kill is waited for: an engine
// with much to do may take seconds. oomBefore is how long before the end it may
// have come.
const (
	oomPatience = 5 * time.Second
	oomBefore   = 10 * time.Second
)

// withLateOOM adds to an exit that the container ran out of memory. The engine
// learns of that by an event of its own, which may come after the exit's: what it
// says of the container then never tells, only its events do. A container that
// was killed by its executor needs no other reason.
func (e *Engine) withLateOOM(ctx context.Context, id string, exit engine.Exit) engine.Exit {
	if _, asked := e.killed.Load(id); asked || exit.OOMKilled || exit.Code != 128+int(syscall.SIGKILL) {
		return exit
	}
	found, err := e.inspect(ctx, id)
	if err != nil || found.HostConfig.Memory == 0 {
		return exit // without a limit of its own it cannot be over it
	}
	exit.OOMKilled = found.State.OOMKilled || e.hearsOOM(ctx, id, exit.FinishedAt.Add(-oomBefore))
	return exit
}

func (e *Engine) hearsOOM(ctx context.Context, id string, since time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, oomPatience)
	defer cancel()
	heard, ended := e.api().Events(ctx, events.ListOptions{
		Since:   fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond()),
		Filters: filters.NewArgs(filters.Arg("type", "container"), filters.Arg("container", id), filters.Arg("event", "oom")),
	})
	select {
	case <-heard:
		cancel()
		<-ended // the client's goroutine is over then
		return true
	case <-ended:
		return false
	}
}
