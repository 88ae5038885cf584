package docker_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/docker/docker/client"
	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/enginetest"
)

// TestOptionsReachTheEngine creates a container with each option and looks for
// it in what the engine says of the container.
func TestOptionsReachTheEngine(t *testing.T) {
	t.Parallel()
	e := newEngine(t, docker.Config{})
	image := enginetest.BuildImage(t, "")
	api, err := client.NewClientWithOpts(client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	tried := map[string]bool{}
	for _, test := range []struct{ options, path, want string }{
		{`{"environment":{"A":"1"}}`, "Config.Env.0", `"A=1"`},
		{`{"user":1000}`, "Config.User", `"1000"`},
		{`{"group_add":[44]}`, "HostConfig.GroupAdd", `["44"]`},
		{`{"working_dir":"/tmp"}`, "Config.WorkingDir", `"/tmp"`},
		{`{"hostname":"h"}`, "Config.Hostname", `"h"`},
		{`{"domainname":"d.example"}`, "Config.Domainname", `"d.example"`},
		{`{"stdin_open":true}`, "Config.OpenStdin", `true`},
		{`{"stop_signal":"SIGINT"}`, "Config.StopSignal", `"SIGINT"`},
		{`{"platform":"linux"}`, "Platform", `"linux"`},
		{`{"runtime":"runc"}`, "HostConfig.Runtime", `"runc"`},
		{`{"healthcheck":{"test":["CMD","a"],"interval":1000000000,"retries":2}}`, "Config.Healthcheck", `{"Test":["CMD","a"],"Interval":1000000000,"Retries":2}`},
		{`{"init":false}`, "HostConfig.Init", `false`},
		{`{}`, "HostConfig.Init", `true`},
		{`{"mem_limit":"32m"}`, "HostConfig.Memory", `33554432`},
		{`{"mem_limit":"32m","mem_reservation":"16m"}`, "HostConfig.MemoryReservation", `16777216`},
		{`{"mem_limit":"32m","memswap_limit":-1}`, "HostConfig.MemorySwap", `-1`},
		{`{"mem_swappiness":10}`, "HostConfig.MemorySwappiness", ``},
		{`{"shm_size":"32m"}`, "HostConfig.ShmSize", `33554432`},
		{`{"oom_score_adj":100}`, "HostConfig.OomScoreAdj", `100`},
		{`{"oom_kill_disable":true,"mem_limit":"32m"}`, "HostConfig.OomKillDisable", ``},
		{`{"pids_limit":50}`, "HostConfig.PidsLimit", `50`},
		{`{"ulimits":[{"Name":"nofile","Soft":10,"Hard":20}]}`, "HostConfig.Ulimits", `[{"Name":"nofile","Hard":20,"Soft":10}]`},
		{`{"sysctls":{"net.core.somaxconn":100}}`, "HostConfig.Sysctls", `{"net.core.somaxconn":"100"}`},
		{`{"tmpfs":["/run:size=1m"]}`, "HostConfig.Tmpfs", `{"/run":"size=1m"}`},
		{`{"nano_cpus":500000000}`, "HostConfig.NanoCpus", `500000000`},
		{`{"cpu_shares":100}`, "HostConfig.CpuShares", `100`},
		{`{"cpu_period":50000,"cpu_quota":25000}`, "HostConfig.CpuQuota", `25000`},
		{`{"cpu_period":50000}`, "HostConfig.CpuPeriod", `50000`},
		{`{"cpuset_cpus":0}`, "HostConfig.CpusetCpus", `"0"`},
		{`{"cpuset_mems":"0"}`, "HostConfig.CpusetMems", `"0"`},
		{`{"blkio_weight":300}`, "HostConfig.BlkioWeight", ``},
		{`{"device_read_bps":[{"Path":"/dev/null","Rate":1000}]}`, "HostConfig.BlkioDeviceReadBps", `[{"Path":"/dev/null","Rate":1000}]`},
		{`{"device_read_iops":[{"Path":"/dev/null","Rate":10}]}`, "HostConfig.BlkioDeviceReadIOps", `[{"Path":"/dev/null","Rate":10}]`},
		{`{"device_write_bps":[{"Path":"/dev/null","Rate":1000}]}`, "HostConfig.BlkioDeviceWriteBps", `[{"Path":"/dev/null","Rate":1000}]`},
		{`{"device_write_iops":[{"Path":"/dev/null","Rate":10}]}`, "HostConfig.BlkioDeviceWriteIOps", `[{"Path":"/dev/null","Rate":10}]`},
		{`{"network_mode":"none"}`, "HostConfig.NetworkMode", `"none"`},
		{`{"network":"bridge","network_mode":"none"}`, "HostConfig.NetworkMode", `"bridge"`},
		{`{"network_disabled":true}`, "Config.NetworkDisabled", `true`},
		{`{"mac_address":"02:42:ac:11:00:02"}`, "Config.MacAddress", `"02:42:ac:11:00:02"`},
		{`{"dns":["10.0.0.1"]}`, "HostConfig.Dns", `["10.0.0.1"]`},
		{`{"dns_opt":["ndots:1"]}`, "HostConfig.DnsOptions", `["ndots:1"]`},
		{`{"dns_search":["example.org"]}`, "HostConfig.DnsSearch", `["example.org"]`},
		{`{"extra_hosts":{"a":"10.0.0.1"}}`, "HostConfig.ExtraHosts", `["a:10.0.0.1"]`},
		{`{"ports":{"80/tcp":["127.0.0.1",0]}}`, "HostConfig.PortBindings", `{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"0"}]}`},
		{`{"publish_all_ports":true}`, "HostConfig.PublishAllPorts", `true`},
		{`{"read_only":true}`, "HostConfig.ReadonlyRootfs", `true`},
		{`{"mounts":[{"target":"/m","type":"tmpfs","tmpfs_options":{"size_bytes":"1m"}}]}`, "HostConfig.Mounts", `[{"Type":"tmpfs","Target":"/m","TmpfsOptions":{"SizeBytes":1048576}}]`},
		{`{"devices":["/dev/null:/dev/n:r"]}`, "HostConfig.Devices", `[{"PathOnHost":"/dev/null","PathInContainer":"/dev/n","CgroupPermissions":"r"}]`},
		{`{"device_requests":[{"count":-1,"capabilities":[["gpu"]]}]}`, "HostConfig.DeviceRequests", `[{"Driver":"","Count":-1,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":null}]`},
		{`{"device_cgroup_rules":["c 1:3 r"]}`, "HostConfig.DeviceCgroupRules", `["c 1:3 r"]`},
		{`{"privileged":true}`, "HostConfig.Privileged", `true`},
		{`{"cap_add":["SYS_PTRACE"]}`, "HostConfig.CapAdd", `["CAP_SYS_PTRACE"]`},
		{`{"cap_drop":["ALL"]}`, "HostConfig.CapDrop", `["ALL"]`},
		{`{"security_opt":["no-new-privileges"]}`, "HostConfig.SecurityOpt", `["no-new-privileges"]`},
		{`{"ipc_mode":"private"}`, "HostConfig.IpcMode", `"private"`},
		{`{"pid_mode":"host"}`, "HostConfig.PidMode", `"host"`},
		{`{"userns_mode":"host"}`, "HostConfig.UsernsMode", `"host"`},
		{`{"uts_mode":"host"}`, "HostConfig.UTSMode", `"host"`},
		{`{"cgroupns":"private"}`, "HostConfig.CgroupnsMode", `"private"`},
		{`{"cgroup_parent":"/gantry-test"}`, "HostConfig.CgroupParent", `"/gantry-test"`},
		{`{"volume_driver":"local"}`, "HostConfig.VolumeDriver", `"local"`},
		{`{"log_config":{"type":"json-file"}}`, "HostConfig.LogConfig.Type", `"local"`},
		{`{"restart_policy":{"name":"on-failure","maximum_retry_count":2}}`, "HostConfig.RestartPolicy", `{"Name":"on-failure","MaximumRetryCount":2}`},
	} {
		options := contracts.DockerOptions{}
		if err := json.Unmarshal([]byte(test.options), &options); err != nil {
			t.Fatal(err)
		}
		id, err := e.Create(t.Context(), engine.Spec{Image: image, Labels: map[string]string{"gantry.test": "enginetest"}, Options: options})
		if err != nil {
			t.Errorf("%s: %v", test.options, err)
			continue
		}
		_, raw, err := api.ContainerInspectWithRaw(t.Context(), id, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
		note(tried, test.options)
		if test.want == "" {
			continue // the engine drops it where the kernel has no such thing
		}
		var want any
		if err := json.Unmarshal([]byte(test.want), &want); err != nil {
			t.Fatal(err)
		}
		if got := at(t, raw, test.path); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s is %v, want %v", test.options, test.path, got, want)
		}
	}
	for field := range reflect.TypeFor[contracts.DockerOptions]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if !tried[name] && !untried[name] {
			t.Errorf("option %s was not tried", name)
		}
	}
}

// untried are the options that need what a test's engine may not have, or that
// are not the engine's to set.
var untried = map[string]bool{
	"labels": true, "name": true, // are Gantry's
	"kernel_memory": true, "storage_opt": true, "cpu_rt_period": true, "cpu_rt_runtime": true, "blkio_weight_device": true,
	"links": true, "volumes_from": true,
}

func note(tried map[string]bool, options string) {
	var names map[string]any
	_ = json.Unmarshal([]byte(options), &names) // was read before
	for name := range names {
		tried[name] = true
	}
}

// at returns the value at a path such as "Config.Env.0".
func at(t *testing.T, raw []byte, path string) any {
	t.Helper()
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(path, ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[name]
		case []any:
			value = v[0]
		}
	}
	return value
}
