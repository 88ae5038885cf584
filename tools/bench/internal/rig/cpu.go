package rig

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of the kernel's times: USER_HZ, which is 100 on Linux.
const tick = time.Second / 100

// CPU returns how long a service has kept processors busy.
func (r *Rig) CPU(service string) (time.Duration, error) {
	for _, p := range r.processes {
		if p.name != service {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		if err != nil {
			return 0, err
		}
		return parseCPU(string(stat))
	}
	return 0, fmt.Errorf("there is no service %q", service)
}

// parseCPU reads /proc/PID/stat. The name of the program, in parentheses, may
// have blanks and parentheses of its own.
func parseCPU(stat string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("the kernel's times of a process are not in %q", stat)
	}
	var busy time.Duration
	for _, field := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("time of a process: %w", err)
		}
		busy += time.Duration(n) * tick
	}
	return busy, nil
}
