package contracts

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestOptionForms reads each option in every form that docker-py takes.
func TestOptionForms(t *testing.T) {
	t.Parallel()
	yes, limit := true, int64(100)
	for text, want := range map[string]DockerOptions{
		`{"memswap_limit":-1}`:     {MemswapLimit: -1},
		`{"memswap_limit":"-1"}`:   {MemswapLimit: -1},
		`{"memswap_limit":"1g"}`:   {MemswapLimit: 1 << 30},
		`{"shm_size":"64m"}`:       {ShmSize: 64 << 20},
		`{"group_add":[44,"vid"]}`: {GroupAdd: []Text{"44", "vid"}},
		`{"init":true}`:            {Init: &yes},
		`{"pids_limit":100}`:       {PidsLimit: &limit},
		`{"user":1000}`:            {User: "1000"},
		`{"sysctls":{"net.core.somaxconn":1024,"net.ipv4.ip_forward":"1"}}`: {Sysctls: TextMap{"net.core.somaxconn": "1024", "net.ipv4.ip_forward": "1"}},

		`{"ulimits":[{"Name":"nofile","Soft":1024,"Hard":2048}]}`: {Ulimits: []Ulimit{{"nofile", 1024, 2048}}},
		`{"ulimits":[{"name":"nproc","soft":8}]}`:                 {Ulimits: []Ulimit{{Name: "nproc", Soft: 8}}},

		`{"tmpfs":{"/run":"size=1m","/tmp":""}}`: {Tmpfs: MountPoints{"/run": "size=1m", "/tmp": ""}},
		`{"tmpfs":["/run:size=1m,uid=5","/t"]}`:  {Tmpfs: MountPoints{"/run": "size=1m,uid=5", "/t": ""}},

		`{"extra_hosts":{"b":"10.0.0.2","a":"::1"}}`:                                                {ExtraHosts: NamePairs{"a:::1", "b:10.0.0.2"}},
		`{"extra_hosts":["a:10.0.0.1"]}`:                                                            {ExtraHosts: NamePairs{"a:10.0.0.1"}},
		`{"links":[["db","database"],"cache",["x",""]]}`:                                            {Links: NamePairs{"db:database", "cache", "x"}},
		`{"volumes_from":"a:ro,b"}`:                                                                 {VolumesFrom: Names{"a:ro", "b"}},
		`{"volumes_from":["a","b:ro"]}`:                                                             {VolumesFrom: Names{"a", "b:ro"}},
		`{"devices":["/dev/fuse","/dev/a:/dev/b:r"]}`:                                               {Devices: []Device{{PathOnHost: "/dev/fuse"}, {"/dev/a", "/dev/b", "r"}}},
		`{"devices":[{"PathOnHost":"/dev/a","PathInContainer":"/dev/b","CgroupPermissions":"rw"}]}`: {Devices: []Device{{"/dev/a", "/dev/b", "rw"}}},

		`{"device_requests":[{"Driver":"nvidia","Count":-1,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{}}]}`: {
			DeviceRequests: []DeviceRequest{{Driver: "nvidia", Count: -1, Capabilities: [][]string{{"gpu"}}, Options: StringMap{}}}},
		`{"device_requests":[{"device_ids":["0","2"],"capabilities":[["gpu","utility"]]}]}`: {
			DeviceRequests: []DeviceRequest{{DeviceIDs: []string{"0", "2"}, Capabilities: [][]string{{"gpu", "utility"}}}}},

		`{"ports":{"2222/tcp":3333,"53/udp":null,"80":"8080-8090"}}`: {Ports: PortBindings{
			"2222/tcp": {{HostPort: "3333"}}, "53/udp": {{}}, "80/tcp": {{HostPort: "8080-8090"}}}},
		`{"ports":{"1111/tcp":["127.0.0.1",1111],"2/tcp":[1234,4567],"3/tcp":["::1"]}}`: {Ports: PortBindings{
			"1111/tcp": {{HostIP: "127.0.0.1", HostPort: "1111"}}, "2/tcp": {{HostPort: "1234"}, {HostPort: "4567"}}, "3/tcp": {{HostIP: "::1"}}}},
		`{"ports":{"4/tcp":[{"HostIp":"127.0.0.1","HostPort":"5"}]}}`: {Ports: PortBindings{"4/tcp": {{"127.0.0.1", "5"}}}},

		`{"mounts":[{"Target":"/m","Source":"/srv","Type":"bind","ReadOnly":true,"BindOptions":{"Propagation":"rslave"}}]}`: {
			Mounts: []Mount{{Target: "/m", Source: "/srv", Type: "bind", ReadOnly: true, BindOptions: &BindOptions{"rslave"}}}},
		`{"mounts":[{"target":"/m","type":"tmpfs","tmpfs_options":{"size_bytes":"1m","mode":1023}}]}`: {
			Mounts: []Mount{{Target: "/m", Type: "tmpfs", TmpfsOptions: &TmpfsOptions{1 << 20, 1023}}}},
		`{"mounts":[{"Target":"/m","Source":"v","VolumeOptions":{"NoCopy":true,"DriverConfig":{"Name":"local","Options":{"o":"x"}}}}]}`: {
			Mounts: []Mount{{Target: "/m", Source: "v", VolumeOptions: &VolumeOptions{NoCopy: true, DriverConfig: &VolumeDriver{"local", StringMap{"o": "x"}}}}}},

		`{"healthcheck":{"test":"curl x","interval":1000000}}`:           {Healthcheck: &Healthcheck{Test: HealthTest{"CMD-SHELL", "curl x"}, Interval: 1000000}},
		`{"healthcheck":{"Test":["CMD","a"],"StartPeriod":5000000}}`:     {Healthcheck: &Healthcheck{Test: HealthTest{"CMD", "a"}, StartPeriod: 5000000}},
		`{"restart_policy":{"Name":"on-failure","MaximumRetryCount":5}}`: {RestartPolicy: &RestartPolicy{"on-failure", 5}},
		`{"log_config":{"Type":"json-file","Config":{}}}`:                {LogConfig: &LogConfig{"json-file", StringMap{}}},
		`{"blkio_weight_device":[{"Path":"/dev/sda","Weight":300}]}`:     {BlkioWeightDevice: []WeightDevice{{"/dev/sda", 300}}},
		`{"device_read_bps":[{"Path":"/dev/sda","Rate":1000}]}`:          {DeviceReadBps: []RateDevice{{"/dev/sda", 1000}}},
	} {
		task, err := DecodeTask([]byte(`{"version":1,"task":"docker_run","docker":{"image":"i","options":` + text + `}}`))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, task.Docker.Options); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
		again, err := task.Encode()
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if reread, err := DecodeTask(again); err != nil || cmp.Diff(task, reread, cmpopts.EquateEmpty()) != "" {
			t.Errorf("%s: written as %s and read as something else, error %v", text, again, err)
		}
	}
}

