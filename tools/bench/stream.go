package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/bench/internal/measure"
	"github.com/gantry-worker/gantry/tools/bench/internal/rig"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// block is what reader reads at a time.
const block = 64 << 10

// reader reads the pipe $1 to its end, which has to come after $2 blocks.
const reader = `/bin/busybox dd of=/dev/null bs=65536 iflag=fullblock if="$1" 2>&1 | /bin/busybox grep "^$2+0 records in"`

// streamFile measures one big file that a container reads from Girder through a
// named pipe.
func streamFile(ctx context.Context, r *rig.Rig, with settings) (result measure.Result, err error) {
	if with.streamSize <= 0 || with.streamSize%block != 0 {
		return result, fmt.Errorf("--stream-size has to be a multiple of 64k, is %d", with.streamSize)
	}
	source, err := serveFile(r, with.streamSize)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, source.sim.Close()) }()
	by, fetch := "curl … > fifo", curl
	if _, lookErr := exec.LookPath("curl"); lookErr != nil {
		by, fetch = "a plain HTTP client that copies into the fifo", get
	}
	result = measure.Result{
		What:      fmt.Sprintf("%d MiB from Girder through a named pipe into a container: submit → terminal entry", with.streamSize>>20),
		LimitWhat: "engine API: the same container, and " + by, Goal: "≥ 0.9 ×", Throughput: true,
	}
	var memory peaks
	for i := range 1 + with.runsOr(3) {
		gantry, err := timed(func() error { return memory.over(r, func() error { return source.stream(ctx, r) }) })
		if err != nil {
			return result, err
		}
		limit, err := timed(func() error { return source.bare(ctx, r, fetch) })
		if err != nil {
			return result, err
		}
		if i > 0 { // the first one warms up
			result.Gantry, result.Limit = append(result.Gantry, gantry), append(result.Limit, limit)
		}
	}
	result.Notes = append(result.Notes, memory.String(), fmt.Sprintf("%.0f MiB/s; limit: %.0f MiB/s",
		rate(with.streamSize, result.Gantry), rate(with.streamSize, result.Limit)))
	return result, nil
}

func rate(size int64, samples measure.Samples) float64 {
	return float64(size) / (1 << 20) / samples.Median().Seconds()
}

// girderFile is a file that a Girder of this process serves.
type girderFile struct {
	sim   *girdersim.Server
	id    string
	token string
	size  int64
}

func serveFile(r *rig.Rig, size int64) (*girderFile, error) {
	sim, err := girdersim.Start(girdersim.Options{Dir: filepath.Join(r.Folder(), "girder-sim")})
	if err != nil {
		return nil, err
	}
	f := &girderFile{sim: sim, size: size}
	if err := f.create(); err != nil {
		return nil, errors.Join(err, sim.Close())
	}
	return f, nil
}

func (f *girderFile) create() error {
	user, err := f.sim.CreateUser("bench", "bench-password")
	if err != nil {
		return err
	}
	if f.token, err = f.sim.UserToken(user.ID, girdersim.ScopeUser); err != nil {
		return err
	}
	folder, err := f.sim.CreateFolder(user.ID, "bench", false)
	if err != nil {
		return err
	}
	item, err := f.sim.CreateItem(folder.ID, "bench")
	if err != nil {
		return err
	}
	file, err := f.sim.AddFile(item.ID, "big", io.LimitReader(rand.NewChaCha8([32]byte{}), f.size))
	f.id = file.ID
	return err
}

// stream is Gantry's way.
func (f *girderFile) stream(ctx context.Context, r *rig.Rig) error {
	task := rig.Task("sh", "-c", reader, "sh")
	task.Girder = &contracts.Girder{APIURL: f.sim.APIURL(), Token: contracts.Secret(f.token)}
	task.Docker.Args = append(task.Docker.Args,
		contracts.Arg{Transform: &contracts.Connect{
			Input:  contracts.Endpoint{Transform: &contracts.GirderFileStream{ID: f.id}},
			Output: contracts.Endpoint{Transform: &contracts.NamedInputPipe{Name: "in"}},
		}},
		contracts.Arg{Text: fmt.Sprint(f.size / block)})
	return r.Run(ctx, task)
}

// bare is the engine's own calls and one client that fetches the file.
func (f *girderFile) bare(ctx context.Context, r *rig.Rig, fetch func(ctx context.Context, url, token, fifo string) error) error {
	var fifo string
	return r.BareWith(ctx, func(folder string) error {
		fifo = filepath.Join(folder, "in")
		return unix.Mkfifo(fifo, 0o666)
	}, func(string) error {
		return fetch(ctx, f.sim.APIURL()+"/file/"+f.id+"/download", f.token, fifo)
	}, "sh", "-c", reader, "sh", rig.Mounted("in"), fmt.Sprint(f.size/block))
}

func curl(ctx context.Context, url, token, fifo string) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", `exec curl -sSf -H "Girder-Token: $1" "$2" >"$3"`, "sh", token, url, fifo)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

func get(ctx context.Context, url, token, fifo string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Girder-Token", token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // only read
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, response.Status)
	}
	pipe, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(pipe, response.Body)
	return errors.Join(err, pipe.Close())
}
