package policy_test

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
)

func options(t *testing.T, text string) *contracts.DockerOptions {
	t.Helper()
	o := new(contracts.DockerOptions)
	if err := json.Unmarshal([]byte(text), o); err != nil {
		t.Fatal(err)
	}
	return o
}

// TestGuardedOptions: what leads out of the container needs the operator's word,
// and only that one.
func TestGuardedOptions(t *testing.T) {
	t.Parallel()
	none, all := newPolicy(t, policy.Config{}), newPolicy(t, policy.Config{AllowOptions: []string{"all"}})
	tried := map[string]bool{}
	for text, option := range map[string]string{
		`{"privileged":true}`:                     "privileged",
		`{"cap_add":["SYS_ADMIN"]}`:               "cap_add",
		`{"devices":["/dev/sda"]}`:                "devices",
		`{"device_cgroup_rules":["a *:* rwm"]}`:   "device_cgroup_rules",
		`{"security_opt":["seccomp=unconfined"]}`: "security_opt",
		`{"cgroup_parent":"/"}`:                   "cgroup_parent",
		`{"volumes_from":["db"]}`:                 "volumes_from",
		`{"volume_driver":"x"}`:                   "volume_driver",
		`{"mounts":[{"target":"/m","volume_options":{"driver_config":{"name":"local","options":{"o":"bind","device":"/etc"}}}}]}`: "volume_driver",
		`{"mounts":[{"target":"/m","source":"shared"}]}`: "mounts=volume",
		`{"network":"host"}`:                             "network_mode=host",
		`{"network_mode":"host"}`:                        "network_mode=host",
		`{"network_mode":"container:db"}`:                "network_mode=container",
		`{"pid_mode":"host"}`:                            "pid_mode=host",
		`{"pid_mode":"container:db"}`:                    "pid_mode=container",
		`{"ipc_mode":"host"}`:                            "ipc_mode=host",
		`{"ipc_mode":"container:db"}`:                    "ipc_mode=container",
		`{"userns_mode":"host"}`:                         "userns_mode=host",
		`{"uts_mode":"host"}`:                            "uts_mode=host",
		`{"cgroupns":"host"}`:                            "cgroupns=host",
	} {
		o := options(t, text)
		tried[option] = true
		refusal(t, none.Options(o), policy.SettingOptions+"="+option)
		if err := all.Options(o); err != nil {
			t.Errorf("%s with all allowed: %v", text, err)
		}
		for _, allowed := range policy.Guarded {
			err := newPolicy(t, policy.Config{AllowOptions: []string{allowed}}).Options(o)
			if (err == nil) != (allowed == option) {
				t.Errorf("%s with %s allowed: %v", text, allowed, err)
			}
		}
	}
	for _, option := range policy.Guarded {
		if !tried[option] {
			t.Errorf("%s is guarded, and no task asked for it", option)
		}
	}
}

