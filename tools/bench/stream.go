package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/bench/internal/measure"
	"github.com/gantry-worker/gantry/tools/bench/internal/rig"
)

// block is what reader reads at a time.
const block = 64 << 10

// reader reads the pipe $1 to its end, which has to come after $2 blocks.
const reader = `/bin/busybox dd of=/dev/null bs=65536 iflag=fullblock if="$1" 2>&1 | /bin/busybox grep "^$2+0 records in"`

// streamFile measures one big file that a container reads from Girder through a
// named pipe.
func streamFile(ctx context.Context, r *rig.Rig, with settings) (result measure.Result, err error) {
	source, err := startGirder(2 * with.size)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, source.close()) }()
	id, err := source.bigFile(with.size)
	if err != nil {
		return result, err
	}
	f := girderFile{girder: source, id: id, size: with.size}
	result = measure.Result{
		What:      fmt.Sprintf("%d MiB from Girder through a named pipe into a container: submit → terminal entry", with.size>>20),
		LimitWhat: "engine API: the same container, and curl … > fifo", Goal: "≥ 0.9 ×", Throughput: true,
	}
	var memory peaks
	for i := range 1 + with.runsOr(3) {
		gantry, err := timed(func() error { return memory.over(r, func() error { return f.stream(ctx, r) }) })
		if err != nil {
			return result, err
		}
		limit, err := timed(func() error { return f.bare(ctx, r) })
		if err != nil {
			return result, err
		}
		if i > 0 { // the first one warms up
			result.Gantry, result.Limit = append(result.Gantry, gantry), append(result.Limit, limit)
		}
	}
	result.Notes = append(result.Notes, memory.String(), fmt.Sprintf("%.0f MiB/s; limit: %.0f MiB/s",
		rate(with.size, result.Gantry), rate(with.size, result.Limit)))
	return result, nil
}

func rate(size int64, samples measure.Samples) float64 {
	return float64(size) / (1 << 20) / samples.Median().Seconds()
}

// girderFile is a file that a Girder of this process serves.
type girderFile struct {
	*girder
	id   string
	size int64
}

// stream is Gantry's way.
func (f girderFile) stream(ctx context.Context, r *rig.Rig) error {
	task := rig.Task("sh", "-c", reader, "sh")
	task.Girder = f.access()
	task.Docker.Args = append(task.Docker.Args,
		contracts.Arg{Transform: &contracts.Connect{
			Input:  contracts.Endpoint{Transform: &contracts.GirderFileStream{ID: f.id}},
			Output: contracts.Endpoint{Transform: &contracts.NamedInputPipe{Name: "in"}},
		}},
		contracts.Arg{Text: fmt.Sprint(f.size / block)})
	return r.Run(ctx, task)
}

// bare is the engine's own calls and curl, which fetches the file.
func (f girderFile) bare(ctx context.Context, r *rig.Rig) error {
	var fifo string
	return r.BareWith(ctx, func(folder string) error {
		fifo = filepath.Join(folder, "in")
		return unix.Mkfifo(fifo, 0o666)
	}, func(string) error {
		var c transfers
		c.to(f.girder)
		c.set("url", f.download(f.id))
		c.set("output", fifo)
		_, _, err := c.run(ctx)
		return err
	}, "sh", "-c", reader, "sh", rig.Mounted("in"), fmt.Sprint(f.size/block))
}
