package rig

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/docker/go-units"
)

// Memory is how much memory a process has resident, and had at most.
type Memory struct{ Now, Peak int64 }

// Usage is what one of the rig's processes takes.
type Usage struct {
	Name string
	Memory
}

// ForgetPeaks makes what the processes have now their peaks.
func (r *Rig) ForgetPeaks() error {
	var errs []error
	for _, p := range r.processes {
		errs = append(errs, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0))
	}
	return errors.Join(errs...)
}

// Memories reads what the kernel says of each process, in the order of their start.
func (r *Rig) Memories() ([]Usage, error) {
	var all []Usage
	for _, p := range r.processes {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		if err != nil {
			return nil, err
		}
		memory, err := parseMemory(string(status))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		all = append(all, Usage{p.name, memory})
	}
	return all, nil
}

func parseMemory(status string) (m Memory, err error) {
	found := 0
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		into := map[string]*int64{"VmRSS": &m.Now, "VmHWM": &m.Peak}[name]
		if into == nil {
			continue
		}
		if *into, err = units.RAMInBytes(strings.TrimSpace(value)); err != nil {
			return m, fmt.Errorf("resident memory %q: %w", line, err)
		}
		found++
	}
	if found != 2 {
		return m, errors.New("the kernel does not tell the resident memory")
	}
	return m, nil
}
