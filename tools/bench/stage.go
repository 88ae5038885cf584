package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/bench/internal/measure"
	"github.com/gantry-worker/gantry/tools/bench/internal/rig"
)

// staging compares what transfer moves with what curl moves.
type staging struct {
	rig    *rig.Rig
	result measure.Result
	memory peaks
	// What the two kept processors busy for, and Girder for each of them; and the
	// limit up to where its bytes are in the system's cache but not yet on the disk.
	busy, curlBusy, girderBusy, girderCurlBusy, cached measure.Samples
}

// limit is one measured run of curl.
type limit struct{ took, cached, busy time.Duration }

// measure runs a task and the limit in turn. span picks the part of the job's
// life that counts.
func (s *staging) measure(ctx context.Context, runs int, task func() (*contracts.Task, error),
	span func(life []*contracts.Entry) (time.Duration, error), curl func() (limit, error),
) error {
	for i := range 1 + runs {
		wanted, err := task()
		if err != nil {
			return err
		}
		start, err := ownCPU()
		if err != nil {
			return err
		}
		gantry, busy, err := s.gantry(ctx, wanted, span)
		if err != nil {
			return err
		}
		between, err := ownCPU()
		if err != nil {
			return err
		}
		if err := s.rest(ctx); err != nil {
			return err
		}
		bare, err := curl()
		if err != nil {
			return err
		}
		end, err := ownCPU()
		if err != nil {
			return err
		}
		if err := s.rest(ctx); err != nil {
			return err
		}
		if i == 0 { // the first one warms up
			continue
		}
		s.result.Gantry, s.result.Limit = append(s.result.Gantry, gantry), append(s.result.Limit, bare.took)
		s.busy, s.curlBusy, s.cached = append(s.busy, busy), append(s.curlBusy, bare.busy), append(s.cached, bare.cached)
		s.girderBusy, s.girderCurlBusy = append(s.girderBusy, between-start), append(s.girderCurlBusy, end-between)
	}
	return nil
}

// gantry runs a task and returns how long the part that counts took, and for
// how long transfer kept processors busy.
func (s *staging) gantry(ctx context.Context, task *contracts.Task, span func([]*contracts.Entry) (time.Duration, error)) (took, busy time.Duration, err error) {
	before, err := s.rig.CPU("transfer")
	if err != nil {
		return 0, 0, err
	}
	var life []*contracts.Entry
	err = s.memory.over(s.rig, func() (err error) {
		life, err = s.rig.Life(ctx, task)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	after, err := s.rig.CPU("transfer")
	if err != nil {
		return 0, 0, err
	}
	took, err = span(life)
	return took, after - before, err
}

// ownCPU is for how long this process, Girder above all, has kept processors busy.
func ownCPU() (time.Duration, error) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0, err
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// rest waits until nothing of the last run has work left for the disk.
func (s *staging) rest(ctx context.Context) error {
	if err := s.rig.Settle(ctx); err != nil {
		return err
	}
	unix.Sync()
	return nil
}

// scratch returns a new path that curl may use.
func (s *staging) scratch(name string) string { return filepath.Join(s.rig.Folder(), "curl-"+name) }

// notes says what was seen beside the times.
func (s *staging) notes(size int64, files int) {
	say := func(format string, args ...any) {
		s.result.Notes = append(s.result.Notes, fmt.Sprintf(format, args...))
	}
	if files > 1 {
		perSecond := func(m measure.Samples) float64 { return float64(files) / m.Median().Seconds() }
		say("%.0f files/s; limit: %.0f files/s", perSecond(s.result.Gantry), perSecond(s.result.Limit))
	} else {
		say("%.0f MiB/s; limit: %.0f MiB/s", rate(size, s.result.Gantry), rate(size, s.result.Limit))
	}
	if s.cached.Median() > 0 {
		say("limit without its sync: %s (ratio %.2f ×)", round(s.cached.Median()), float64(s.cached.Median())/float64(s.result.Gantry.Median()))
	}
	say("processors busy: transfer %s and Girder %s; curl %s and Girder %s", round(s.busy.Median()), round(s.girderBusy.Median()),
		round(s.curlBusy.Median()), round(s.girderCurlBusy.Median()))
	say("%s", &s.memory)
}

// span returns the time between the first entry of one type and the last of another.
func span(life []*contracts.Entry, from, to contracts.EntryType) (time.Duration, error) {
	var began, ended time.Time
	var types []string
	for _, entry := range life {
		types = append(types, string(entry.Type))
		if entry.Type == from && began.IsZero() {
			began = entry.Time
		}
		if entry.Type == to {
			ended = entry.Time
		}
	}
	if began.IsZero() || ended.Before(began) {
		return 0, fmt.Errorf("there is no %s before %s in the life of the job: %s", from, to, strings.Join(types, ", "))
	}
	return ended.Sub(began), nil
}
