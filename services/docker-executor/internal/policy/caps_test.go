package policy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
)

func TestCaps(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, policy.Config{Caps: policy.Caps{Time: time.Hour, Memory: 1 << 30, CPUs: 1.5}})
	for text, want := range map[string]string{
		`{}`:                                      "",
		`{"mem_limit":"1g"}`:                      "",
		`{"mem_limit":"1025m"}`:                   policy.SettingMemory + "=" + "1074790400",
		`{"memswap_limit":"1g"}`:                  "",
		`{"memswap_limit":"1025m"}`:               policy.SettingMemory + "=" + "1074790400",
		`{"mem_limit":"1m","memswap_limit":-1}`:   policy.SettingMemory + "=0",
		`{"nano_cpus":1500000000}`:                "",
		`{"nano_cpus":1600000000}`:                policy.SettingCPUs + "=1.6",
		`{"cpu_quota":150000}`:                    "",
		`{"cpu_quota":150001}`:                    policy.SettingCPUs,
		`{"cpu_period":50000,"cpu_quota":100000}`: policy.SettingCPUs + "=2",
		`{"cpu_quota":-1}`:                        "",
	} {
		err := p.Options(options(t, text))
		if want == "" && err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if want != "" {
			refusal(t, err, want)
		}
	}
	for text, want := range map[string]contracts.DockerOptions{
		`{}`:                     {MemLimit: 1 << 30, MemswapLimit: 1 << 30, NanoCPUs: 1_500_000_000},
		`{"mem_limit":"1m"}`:     {MemLimit: 1 << 20, MemswapLimit: 1 << 20, NanoCPUs: 1_500_000_000},
		`{"memswap_limit":"1m"}`: {MemLimit: 1 << 20, MemswapLimit: 1 << 20, NanoCPUs: 1_500_000_000},
		`{"mem_limit":"1m","memswap_limit":"2m"}`: {MemLimit: 1 << 20, MemswapLimit: 2 << 20, NanoCPUs: 1_500_000_000},
		`{"nano_cpus":1}`:                         {MemLimit: 1 << 30, MemswapLimit: 1 << 30, NanoCPUs: 1},
		`{"cpu_quota":-1}`:                        {MemLimit: 1 << 30, MemswapLimit: 1 << 30, NanoCPUs: 1_500_000_000},
		`{"cpu_period":50000}`:                    {MemLimit: 1 << 30, MemswapLimit: 1 << 30, CPUPeriod: 50000, CPUQuota: 75000},
		`{"cpu_quota":1000}`:                      {MemLimit: 1 << 30, MemswapLimit: 1 << 30, CPUQuota: 1000},
	} {
		got := p.Complete(options(t, text))
		if got.MemLimit != want.MemLimit || got.MemswapLimit != want.MemswapLimit || got.NanoCPUs != want.NanoCPUs || got.CPUPeriod != want.CPUPeriod || got.CPUQuota != want.CPUQuota {
			t.Errorf("%s becomes %+v", text, got)
		}
	}
	if got := newPolicy(t, policy.Config{}).Complete(options(t, `{}`)); got.MemLimit != 0 || got.MemswapLimit != 0 || got.NanoCPUs != 0 {
		t.Errorf("without caps: %+v", got)
	}
}

func TestTimeLimits(t *testing.T) {
	t.Parallel()
	task := func(soft, hard time.Duration) *contracts.Task {
		return &contracts.Task{
			Docker: &contracts.DockerRun{}, Limits: &contracts.Limits{Time: contracts.Duration(hard), SoftTime: contracts.Duration(soft)},
		}
	}
	capped, free := newPolicy(t, policy.Config{Caps: policy.Caps{Time: time.Hour}}), newPolicy(t, policy.Config{})
	refusal(t, capped.Task(task(0, 2*time.Hour)), "limits.time", "2h0m0s", policy.SettingTime+"=2h0m0s")
	for _, test := range []struct {
		policy     *policy.Policy
		task       *contracts.Task
		soft, hard time.Duration
	}{
		{free, &contracts.Task{Docker: &contracts.DockerRun{}}, 0, 0},
		{free, task(time.Minute, 2*time.Hour), time.Minute, 2 * time.Hour},
		{capped, &contracts.Task{Docker: &contracts.DockerRun{}}, 0, time.Hour},
		{capped, task(time.Minute, time.Hour), time.Minute, time.Hour},
		{capped, task(time.Minute, 0), time.Minute, time.Hour},
	} {
		if err := test.policy.Task(test.task); err != nil {
			t.Error(err)
		}
		if soft, hard := test.policy.Limits(test.task); soft != test.soft || hard != test.hard {
			t.Errorf("%+v: %s and %s", test.task.Limits, soft, hard)
		}
	}
	if _, err := policy.New(policy.Config{Caps: policy.Caps{Time: -1, Memory: -1, CPUs: -1}}); err == nil ||
		!strings.Contains(err.Error(), policy.SettingTime) || !strings.Contains(err.Error(), policy.SettingMemory) || !strings.Contains(err.Error(), policy.SettingCPUs) {
		t.Errorf("negative caps: %v", err)
	}
}

// TestWhatGirderWorkerAllowed: everything.
func TestWhatGirderWorkerAllowed(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, policy.GirderWorker())
	if err := p.Options(options(t, `{"privileged":true,"network_mode":"host","devices":["/dev/null"],"volumes_from":["x"]}`)); err != nil {
		t.Error(err)
	}
	if got, err := p.Bind("etc", "/etc", policy.ReadWrite); err != nil || got != "/etc" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestAFolderThatIsYetToBeMade: its parent has to exist, and what it will be has
// to be allowed for writing, whichever way leads there.
func TestAFolderThatIsYetToBeMade(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mustLink(t, dir, dir+"/link")
	mustLink(t, dir+"/nowhere", dir+"/dangling")
	for _, prefix := range []string{dir, dir + "/new"} {
		p := newPolicy(t, policy.Config{AllowBind: []string{prefix + ":rw"}})
		for _, path := range []string{dir + "/new", dir + "/link/new"} {
			if got, err := p.BindNew("v", path); err != nil || got != dir+"/new" {
				t.Errorf("%s with %s allowed: %q, %v", path, prefix, got, err)
			}
		}
	}
	p := newPolicy(t, policy.Config{AllowBind: []string{dir + ":rw"}})
	for _, path := range []string{dir + "/no/new", dir + "/dangling", "/etc/new"} {
		if got, err := p.BindNew("v", path); err == nil {
			t.Errorf("%s is %s", path, got)
		}
	}
	if _, err := newPolicy(t, policy.Config{AllowBind: []string{dir}}).BindNew("v", dir+"/new"); err == nil {
		t.Error("made in a folder that is allowed for reading")
	}
}

func mustLink(t *testing.T, target, link string) {
	t.Helper()
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
}
