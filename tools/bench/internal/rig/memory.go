package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/docker/go-units"
)

// Memory is how much memory a process has resident, and had at most.
type Memory struct{ Now, Peak int64 }

// Memories are those of the rig's processes.
type Memories struct {
	Services Memory // of all Gantry's services together
	NATS     Memory // of the server, with what it has in its caches
}

// ForgetPeaks makes what the processes have now their peaks.
func (r *Rig) ForgetPeaks() error {
	var errs []error
	for _, process := range []*exec.Cmd{r.gantry, r.nats} {
		errs = append(errs, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", process.Process.Pid), []byte("5"), 0))
	}
	return errors.Join(errs...)
}

// Memories reads what the kernel says.
func (r *Rig) Memories() (Memories, error) {
	services, err := memoryOf(r.gantry)
	if err != nil {
		return Memories{}, err
	}
	nats, err := memoryOf(r.nats)
	return Memories{Services: services, NATS: nats}, err
}

func memoryOf(process *exec.Cmd) (Memory, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process.Process.Pid))
	if err != nil {
		return Memory{}, err
	}
	return parseMemory(string(status))
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