// TestRefusedOptions: what the engine would refuse, or what would not mean what
// it says, is refused with the option's name.
func TestRefusedOptions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"mem_limt":1}`:                                       "docker.options.mem_limt: unknown option",
		`{"tty":true}`:                                         "docker.options.tty: this option cannot be set by a task",
		`{"volumes":{}}`:                                       "docker.options.volumes: this is not an option here: write docker.volumes",
		`{"isolation":"hyperv"}`:                               "docker.options.isolation: no engine",
		`{"privileged":"yes"}`:                                 "docker.options.privileged: a string found where a boolean is wanted",
		`{"memswap_limit":-2}`:                                 "docker.options.memswap_limit",
		`{"mem_limit":"2g","memswap_limit":"1g"}`:              "docker.options.memswap_limit: 1073741824 is less than mem_limit",
		`{"cpu_shares":-1}`:                                    "docker.options.cpu_shares: -1 is negative",
		`{"oom_score_adj":2000}`:                               "docker.options.oom_score_adj: 2000 is not between -1000 and 1000",
		`{"mem_swappiness":101}`:                               "docker.options.mem_swappiness: 101",
		`{"blkio_weight":5}`:                                   "docker.options.blkio_weight: 5 is not between 10 and 1000",
		`{"blkio_weight":70000}`:                               "docker.options.blkio_weight",
		`{"cpuset_cpus":"0..2"}`:                               `docker.options.cpuset_cpus: "0..2" is not processors`,
		`{"ulimits":[{"soft":1}]}`:                             "docker.options.ulimits[0].name: missing",
		`{"ulimits":[{"name":"nofile","soft":9,"hard":3}]}`:    "docker.options.ulimits[0].soft: 9 is more than the hard limit 3",
		`{"ulimits":[{"name":"n","sofft":9}]}`:                 "docker.options.ulimits[0].sofft",
		`{"ports":{"x/tcp":1}}`:                                `docker.options.ports: "x/tcp" is not a port`,
		`{"ports":{"1/abc":1}}`:                                `docker.options.ports: "1/abc" is not a port`,
		`{"ports":{"1/tcp":99999}}`:                            `"99999" is not a port of the node`,
		`{"ports":{"1/tcp":1},"network_mode":"host"}`:          "docker.options.ports: cannot be published",
		`{"devices":["a"]}`:                                    `docker.options.devices[0]: "a" is not the path of a device`,
		`{"devices":["/a:/b:rwx"]}`:                            "docker.options.devices[0]",
		`{"devices":["/a:/b:r:w"]}`:                            "docker.options.devices[0]",
		`{"device_requests":[{"count":1,"device_ids":["0"]}]}`: "docker.options.device_requests[0]: give either",
		`{"device_cgroup_rules":["x"]}`:                        "docker.options.device_cgroup_rules[0]",
		`{"mounts":[{"target":"m"}]}`:                          `docker.options.mounts[0].target: "m" is not an absolute path`,
		`{"mounts":[{"target":"/m","type":"bind"}]}`:           "docker.options.mounts[0].source",
		`{"mounts":[{"target":"/m","type":"npipe"}]}`:          "docker.options.mounts[0].type",
		`{"mounts":[{"target":"/m","source":"/s","type":"bind","bind_options":{"propagation":"x"}}]}`: "docker.options.mounts[0].bind_options.propagation",
		`{"tmpfs":{"tmp":""}}`:                        `docker.options.tmpfs: "tmp" is not an absolute path`,
		`{"dns":["ns.example"]}`:                      `docker.options.dns[0]: "ns.example" is not an IP address`,
		`{"extra_hosts":{"a":"b"}}`:                   `docker.options.extra_hosts[0]: "a:b" is not name:address`,
		`{"links":[["a"]]}`:                           "docker.options.links[0]",
		`{"mac_address":"x"}`:                         `docker.options.mac_address: "x" is not a hardware address`,
		`{"name":"-x"}`:                               `docker.options.name: "-x" is not a container's name`,
		`{"stop_signal":"sigterm"}`:                   "docker.options.stop_signal",
		`{"platform":"Linux"}`:                        "docker.options.platform",
		`{"userns_mode":"private"}`:                   `docker.options.userns_mode: "private" is not host`,
		`{"restart_policy":{"name":"always"}}`:        `docker.options.restart_policy.name: "always" is not no or on-failure`,
		`{"log_config":{"type":"syslog"}}`:            `docker.options.log_config.type: "syslog" is not json-file or local`,
		`{"log_config":{"config":{"max-size":"1m"}}}`: "docker.options.log_config.config: cannot be set",
		`{"healthcheck":{"interval":5}}`:              "docker.options.healthcheck.interval: 5 is not 0",
		`{"sysctls":{"a":"x\u0000"}}`:                 "docker.options.sysctls.a: holds a NUL character",
		`{"cap_add":["A","B\u0000"]}`:                 "docker.options.cap_add[1]: holds a NUL character",
		`{"labels":{"gantry.job":"x"}}`:               `labels that start with "gantry." are set by Gantry`,
	} {
		_, err := DecodeTask([]byte(`{"version":1,"task":"docker_run","docker":{"image":"i","options":` + text + `}}`))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
}

