package docker

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
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
	run, _, err := presentRun(call, fresh)
	return run, e.wrap(ctx, "ask for the run of", "docker engine "+e.api.DaemonHost(), err)
}

// presentRun returns the present run and when it began, the zero time where that
// is not known.
func presentRun(ctx context.Context, api *client.Client) (engine.Run, time.Time, error) {
	id, began, err := identify(ctx, api)
	if err != nil {
		return engine.Run{}, began, err
	}
	info, err := api.Info(ctx)
	if err != nil {
		return engine.Run{}, began, err
	}
	// The time is that of this run only if no other one began in between.
	again, _, err := identify(ctx, api)
	if err == nil && again != id {
		err = fmt.Errorf("it is being restarted: %w", context.DeadlineExceeded)
	}
	if err != nil {
		return engine.Run{}, began, err
	}
	run := engine.Run{ID: id, Keeps: info.LiveRestoreEnabled}
	if run.Seen, err = time.Parse(time.RFC3339Nano, info.SystemTime); err != nil {
		return engine.Run{}, began, fmt.Errorf("read its time: %w", err)
	}
	if isLocal(api) {
		boot, err := os.ReadFile(bootFile)
		if err != nil {
			return engine.Run{}, began, err
		}
		run.Host = strings.TrimSpace(string(boot))
	}
	return run, began, nil
}

func identify(ctx context.Context, api *client.Client) (id string, began time.Time, err error) {
	made, err := api.NetworkInspect(ctx, bridge, network.InspectOptions{})
	if err == nil {
		return made.ID, made.Created, nil
	}
	if !errdefs.IsNotFound(err) {
		return "", began, err
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
// ended by the engine, as it or its host was stopped.
func (e *Engine) endedWith(ctx context.Context, began engine.Run, at time.Time) bool {
	fresh, err := connect(e.cfg)
	if err != nil {
		return false
	}
	defer fresh.Close() //nolint:errcheck // only its idle connections are closed
	call, cancel := e.bounded(ctx)
	defer cancel()
	present, start, err := presentRun(call, fresh)
	if err != nil { // it is on its way down, or just starting
		return ctx.Err() == nil && !began.Keeps && !at.Before(began.Seen)
	}
	if began.Host == present.Host && !start.IsZero() && !at.Before(start) {
		return false // in the present run
	}
	return began.Ended(present, at)
}
