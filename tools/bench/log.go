package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/bench/internal/measure"
	"github.com/gantry-worker/gantry/tools/bench/internal/rig"
)

// logSize is how much longLog's container writes.
const logSize = 200_000_000

// chatter writes logSize bytes in lines of 100.
var chatter = fmt.Sprintf(`/bin/busybox yes %s | /bin/busybox head -c %d`, strings.Repeat("0123456789", 10)[:99], logSize)

// longLog measures the log of one container that writes as fast as it can.
func longLog(ctx context.Context, r *rig.Rig, with settings) (measure.Result, error) {
	result := measure.Result{
		What:      "200 MB of log in lines of 100 bytes: submit → terminal entry, with the last byte stored",
		LimitWhat: "engine API: the same container, its log read to a file as it grows", Goal: "≥ 0.5 ×", Throughput: true,
	}
	var memory peaks
	for range with.runsOr(3) {
		gantry, err := timed(func() error { return memory.over(r, func() error { return gantryLog(ctx, r) }) })
		if err != nil {
			return result, err
		}
		limit, err := timed(func() error { return bareLog(ctx, r) })
		if err != nil {
			return result, err
		}
		result.Gantry, result.Limit = append(result.Gantry, gantry), append(result.Limit, limit)
	}
	result.Notes = append(result.Notes, memory.String())
	return result, nil
}

func gantryLog(ctx context.Context, r *rig.Rig) error {
	task := rig.Task("sh", "-c", chatter)
	if err := r.Run(ctx, task); err != nil {
		return err
	}
	stream, err := r.Client.JetStream().Stream(ctx, contracts.StreamLive)
	if err != nil {
		return err
	}
	last, err := stream.GetLastMsgForSubject(ctx, contracts.LogFilter(task.ID))
	if err != nil {
		return err
	}
	var chunk contracts.LogChunk
	if err := json.Unmarshal(last.Data, &chunk); err != nil {
		return err
	}
	if stored := chunk.Offset + int64(len(chunk.Bytes())); stored != logSize {
		return fmt.Errorf("the log of job %s has %d bytes", task.ID, stored)
	}
	return nil
}

func bareLog(ctx context.Context, r *rig.Rig) error {
	file, err := os.CreateTemp(r.Folder(), "log-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) //nolint:errcheck // the rig's folder goes as a whole
	defer file.Close()           //nolint:errcheck // closed below after a success
	err = r.BareWith(ctx, func(string) error { return nil }, func(id string) error {
		log, err := r.Docker.ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: true})
		if err != nil {
			return err
		}
		_, err = stdcopy.StdCopy(file, file, log)
		return errors.Join(err, log.Close())
	}, "sh", "-c", chatter)
	if err != nil {
		return err
	}
	if info, err := file.Stat(); err != nil || info.Size() != logSize {
		return errors.Join(fmt.Errorf("the engine's log has %d bytes", info.Size()), err)
	}
	return file.Close()
}
