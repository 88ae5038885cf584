package main

import (
	"fmt"

	"github.com/docker/go-units"

	"github.com/gantry-worker/gantry/tools/bench/internal/rig"
)

// peaks watches Gantry's memory over the runs of a benchmark.
type peaks struct {
	before, peak rig.Memories
	runs         int
}

// over runs something of Gantry's and takes its peak.
func (p *peaks) over(r *rig.Rig, do func() error) error {
	before, err := r.Memories()
	if err != nil {
		return err
	}
	if err := r.ForgetPeaks(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	after, err := r.Memories()
	if err != nil {
		return err
	}
	if p.runs == 0 {
		p.before = before
	}
	p.peak.Services.Peak = max(p.peak.Services.Peak, after.Services.Peak)
	p.peak.NATS.Peak = max(p.peak.NATS.Peak, after.NATS.Peak)
	p.runs++
	return nil
}

func (p *peaks) String() string {
	size := func(n int64) string { return units.BytesSize(float64(n)) }
	return fmt.Sprintf("resident memory: services %s before, at most %s; NATS server with its caches %s before, at most %s",
		size(p.before.Services.Now), size(p.peak.Services.Peak), size(p.before.NATS.Now), size(p.peak.NATS.Peak))
}
