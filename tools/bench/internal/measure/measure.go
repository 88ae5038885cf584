// Package measure holds samples and what is said of them.
package measure

import (
	"fmt"
	"slices"
	"time"
)

// Samples are durations in the order in which they were measured.
type Samples []time.Duration

// Median is the middle sample, 0 for none.
func (s Samples) Median() time.Duration { return s.quantile(0.5) }

// P95 is the sample that 95 of 100 do not exceed.
func (s Samples) P95() time.Duration { return s.quantile(0.95) }

func (s Samples) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// Result is one figure beside its limit, measured in turn.
type Result struct {
	Name      string  `json:"name"`
	What      string  `json:"what"`
	LimitWhat string  `json:"limit_what"`
	Goal      string  `json:"goal"`
	Gantry    Samples `json:"gantry_ns"`
	Limit     Samples `json:"limit_ns"`
	// Difference says that the goal is about how much longer, not how many times.
	Difference bool `json:"difference,omitempty"`
	// Throughput says that the goal is about how much of the limit's throughput
	// is reached, not about how many times its time is taken.
	Throughput bool `json:"throughput,omitempty"`
	// Notes are sentences about what was seen beside the durations.
	Notes []string `json:"notes,omitempty"`
}

// Compare says how the medians (for a difference the 95th percentiles) relate.
func (r Result) Compare() string {
	if r.Difference {
		return fmt.Sprintf("%+.1f ms", float64(r.Gantry.P95()-r.Limit.P95())/1e6)
	}
	if r.Limit.Median() == 0 || r.Gantry.Median() == 0 {
		return "-"
	}
	if r.Throughput {
		return fmt.Sprintf("%.2f ×", float64(r.Limit.Median())/float64(r.Gantry.Median()))
	}
	return fmt.Sprintf("%.2f ×", float64(r.Gantry.Median())/float64(r.Limit.Median()))
}
