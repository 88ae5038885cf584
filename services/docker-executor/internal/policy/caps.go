package policy

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/docker/go-units"

	"github.com/gantry-worker/gantry/contracts"
)

// Caps are what no task may exceed, and what one gets that asks for nothing. 0
// is no cap.
type Caps struct {
	Time   time.Duration
	Memory int64   // bytes
	CPUs   float64 // 1.5 is one and a half processors
}

// defaultPeriod is the engine's period for a quota, in microseconds.
const defaultPeriod = 100_000

func (c Caps) validate() error {
	var errs []error
	if c.Time < 0 {
		errs = append(errs, fmt.Errorf("%s: %s is negative", SettingTime, c.Time))
	}
	if c.Memory < 0 {
		errs = append(errs, fmt.Errorf("%s: %d is negative", SettingMemory, c.Memory))
	}
	if !(c.CPUs >= 0) || c.CPUs > 1<<20 {
		errs = append(errs, fmt.Errorf("%s: %v is no number of processors", SettingCPUs, c.CPUs))
	}
	return errors.Join(errs...)
}

// Task returns nil if a task may have its options and limits, else a *Refusal.
func (p *Policy) Task(task *contracts.Task) error {
	if err := p.Options(&task.Docker.Options); err != nil {
		return fmt.Errorf("docker.options: %w", err)
	}
	if limit := limitOf(task); p.caps.Time > 0 && limit > p.caps.Time {
		return &Refusal{
			What: fmt.Sprintf("limits.time %q", limit), Reason: fmt.Sprintf("this node gives no task more than %s", p.caps.Time),
			Setting: SettingTime, Value: limit.String(),
		}
	}
	return nil
}

func limitOf(task *contracts.Task) time.Duration {
	if task.Limits == nil {
		return 0
	}
	return time.Duration(task.Limits.Time)
}

// Limits returns how long a task's container may run: after soft it is asked to
// end, after hard it is killed. 0 is no limit.
func (p *Policy) Limits(task *contracts.Task) (soft, hard time.Duration) {
	if task.Limits != nil {
		soft = time.Duration(task.Limits.SoftTime)
	}
	if hard = limitOf(task); hard == 0 {
		hard = p.caps.Time
	}
	return soft, hard
}

// check returns nil if a task's own options are within the caps.
func (c Caps) check(o *contracts.DockerOptions) error {
	if memory := int64(o.MemLimit); c.Memory > 0 && memory > c.Memory {
		return &Refusal{
			What: fmt.Sprintf("mem_limit %s", units.BytesSize(float64(memory))), Reason: "this node gives no task more than " + units.BytesSize(float64(c.Memory)),
			Setting: SettingMemory, Value: strconv.FormatInt(memory, 10),
		}
	}
	if swap := int64(o.MemswapLimit); c.Memory > 0 && (swap < 0 || swap > c.Memory) {
		what, value := "memswap_limit "+units.BytesSize(float64(swap)), strconv.FormatInt(swap, 10)
		if swap < 0 {
			what, value = "memswap_limit -1", "0"
		}
		return &Refusal{
			What: what, Reason: "this node gives no task more than " + units.BytesSize(float64(c.Memory)) + " of memory and swap together",
			Setting: SettingMemory, Value: value,
		}
	}
	name, cpus := asked(o)
	if c.CPUs > 0 && cpus > c.CPUs {
		return &Refusal{
			What: fmt.Sprintf("%s for %s CPUs", name, number(cpus)), Reason: "this node gives no task more than " + number(c.CPUs),
			Setting: SettingCPUs, Value: number(cpus),
		}
	}
	return nil
}

// asked returns how many processors options ask for, and by which option; 0 for
// no limit.
func asked(o *contracts.DockerOptions) (option string, cpus float64) {
	switch {
	case o.NanoCPUs > 0:
		return "nano_cpus", float64(o.NanoCPUs) / 1e9
	case o.CPUQuota > 0:
		return "cpu_quota", float64(o.CPUQuota) / float64(periodOf(o))
	default:
		return "", 0
	}
}

func periodOf(o *contracts.DockerOptions) int64 {
	if o.CPUPeriod > 0 {
		return o.CPUPeriod
	}
	return defaultPeriod
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', 6, 64) }

// complete gives options that ask for no limit the caps.
func (c Caps) complete(o *contracts.DockerOptions) {
	if c.Memory > 0 && o.MemLimit == 0 {
		o.MemLimit = contracts.ByteSize(c.Memory)
		if o.MemswapLimit > 0 { // which includes it
			o.MemLimit = min(o.MemLimit, contracts.ByteSize(o.MemswapLimit))
		}
	}
	if c.Memory > 0 && o.MemswapLimit == 0 { // an engine would give as much swap again
		o.MemswapLimit = contracts.SwapSize(o.MemLimit)
	}
	if _, cpus := asked(o); c.CPUs == 0 || cpus > 0 {
		return
	}
	if o.CPUPeriod > 0 { // an engine takes no nano_cpus beside it
		o.CPUQuota = int64(c.CPUs * float64(o.CPUPeriod))
		return
	}
	o.CPUQuota, o.NanoCPUs = 0, int64(c.CPUs*1e9)
}
