package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/bench/internal/measure"
	"github.com/gantry-worker/gantry/tools/bench/internal/rig"
)

// stageInBig measures one big file from Girder to a volume.
func stageInBig(ctx context.Context, r *rig.Rig, with settings) (result measure.Result, err error) {
	g, err := startGirder(2 * with.size)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	id, err := g.bigFile(with.size)
	if err != nil {
		return result, err
	}
	s := staging{rig: r, result: measure.Result{
		What:      fmt.Sprintf("%d MiB from Girder to a volume: claimed → staged in, on the disk", with.size>>20),
		LimitWhat: "curl of the same file to the same disk, and sync FILE", Goal: "≥ 0.9 ×", Throughput: true,
	}}
	task := func() (*contracts.Task, error) { return inputTask(g, &contracts.GirderFile{ID: id}), nil }
	curl := func() (l limit, err error) {
		into := s.scratch("big")
		defer func() { err = errors.Join(err, os.Remove(into)) }()
		return curlFile(ctx, g, id, into)
	}
	err = s.measure(ctx, with.runsOr(5), task, stagedIn, curl)
	s.notes(with.size, 1)
	return s.result, err
}

// inFolders is over how many folders the small files of stage-in are spread.
const inFolders = 50

// stageInSmall measures a folder of many small files.
func stageInSmall(ctx context.Context, r *rig.Rig, with settings) (result measure.Result, err error) {
	g, err := startGirder(2 * with.size)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	top, files, err := g.tree(with.inFiles)
	if err != nil {
		return result, err
	}
	s := staging{rig: r, result: measure.Result{
		What:      fmt.Sprintf("%d files of 4 KiB in %d folders from Girder to a volume: claimed → staged in, on the disk", with.inFiles, inFolders),
		LimitWhat: "curl: 32 parallel keep-alive GETs of the same files, whose ids it is given, to the same disk, and sync -f", Goal: "≥ 0.7 ×", Throughput: true,
	}}
	// What was brought stays until the end: a file system that has just removed
	// thousands of files is busy with it for a while.
	volumes := filepath.Join(r.Shared(), "in")
	defer func() { err = errors.Join(err, os.RemoveAll(volumes)) }()
	task := func() (*contracts.Task, error) {
		volume, err := newFolder(volumes)
		task := inputTask(g, &contracts.GirderFolder{ID: top, Volume: inVolume})
		task.Docker.Volumes = []contracts.Volume{{Name: inVolume, Type: contracts.VolumeBindMount, HostPath: volume, ContainerPath: "/mnt/in"}}
		return task, err
	}
	curl := func() (limit, error) {
		into, err := newFolder(volumes)
		if err != nil {
			return limit{}, err
		}
		return curlFiles(ctx, g, files, into)
	}
	err = s.measure(ctx, with.runsOr(5), task, stagedIn, curl)
	s.notes(0, with.inFiles)
	return s.result, err
}

// inVolume is the volume that small files are brought to.
const inVolume = "in"

// newFolder makes a folder that nobody else has.
func newFolder(in string) (string, error) {
	if err := os.MkdirAll(in, 0o755); err != nil {
		return "", err
	}
	return os.MkdirTemp(in, "run-")
}

// inputTask needs an input, and does nothing with it.
func inputTask(g *girder, input contracts.Transform) *contracts.Task {
	task := rig.Task("true")
	task.Girder = g.access()
	task.Docker.Args = append(task.Docker.Args, contracts.Arg{Transform: input})
	return task
}

// stagedIn is how long the inputs of a job took.
func stagedIn(life []*contracts.Entry) (time.Duration, error) {
	end, ok := life[len(life)-1].Data.(*contracts.Succeeded)
	if !ok || end.Timings.StagedIn.IsZero() || end.Timings.Claimed.IsZero() {
		return 0, errors.New("the job does not say when it was claimed and its inputs were there")
	}
	return end.Timings.StagedIn.Sub(end.Timings.Claimed), nil
}

// gotten is a small file, and where it goes below a folder.
type gotten struct{ id, path string }

// tree makes small files, spread over folders, and returns the folder of those.
func (g *girder) tree(files int) (top string, made []gotten, err error) {
	folder, err := g.sim.CreateFolder(g.folder.ID, "tree", false)
	if err != nil {
		return "", nil, err
	}
	folders := make([]string, inFolders)
	for i := range folders {
		below, err := g.sim.CreateFolder(folder.ID, folderName(i), false)
		if err != nil {
			return "", nil, err
		}
		folders[i] = below.ID
	}
	for i := range files {
		in := i % inFolders
		id, err := g.smallFile(folders[in], smallName(i))
		if err != nil {
			return "", nil, err
		}
		made = append(made, gotten{id, filepath.Join(folderName(in), smallName(i))})
	}
	return folder.ID, made, nil
}

func folderName(i int) string { return fmt.Sprintf("folder-%02d", i) }

// curlFile fetches one file.
func curlFile(ctx context.Context, g *girder, id, into string) (limit, error) {
	var c transfers
	c.to(g)
	c.set("url", g.download(id))
	c.set("output", into)
	return onDisk(into, (*os.File).Sync, func() (time.Duration, time.Duration, error) { return c.run(ctx) })
}

// curlFiles fetches many at a time.
func curlFiles(ctx context.Context, g *girder, files []gotten, into string) (limit, error) {
	var c transfers
	c.to(g)
	c.on("create-dirs")
	for _, file := range files {
		c.set("url", g.download(file.id))
		c.set("output", filepath.Join(into, file.path))
	}
	return onDisk(into, syncFileSystem, func() (time.Duration, time.Duration, error) {
		return c.run(ctx, "--parallel", "--parallel-max", "32")
	})
}

// onDisk fetches what is then brought to the disk.
func onDisk(path string, sync func(*os.File) error, fetch func() (took, busy time.Duration, err error)) (l limit, err error) {
	if l.cached, l.busy, err = fetch(); err != nil {
		return l, err
	}
	synced, err := timed(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(sync(f), f.Close())
	})
	l.took = l.cached + synced
	return l, err
}

func syncFileSystem(f *os.File) error { return unix.Syncfs(int(f.Fd())) }
