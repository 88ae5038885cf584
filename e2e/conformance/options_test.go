package conformance

// Section 4.12: what of a container may be chosen, and what may not.

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// 4.12 tty, detach and volumes cannot be overridden
func TestOptionsThatAreOursAreRefusedByName(t *testing.T) {
	for option, value := range map[string]string{"tty": "true", "detach": "false", "volumes": "{}", "auto_remove": "true", "command": `"x"`, "entrypoint": `"x"`} {
		t.Run(option, func(t *testing.T) {
			s := start(t)
			s.refused(fmt.Sprintf(`{"docker": {"image": %q, "options": {%q: %s}}}`, s.image, option, value), "docker.options", option)
		})
	}
}

// 4.12 unknown and ill-typed options
func TestOptionsThatAreWrongAreRefusedByName(t *testing.T) {
	for option, value := range map[string]string{"colour": `"red"`, "mem_limit": `"much"`, "environment": "7", "ulimits": `"x"`, "nano_cpus": `"all"`} {
		t.Run(option, func(t *testing.T) {
			s := start(t)
			s.refused(fmt.Sprintf(`{"docker": {"image": %q, "options": {%q: %s}}}`, s.image, option, value), "docker.options", option)
		})
	}
}

// 4.12 every other option passes through, in docker-py's forms
func TestOptionsReachTheContainer(t *testing.T) {
	for name, c := range map[string]struct{ options, script, want string }{
		"environment as an object":  {`"environment": {"A": "1", "B": 2}`, `echo $A $B`, "1 2\n"},
		"environment as a list":     {`"environment": ["A=x=y", "B="]`, `echo "$A [$B]"`, "x=y []\n"},
		"user and groups":           {`"user": "12:34", "group_add": [56]`, `id -u; id -G`, "12\n34 56\n"},
		"working_dir":               {`"working_dir": "/tmp"`, `pwd`, "/tmp\n"},
		"hostname":                  {`"hostname": "box"`, `hostname`, "box\n"},
		"mem_limit as text":         {`"mem_limit": "64m"`, `cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes`, "67108864\n"},
		"mem_limit as a number":     {`"mem_limit": 67108864`, `cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes`, "67108864\n"},
		"shm_size":                  {`"shm_size": "8m"`, `busybox df -k /dev/shm | tail -n 1 | busybox awk '{print $2}'`, "8192\n"},
		"ulimits":                   {`"ulimits": [{"name": "nofile", "soft": 77, "hard": 88}]`, `ulimit -Sn; ulimit -Hn`, "77\n88\n"},
		"pids_limit":                {`"pids_limit": 31`, `cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max`, "31\n"},
		"read_only":                 {`"read_only": true`, `touch /tmp/x 2> /dev/null || echo refused`, "refused\n"},
		"tmpfs":                     {`"read_only": true, "tmpfs": {"/scratch": "size=1m"}`, `echo x > /scratch/x && cat /scratch/x`, "x\n"},
		"extra_hosts":               {`"extra_hosts": {"girder.example": "127.0.0.9"}`, `grep girder.example /etc/hosts | tr '\t' ' '`, "127.0.0.9 girder.example\n"},
		"cap_drop":                  {`"cap_drop": ["ALL"]`, `grep CapEff /proc/self/status | cut -f 2`, "0000000000000000\n"},
		"privileges of a container": {`"cap_add": ["NET_ADMIN"], "cap_drop": ["ALL"]`, `grep CapEff /proc/self/status | cut -f 2`, "0000000000001000\n"},
		"sysctls":                   {`"network_mode": "none", "sysctls": {"net.ipv4.ip_unprivileged_port_start": 79}`, `cat /proc/sys/net/ipv4/ip_unprivileged_port_start`, "79\n"},
		"oom_score_adj":             {`"oom_score_adj": 500`, `cat /proc/self/oom_score_adj`, "500\n"},
		"stdin_open":                {`"stdin_open": false`, `cat; echo end`, "end\n"},
		"no tty, ever":              {`"hostname": "x"`, `busybox tty || true`, "not a tty\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			job := s.publish(fmt.Sprintf(`{"docker": {"image": %q, "pull": "never", "args": ["sh", "-c", %q], "options": {%s}}}`, s.image, c.script, c.options))
			s.end(job).succeeded().wrote(c.want)
		})
	}
}

