package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/bench/internal/measure"
	"github.com/gantry-worker/gantry/tools/bench/internal/rig"
)

const (
	// chunkSize is that of Girder's own client.
	chunkSize = 64 << 20
	// outParallel is how many small files curl uploads at a time.
	outParallel = 8
)

// stageOutBig measures one big file from a volume to Girder.
func stageOutBig(ctx context.Context, r *rig.Rig, with settings) (result measure.Result, err error) {
	g, err := startGirder(2 * with.size)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	s := staging{rig: r, result: measure.Result{
		What:      fmt.Sprintf("%d MiB from a volume to Girder: pushing → pushed", with.size>>20),
		LimitWhat: "curl: beginning of an upload, then its chunks of 64 MiB over one connection", Goal: "≥ 0.9 ×", Throughput: true,
	}}
	file, parts := filepath.Join(r.Shared(), "big"), s.scratch("parts")
	defer func() { err = errors.Join(err, os.Remove(file), os.RemoveAll(parts)) }()
	if err := g.writeBig(file, parts, with.size); err != nil {
		return result, err
	}
	task := func() (*contracts.Task, error) {
		item, err := g.item() // a new one: what is there already is not sent again
		return outputTask(g, r, &contracts.GirderUploadItem{Path: shared("big"), ItemID: item.ID}), err
	}
	curl := func() (limit, error) {
		item, err := g.item()
		if err != nil {
			return limit{}, err
		}
		return curlChunks(ctx, g, item.ID, parts, with.size)
	}
	err = s.measure(ctx, with.runsOr(5), task, pushed, curl)
	s.notes(with.size, 1)
	return s.result, err
}

// stageOutSmall measures a folder of many small files.
func stageOutSmall(ctx context.Context, r *rig.Rig, with settings) (result measure.Result, err error) {
	g, err := startGirder(2 * with.size)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	s := staging{rig: r, result: measure.Result{
		What: fmt.Sprintf("%d files of 4 KiB from a volume to Girder: pushing → pushed", with.outFiles),
		LimitWhat: fmt.Sprintf("curl: beginnings of the uploads, then their chunks, %d at a time over keep-alive connections; it knows no file that is there already",
			outParallel), Goal: "≥ 0.7 ×", Throughput: true,
	}}
	folder := filepath.Join(r.Shared(), "small")
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	if err := g.writeSmall(folder, with.outFiles); err != nil {
		return result, err
	}
	runs := 0
	into := func() (string, error) {
		runs++
		made, err := g.sim.CreateFolder(g.folder.ID, fmt.Sprintf("run %d", runs), false)
		return made.ID, err
	}
	task := func() (*contracts.Task, error) {
		target, err := into()
		return outputTask(g, r, &contracts.GirderUploadFolder{Path: shared("small"), FolderID: target}), err
	}
	curl := func() (limit, error) {
		target, err := into()
		if err != nil {
			return limit{}, err
		}
		return curlUploads(ctx, g, target, folder, s.scratch("answers"), with.outFiles)
	}
	err = s.measure(ctx, with.runsOr(5), task, pushed, curl)
	s.notes(0, with.outFiles)
	return s.result, err
}

// outVolume is the volume that the outputs are on.
const outVolume = "out"

// shared is a path on that volume.
func shared(path string) contracts.OutputPath {
	return contracts.OutputPath{VolumePath: contracts.VolumePath{Path: path, Volume: outVolume}}
}

// outputTask does nothing, and has an output all the same.
func outputTask(g *girder, r *rig.Rig, output contracts.OutputSpec) *contracts.Task {
	task := rig.Task("true")
	task.Girder = g.access()
	task.Docker.Volumes = []contracts.Volume{{Name: outVolume, Type: contracts.VolumeBindMount, HostPath: r.Shared(), ContainerPath: "/mnt/out"}}
	task.Outputs = []contracts.Output{{OutputSpec: output}}
	return task
}

// pushed is how long the outputs of a job took.
func pushed(life []*contracts.Entry) (time.Duration, error) {
	return span(life, contracts.EntryPushing, contracts.EntryPushed)
}