// TestEveryOptionIsKnown: each option of docker-py is read, or refused with a
// reason of its own.
func TestEveryOptionIsKnown(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for field := range reflect.TypeFor[DockerOptions]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		known[name] = true
	}
	data, err := os.ReadFile("testdata/docker_py.options.txt")
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(data)) {
		if known[name] == (fixedOptions[name] || foreignOptions[name]) {
			t.Errorf("option %s is not read, and not refused with a reason either", name)
		}
	}
}

func FuzzDockerOptions(f *testing.F) {
	for _, seed := range []string{
		`{"ports":{"1111/tcp":["127.0.0.1",1111]}}`, `{"ulimits":[{"Name":"a","Soft":1}]}`, `{"mounts":[{"Target":"/m"}]}`,
		`{"devices":["/a:/b:r"]}`, `{"tmpfs":["/a:b"]}`, `{"links":[["a","b"]]}`, `{"memswap_limit":-1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var options DockerOptions
		if json.Unmarshal(data, &options) != nil {
			return
		}
		written, err := json.Marshal(&options, json.Deterministic(true))
		if err != nil {
			return // text that is no UTF-8
		}
		var again DockerOptions
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%s is written as %s: %v", data, written, err)
		}
		rewritten, err := json.Marshal(&again, json.Deterministic(true))
		if err != nil || string(rewritten) != string(written) {
			t.Fatalf("%s is written as %s, then as %s: %v", data, written, rewritten, err)
		}
	})
}

func TestWhatATaskSaysWins(t *testing.T) {
	tests := map[string]struct{ task, base, want DockerOptions }{
		"nothing":                    {base: DockerOptions{MemLimit: 7, Network: "lab"}, want: DockerOptions{MemLimit: 7, Network: "lab"}},
		"a value":                    {task: DockerOptions{MemLimit: 9}, base: DockerOptions{MemLimit: 7}, want: DockerOptions{MemLimit: 9}},
		"variables are added":        {task: DockerOptions{Environment: Environment{"A": "1"}}, base: DockerOptions{Environment: Environment{"A": "0", "B": "2"}}, want: DockerOptions{Environment: Environment{"A": "1", "B": "2"}}},
		"no network, by either word": {task: DockerOptions{NetworkMode: "none"}, base: DockerOptions{Network: "bridge"}, want: DockerOptions{NetworkMode: "none"}},
		"a network, by either word":  {task: DockerOptions{Network: "lab"}, base: DockerOptions{NetworkMode: "none"}, want: DockerOptions{Network: "lab"}},
		"a quota over processors":    {task: DockerOptions{CPUQuota: 50000}, base: DockerOptions{NanoCPUs: 2e9}, want: DockerOptions{CPUQuota: 50000}},
		"processors over a quota":    {task: DockerOptions{NanoCPUs: 1e9}, base: DockerOptions{CPUQuota: 5, CPUPeriod: 10}, want: DockerOptions{NanoCPUs: 1e9}},
		"a period is no limit":       {task: DockerOptions{CPUPeriod: 99}, base: DockerOptions{NanoCPUs: 2e9}, want: DockerOptions{NanoCPUs: 2e9}},
		"a period of one's own":      {task: DockerOptions{CPUPeriod: 99}, want: DockerOptions{CPUPeriod: 99}},
		"more memory than both":      {task: DockerOptions{MemLimit: 9}, base: DockerOptions{MemswapLimit: 7}, want: DockerOptions{MemLimit: 9, MemswapLimit: 9}},
		"less of both than memory":   {task: DockerOptions{MemswapLimit: 7}, base: DockerOptions{MemLimit: 9}, want: DockerOptions{MemLimit: 7, MemswapLimit: 7}},
		"swap without end":           {task: DockerOptions{MemLimit: 9}, base: DockerOptions{MemswapLimit: -1}, want: DockerOptions{MemLimit: 9, MemswapLimit: -1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := test.task.Over(&test.base); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