// 4.12 what cannot be seen from inside
func TestOptionsReachTheEngine(t *testing.T) {
	s := start(t)
	job := s.publish(fmt.Sprintf(`{"docker": {"image": %q, "pull": "never", "args": ["sh", "-c", "echo ready; sleep 1000"], "options": {
		"labels": {"lab": "7"}, "cpu_shares": 512, "nano_cpus": 500000000, "stop_signal": "SIGUSR1", "domainname": "example.org",
		"restart_policy": {"Name": "no"}, "dns": ["192.0.2.1"], "security_opt": ["no-new-privileges"]}}}`, s.image))
	s.AwaitLog(job, "ready")
	var container struct {
		Config struct {
			Labels     map[string]string
			StopSignal string
			Domainname string
			Tty        bool
		}
		HostConfig struct {
			CPUShares   int64    `json:"CpuShares"`
			NanoCPUs    int64    `json:"NanoCpus"`
			DNS         []string `json:"Dns"`
			SecurityOpt []string
		}
	}
	id := s.AwaitEntry(job, contracts.EntryStarted, 1).Data.(*contracts.Started).Container
	if err := json.Unmarshal([]byte(s.Engine.Inspect(id)), &container); err != nil {
		t.Fatal(err)
	}
	c, h := container.Config, container.HostConfig
	if c.Labels["lab"] != "7" || c.StopSignal != "SIGUSR1" || c.Domainname != "example.org" || c.Tty || h.CPUShares != 512 || h.NanoCPUs != 500000000 ||
		!slices.Equal(h.DNS, []string{"192.0.2.1"}) || !slices.Equal(h.SecurityOpt, []string{"no-new-privileges"}) {
		t.Errorf("the container is %+v", container)
	}
	for label, want := range map[string]string{"gantry.installation": s.Installation(), "gantry.job": string(job), "gantry.attempt": "1"} {
		if c.Labels[label] != want {
			t.Errorf("the label %s is %q, want %q", label, c.Labels[label], want)
		}
	}
	if c.Labels["gantry.executor"] == "" {
		t.Error("the container's labels do not name its executor")
	}
	s.revoke(job)
	s.end(job)
}

// 4.12 entrypoint as a string or a list; container_args default to none
func TestAnEntryPointMayBeAStringOrAList(t *testing.T) {
	for name, c := range map[string]struct{ docker, want string }{
		"a string":          {`"entrypoint": "echo from 'the string'", "args": ["and", "args"]`, "from the string and args\n"},
		"a list":            {`"entrypoint": ["echo", "from  the list"], "args": ["and", "args"]`, "from  the list and args\n"},
		"none":              {`"args": ["echo", "of the arguments"]`, "of the arguments\n"},
		"without arguments": {`"entrypoint": ["echo", "alone"]`, "alone\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			s.end(s.publish(fmt.Sprintf(`{"docker": {"image": %q, "pull": "never", %s}}`, s.image, c.docker))).succeeded().wrote(c.want)
		})
	}
}

// 4.12 (SCW) the image's own entry point, whose first argument is the name of a program
func TestTheImagesOwnEntryPointGetsTheArguments(t *testing.T) {
	s := start(t)
	task := s.command("Threshold", "--in", "file")
	task.Docker.Image = image(t, s.Engine, `ENTRYPOINT ["echo", "entry point:"]`)
	s.succeed(task).wrote("entry point: Threshold --in file\n")
}

// 4.12 the operator's options for every container: a task's own win, volumes are added
func TestTheOperatorsOptionsAreOfEveryContainer(t *testing.T) {
	host := folder(t)
	write(t, filepath.Join(host, "reference"), "atlas")
	s := alone(t, setup.Config{Env: map[string]string{"GANTRY_DOCKER_RUN_OPTIONS": fmt.Sprintf(
		`{"environment": {"A": "operator", "B": "operator"}, "hostname": "lab", "volumes": {%q: {"bind": "/reference", "mode": "ro"}}}`, host)}})
	task := s.script(`echo $A $B $(hostname) $(cat /reference/reference); ls -d "$1" > /dev/null`, &contracts.TemporaryVolume{})
	task.Docker.Options.Environment = contracts.Environment{"B": "task"}
	end := s.succeed(task)
	if words := end.words(); len(words) < 3 || words[len(words)-2] != "lab" || words[len(words)-1] != "atlas" || !strings.Contains(end.log, "task") {
		t.Errorf("the log is %q", end.log)
	}
	task = s.script(`hostname`)
	task.Docker.Options.Hostname = "mine"
	s.succeed(task).wrote("mine\n")
}