// writeBig writes a file, and the same in chunks, in the order of their names.
func (g *girder) writeBig(path, parts string, size int64) error {
	if err := os.Mkdir(parts, 0o755); err != nil {
		return err
	}
	whole, err := os.Create(path)
	if err != nil {
		return err
	}
	for at := int64(0); at < size && err == nil; at += chunkSize {
		var part *os.File
		if part, err = os.Create(filepath.Join(parts, partName(at))); err == nil {
			_, err = io.Copy(io.MultiWriter(whole, part), g.bytes(min(chunkSize, size-at)))
			err = errors.Join(err, part.Close())
		}
	}
	return errors.Join(err, whole.Close())
}

func partName(offset int64) string { return fmt.Sprintf("%016d", offset) }

func (g *girder) writeSmall(folder string, files int) error {
	if err := os.Mkdir(folder, 0o755); err != nil {
		return err
	}
	for i := range files {
		content, err := io.ReadAll(g.bytes(smallSize))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, smallName(i)), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// begin is the address that begins an upload.
func (g *girder) begin(parentType, parent, name string, size int64) string {
	query := url.Values{"parentType": {parentType}, "parentId": {parent}, "name": {name}, "size": {strconv.FormatInt(size, 10)}}
	return g.sim.APIURL() + "/file?" + query.Encode()
}

// chunk is the address that takes a chunk.
func (g *girder) chunk(upload string, offset int64) string {
	return fmt.Sprintf("%s/file/chunk?uploadId=%s&offset=%d", g.sim.APIURL(), upload, offset)
}

// curlChunks uploads one file in chunks.
func curlChunks(ctx context.Context, g *girder, item, parts string, size int64) (l limit, err error) {
	answer := filepath.Join(parts, "answer")
	defer func() { err = errors.Join(err, os.Remove(answer)) }()
	var first transfers
	first.to(g)
	first.set("data", "")
	first.set("url", g.begin("item", item, "big", size))
	first.set("output", answer)
	if err := l.add(first.run(ctx)); err != nil {
		return l, err
	}
	upload, err := uploadID(answer)
	if err != nil {
		return l, err
	}
	var rest transfers
	for at := int64(0); at < size; at += chunkSize {
		if at > 0 {
			rest.next()
		}
		rest.to(g)
		rest.set("request", "POST")
		rest.set("upload-file", filepath.Join(parts, partName(at)))
		rest.set("url", g.chunk(upload, at))
		rest.set("output", os.DevNull)
	}
	return l, l.add(rest.run(ctx))
}

// curlUploads uploads small files.
func curlUploads(ctx context.Context, g *girder, into, folder, answers string, files int) (l limit, err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(answers)) }()
	parallel := []string{"--parallel", "--parallel-max", strconv.Itoa(outParallel)}
	var first transfers
	first.to(g)
	first.on("create-dirs")
	first.set("data", "")
	for i := range files {
		first.set("url", g.begin("folder", into, smallName(i), smallSize))
		first.set("output", filepath.Join(answers, smallName(i)))
	}
	if err := l.add(first.run(ctx, parallel...)); err != nil {
		return l, err
	}
	var rest transfers
	rest.to(g)
	rest.set("request", "POST")
	for i := range files {
		upload, err := uploadID(filepath.Join(answers, smallName(i)))
		if err != nil {
			return l, err
		}
		rest.set("upload-file", filepath.Join(folder, smallName(i)))
		rest.set("url", g.chunk(upload, 0))
		rest.set("output", os.DevNull)
	}
	return l, l.add(rest.run(ctx, parallel...))
}

// add counts another run of curl.
func (l *limit) add(took, busy time.Duration, err error) error {
	l.took, l.busy = l.took+took, l.busy+busy
	return err
}

// uploadID reads the answer to the beginning of an upload.
func uploadID(answer string) (string, error) {
	data, err := os.ReadFile(answer)
	if err != nil {
		return "", err
	}
	var upload struct {
		ID string `json:"_id"`
	}
	if err := json.Unmarshal(data, &upload); err != nil || upload.ID == "" {
		return "", fmt.Errorf("girder does not begin an upload: %q", data)
	}
	return upload.ID, nil
}