func TestHarmlessOptions(t *testing.T) {
	t.Parallel()
	none := newPolicy(t, policy.Config{})
	for _, text := range []string{
		`{}`, `{"network_mode":"none"}`, `{"network_mode":"bridge"}`, `{"network":"lab-net"}`, `{"mem_limit":"1g","cpu_shares":2}`,
		`{"cap_drop":["ALL"]}`, `{"ulimits":[{"name":"nofile","soft":10}]}`, `{"tmpfs":{"/run":""}}`, `{"shm_size":"1g"}`,
		`{"mounts":[{"target":"/m","type":"tmpfs"},{"target":"/n"}]}`, `{"device_requests":[{"count":-1,"capabilities":[["gpu"]]}]}`,
		`{"ports":{"80/tcp":null}}`, `{"ipc_mode":"private"}`, `{"sysctls":{"net.core.somaxconn":1}}`, `{"init":false}`, `{"cgroupns":"private"}`,
	} {
		if err := none.Options(options(t, text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	refusal(t, none.Options(options(t, `{"network_mode":"ns:/proc/1/ns/net"}`)), "namespace")
}

func TestMountsOfTheHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPolicy(t, policy.Config{AllowBind: []string{dir}})
	mount := func(source, more string) *contracts.DockerOptions {
		return options(t, `{"mounts":[{"target":"/m","type":"bind","source":"`+source+`"`+more+`}]}`)
	}
	if err := p.Options(mount(dir, `,"read_only":true`)); err != nil {
		t.Error(err)
	}
	refusal(t, p.Options(mount(dir, "")), policy.SettingBind+"="+dir+":rw")
	refusal(t, p.Options(mount("/etc", `,"read_only":true`)), "mounts[0]", policy.SettingBind)
}

func TestRunOptions(t *testing.T) {
	t.Parallel()
	run, volumes, err := policy.ReadRunOptions(`{"environment":{"A":"operator","B":"operator"},"mem_limit":"1g","shm_size":"64m",
		"volumes":{"/srv/data":{"bind":"/data","mode":"ro"}}}`)
	if err != nil {
		t.Fatal(err)
	}
	p := newPolicy(t, policy.Config{RunOptions: run, Volumes: volumes})
	got := p.Complete(options(t, `{"environment":["A=task"],"mem_limit":"2g","mounts":[{"target":"/t","type":"tmpfs"}]}`))
	want := contracts.DockerOptions{
		Environment: contracts.Environment{"A": "task", "B": "operator"}, MemLimit: 2 << 30, ShmSize: 64 << 20,
		Mounts: []contracts.Mount{{Type: "tmpfs", Target: "/t"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	mounted := []contracts.Volume{{Type: contracts.VolumeBindMount, HostPath: "/srv/data", ContainerPath: "/data", Mode: "ro"}}
	if diff := cmp.Diff(mounted, p.Volumes()); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		`{"mem_limt":1}`: "mem_limt", `{"mem_limit":"lots"}`: "mem_limit", `[`: "a list found", `{"cpu_shares":-1}`: "cpu_shares",
		`{"volumes":{"/a":{"bind":"/b","mode":"x"}}}`: "volumes[0].mode", `{"volumes":{"/a":{}}}`: "volumes[0].container_path",
		`{"volumes":["/a"]}`: "host:container", `{"volumes":[{"name":"t","type":"temporary"}]}`: "volumes[0]",
	} {
		if _, _, err := policy.ReadRunOptions(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestVolumesOfTheOperator: Girder Worker's list form means read-only where it
// says no mode.
func TestVolumesOfTheOperator(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`["/a:/b"]`: "ro", `["/a:/b:rw"]`: "rw", `["/a:/b:ro,z"]`: "ro,z", `{"/a":{"bind":"/b"}}`: "",
		`[{"type":"bind_mount","host_path":"/a","container_path":"/b"}]`: "",
	} {
		_, volumes, err := policy.ReadRunOptions(`{"volumes":` + text + `}`)
		if err != nil || len(volumes) != 1 || volumes[0].HostPath != "/a" || volumes[0].ContainerPath != "/b" || volumes[0].Mode != want {
			t.Errorf("%s: %+v, %v", text, volumes, err)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		task, operator string
		most           int64
		limit          int64
		setting        string
	}{
		"none":               {`{}`, `{}`, 0, 0, ""},
		"task's":             {`{"mem_limit":"64m"}`, `{"mem_limit":"32m"}`, 128 << 20, 64 << 20, "docker.options.mem_limit"},
		"operator's":         {`{}`, `{"mem_limit":"32m"}`, 128 << 20, 32 << 20, "mem_limit in this node's GANTRY_DOCKER_RUN_OPTIONS"},
		"cap":                {`{}`, `{}`, 128 << 20, 128 << 20, "this node's GANTRY_MAX_MEMORY"},
		"task's with swap":   {`{"memswap_limit":"64m"}`, `{}`, 128 << 20, 64 << 20, "docker.options.memswap_limit"},
		"operator's of both": {`{}`, `{"memswap_limit":"64m"}`, 128 << 20, 64 << 20, "memswap_limit in this node's GANTRY_DOCKER_RUN_OPTIONS"},
	} {
		p := newPolicy(t, policy.Config{RunOptions: *options(t, test.operator), Caps: policy.Caps{Memory: test.most}})
		if limit, setting := p.MemoryLimit(options(t, test.task)); limit != test.limit || setting != test.setting {
			t.Errorf("%s: %d, %q", name, limit, setting)
		}
	}
}