// Policy: a refusal says which setting would allow it.
func TestWhatAnOperatorForbidsIsRefusedWithTheSettingThatAllowsIt(t *testing.T) {
	host := folder(t)
	s := alone(t, setup.Config{Env: map[string]string{"GANTRY_ALLOW_BIND": "", "GANTRY_ALLOW_OPTIONS": "", "GANTRY_ALLOW_IMAGES": "gantry-conformance:*"}})
	check := func(task *contracts.Task, words ...string) {
		t.Helper()
		s.fail(task, words...)
	}
	bound := s.command("true")
	bound.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "ro")}
	check(bound, host, "GANTRY_ALLOW_BIND")
	privileged := s.command("true")
	privileged.Docker.Options.Privileged = true
	check(privileged, "privileged", "GANTRY_ALLOW_OPTIONS")
	scratch := s.command("true")
	scratch.Docker.Volumes = []contracts.Volume{temporary("scratch", host)}
	check(scratch, host, "GANTRY_ALLOW_BIND")
	pipe := s.command("true", connect(&contracts.NamedOutputPipe{Name: "out", HostPath: host, ContainerPath: "/pipes"}, &contracts.HostStdout{}))
	check(pipe, host, "GANTRY_ALLOW_BIND")
	other := s.command("true")
	other.Docker.Image = s.Engine.Image
	check(other, s.Engine.Image, "GANTRY_ALLOW_IMAGES")
	s.succeed(s.command("echo", "allowed")).wrote("allowed\n")
	if got := entries(t, host); len(got) > 0 {
		t.Errorf("the folder has %q", got)
	}
}

// policy: girder-worker
func TestThePolicyOfGirderWorkerAllowsWhatGirderWorkerAllowed(t *testing.T) {
	s := alone(t, setup.Config{Env: map[string]string{"GANTRY_ALLOW_BIND": "", "GANTRY_ALLOW_OPTIONS": "", "GANTRY_POLICY": "girder-worker"}})
	host := folder(t)
	task := s.script("touch /data/x")
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "rw")}
	task.Docker.Options.CapAdd, task.Docker.Options.IpcMode = []string{"SYS_CHROOT"}, "host"
	s.succeed(task)
	if got := entries(t, host); !slices.Equal(got, []string{"x"}) {
		t.Errorf("the folder has %q", got)
	}
}

// The operator's bounds for time, memory and processors.
func TestTheOperatorsBoundsHoldForEveryTask(t *testing.T) {
	s := alone(t, setup.Config{Env: map[string]string{"GANTRY_MAX_MEMORY": "48m", "GANTRY_MAX_CPUS": "0.5", "GANTRY_MAX_TIME": patience.String()}})
	const limit = `cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes`
	s.succeed(s.script(limit)).wrote("50331648\n")
	modest, greedy := s.script(limit), s.script(limit)
	modest.Docker.Options.MemLimit, greedy.Docker.Options.MemLimit = 32<<20, 64<<20
	s.succeed(modest).wrote("33554432\n")
	s.fail(greedy, "mem_limit", "GANTRY_MAX_MEMORY")
	many := s.command("true")
	many.Docker.Options.NanoCPUs = 2e9
	s.fail(many, "cpus", "GANTRY_MAX_CPUS")
	long := s.command("true")
	long.Limits = &contracts.Limits{Time: contracts.Duration(2 * patience)}
	s.fail(long, "limits.time", "GANTRY_MAX_TIME")
}

// A task that says nothing of time has what the operator gives it.
func TestTheOperatorsTimeLimitHoldsForATaskWithoutOne(t *testing.T) {
	s := alone(t, setup.Config{Env: map[string]string{"GANTRY_MAX_TIME": "3s"}})
	s.run(s.script(`trap '' TERM; while :; do sleep 100; done`)).failed(contracts.FailureTimeout, "3s")
}

// 4.12 GPUs: where nobody asked and the engine has none, it runs without
func TestAnImageThatWantsAGPURunsWithoutWhereThereIsNone(t *testing.T) {
	s := start(t)
	task := s.command("echo", "without")
	task.Docker.Image = image(t, s.Engine, "LABEL com.nvidia.volumes.needed=nvidia_driver")
	s.succeed(task).wrote("without\n")
	other := s.command("echo", "other label")
	other.Docker.Image = image(t, s.Engine, "LABEL com.nvidia.volumes.needed=something_else")
	s.succeed(other).wrote("other label\n")
}

// 4.12 no silent fallback where the task asked
func TestATaskThatAsksForAGPUFailsWhereThereIsNone(t *testing.T) {
	s := start(t)
	task := s.command("echo", "without")
	task.Docker.Options.Runtime = "nvidia"
	end := s.fail(task, "nvidia")
	if strings.Contains(end.log, "without") {
		t.Error("the container ran")
	}
	devices := s.publish(fmt.Sprintf(`{"docker": {"image": %q, "pull": "never", "args": ["echo", "without"],
		"options": {"device_requests": [{"Count": -1, "Capabilities": [["gpu"]]}]}}}`, s.image))
	s.end(devices).failed(contracts.FailureTask, "gpu")
}
