package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// The API does not say when the engine was started. What tells its runs apart
// is the default network, which it makes anew at each start, unless containers
// live on from its last run; the containers of the last run that do not, it has
// ended by then. Where there is no such network, it is the engine's process.

// bridge is the default network.
const bridge = "bridge"

// bootFile changes with each start of the host.
const bootFile = "/proc/sys/kernel/random/boot_id"

// Run returns the engine's present run. It asks on a new connection, since an
// engine that ends answers on the old ones until its containers have ended.
func (e *Engine) Run(ctx context.Context) (engine.Run, error) {
	fresh, err := connect(e.cfg)
	if err != nil {
		return engine.Run{}, fmt.Errorf("connect to docker engine %s: %w", e.cfg.Host, err)
	}
	defer fresh.Close() //nolint:errcheck // only its idle connections are closed
	call, cancel := e.bounded(ctx)
	defer cancel()
	run, _, err := e.presentRun(call, fresh)
	return run, e.wrap(ctx, "ask for the run of", "docker engine "+e.api().DaemonHost(), err)
}

// manner is what an engine's information says of its runs. To ask for it takes
// the engine many times longer than to say which run it is.
type manner struct {
	run   string // that it was asked of
	keeps bool   // its containers live on
	// behind is how far its clock lags behind ours, at least; 0 where the two are
	// one clock.
	behind time.Duration
	at     time.Time
}

// mannerLasts bounds what an engine that was given another configuration, or a
// clock that was set, can make of it.
const mannerLasts = time.Minute

// presentRun returns the present run and when it began, the zero time where that
// is not known.
func (e *Engine) presentRun(ctx context.Context, api *client.Client) (engine.Run, time.Time, error) {
	asked := time.Now().Round(0)
	id, began, err := identify(ctx, api)
	if err != nil {
		return engine.Run{}, began, err
	}
	run := engine.Run{ID: id}
	known := e.manner.Load()
	if known == nil || id == "" || known.run != id || asked.Sub(known.at).Abs() > mannerLasts {
		if known, run.Seen, err = askManner(ctx, api, id); err != nil {
			return engine.Run{}, began, err
		}
		e.manner.Store(known)
	} else {
		run.Seen = asked.Add(-known.behind)
	}
	run.Keeps = known.keeps
	run.Host, err = hostOf(api)
	return run, began, err
}

// askManner also returns what the engine's clock says.
func askManner(ctx context.Context, api *client.Client, id string) (*manner, time.Time, error) {
	before := time.Now().Round(0)
	info, err := api.Info(ctx)
	if err != nil {
		return nil, before, err
	}
	after := time.Now().Round(0)
	// It is of this run only if no other one began in between.
	again, _, err := identify(ctx, api)
	if err == nil && again != id {
		err = fmt.Errorf("it is being restarted: %w", io.ErrUnexpectedEOF)
	}
	if err != nil {
		return nil, before, err
	}
	clock, err := time.Parse(time.RFC3339Nano, info.SystemTime)
	if err != nil {
		return nil, before, fmt.Errorf("read its time: %w", err)
	}
	m := &manner{run: id, keeps: info.LiveRestoreEnabled, at: after}
	if !isLocal(api) || clock.Before(before) || clock.After(after) {
		m.behind = after.Sub(clock)
	}
	return m, clock, nil
}

// hostOf names the present run of the engine's host, where that is this one.
func hostOf(api *client.Client) (string, error) {
	if !isLocal(api) {
		return "", nil
	}
	boot, err := os.ReadFile(bootFile)
	return strings.TrimSpace(string(boot)), err
}

func identify(ctx context.Context, api *client.Client) (id string, began time.Time, err error) {
	// Not by inspecting the network: that walks its containers, under locks that
	// starting and ending ones want as well. Done often, Docker 20.10 came to a
	// standstill for good.
	networks, err := api.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", bridge))})
	if err != nil {
		return "", began, err
	}
	for _, made := range networks { // the filter takes parts of names too
		if made.Name == bridge {
			return made.ID, made.Created, nil
		}
	}
	if !isLocal(api) {
		return "", began, nil
	}
	id, err = process(ctx, strings.TrimPrefix(api.DaemonHost(), "unix://"))
	return id, began, err
}

func isLocal(api *client.Client) bool { return strings.HasPrefix(api.DaemonHost(), "unix://") }

// process identifies the process that made the engine's socket: it is empty for
// one that cannot be seen from here, and for an init system that keeps the
// socket through the engine's runs.
func process(ctx context.Context, socket string) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return "", err
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return "", err
	}
	var peer *unix.Ucred
	var peerErr error
	err = raw.Control(func(fd uintptr) { peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || peerErr != nil || peer.Pid <= 1 {
		return "", nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", peer.Pid))
	if err != nil {
		return "", nil
	}
	// After the name, which may have anything in it, the 20th field is the time
	// at which the process was started.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return "", nil
	}
	return fmt.Sprintf("process-%d-%s", peer.Pid, fields[19]), nil
}

// endedWith reports whether a container that ended at some time may have been
// ended by the engine, as it or its host was stopped. An engine that gives no
// answer is an error: it may have locked up.
func (e *Engine) endedWith(ctx context.Context, began engine.Run, at time.Time) (bool, error) {
	lost, err := e.askAnew(ctx, func(ctx context.Context, fresh *client.Client) (bool, error) {
		if host, err := hostOf(fresh); err == nil && host == began.Host {
			if id, _, err := identify(ctx, fresh); err == nil && id == began.ID {
				return false, nil // it still runs, and takes new connections
			}
		}
		present, start, err := e.presentRun(ctx, fresh)
		if err != nil {
			return false, err
		}
		if began.Host == present.Host && !start.IsZero() && !at.Before(start) {
			return false, nil // in the present run
		}
		return began.Ended(present, at), nil
	})
	switch {
	case ctx.Err() != nil:
		return false, nil
	case errors.Is(err, context.DeadlineExceeded):
		return false, err
	case err != nil: // it is on its way down, or just starting
		return !began.Keeps && !at.Before(began.Seen), nil
	}
	return lost, nil
}
