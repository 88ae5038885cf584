package rig

import "testing"

func TestParseMemory(t *testing.T) {
	t.Parallel()
	got, err := parseMemory("Name:\tgantry\nVmPeak:\t 9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n")
	if err != nil || got != (Memory{Now: 1 << 20, Peak: 2 << 20}) {
		t.Errorf("memory %+v, %v", got, err)
	}
	for _, bad := range []string{"", "VmRSS:\t1 kB\n", "VmRSS:\tmuch\nVmHWM:\t1 kB\n"} {
		if got, err := parseMemory(bad); err == nil {
			t.Errorf("%q is %+v", bad, got)
		}
	}
}
