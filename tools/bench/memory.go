package main

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"

	"github.com/gantry-worker/gantry/tools/bench/internal/rig"
)

// peaks watches the memory of Gantry's processes over the runs of a benchmark.
type peaks struct{ before, most []rig.Usage }

// over runs something of Gantry's and takes the peaks.
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
	if p.before == nil {
		p.before, p.most = before, after
	}
	for i := range after {
		p.most[i].Peak = max(p.most[i].Peak, after[i].Peak)
	}
	return nil
}

// String says it of all, the NATS server with what it has in its caches.
func (p *peaks) String() string {
	size := func(n int64) string { return units.BytesSize(float64(n)) }
	var each []string
	for i, before := range p.before {
		each = append(each, fmt.Sprintf("%s %s, at most %s", before.Name, size(before.Now), size(p.most[i].Peak)))
	}
	return "resident memory before, and at most: " + strings.Join(each, "; ")
}
