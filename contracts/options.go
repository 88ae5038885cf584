package contracts

import (
	"maps"
	"reflect"
	"slices"
)

// DockerOptions are docker-py's options of containers.run, with its names and
// value forms. An absent option leaves the engine's own choice, but for Init.
type DockerOptions struct {
	// The process and what it sees of itself.
	Environment Environment  `json:"environment,omitempty"`
	User        Text         `json:"user,omitempty"`
	GroupAdd    []Text       `json:"group_add,omitempty"`
	WorkingDir  string       `json:"working_dir,omitempty"`
	Hostname    string       `json:"hostname,omitempty"`
	Domainname  string       `json:"domainname,omitempty"`
	Labels      StringMap    `json:"labels,omitempty"`
	Name        string       `json:"name,omitempty"`
	StdinOpen   bool         `json:"stdin_open,omitzero"`
	StopSignal  string       `json:"stop_signal,omitempty"`
	Platform    string       `json:"platform,omitempty"`
	Runtime     string       `json:"runtime,omitempty"`
	Healthcheck *Healthcheck `json:"healthcheck,omitempty"`
	// Init is true if absent.
	Init *bool `json:"init,omitempty"`

	// Memory, in bytes. MemswapLimit counts memory and swap; -1 is no limit.
	MemLimit       ByteSize    `json:"mem_limit,omitzero"`
	MemReservation ByteSize    `json:"mem_reservation,omitzero"`
	MemswapLimit   SwapSize    `json:"memswap_limit,omitzero"`
	MemSwappiness  *int64      `json:"mem_swappiness,omitempty"` // 0 to 100
	KernelMemory   ByteSize    `json:"kernel_memory,omitzero"`
	ShmSize        ByteSize    `json:"shm_size,omitzero"`
	OOMKillDisable bool        `json:"oom_kill_disable,omitzero"`
	OOMScoreAdj    int         `json:"oom_score_adj,omitzero"` // -1000 to 1000
	PidsLimit      *int64      `json:"pids_limit,omitempty"`   // -1 is no limit
	Ulimits        []Ulimit    `json:"ulimits,omitempty"`
	Sysctls        TextMap     `json:"sysctls,omitempty"`
	Tmpfs          MountPoints `json:"tmpfs,omitempty"`
	StorageOpt     StringMap   `json:"storage_opt,omitempty"`

	// Processors. NanoCPUs is in units of 1e-9 CPUs, periods and quotas in
	// microseconds.
	NanoCPUs     int64 `json:"nano_cpus,omitzero"`
	CPUShares    int64 `json:"cpu_shares,omitzero"`
	CPUPeriod    int64 `json:"cpu_period,omitzero"`
	CPUQuota     int64 `json:"cpu_quota,omitzero"`
	CPURTPeriod  int64 `json:"cpu_rt_period,omitzero"`
	CPURTRuntime int64 `json:"cpu_rt_runtime,omitzero"`
	CpusetCPUs   Text  `json:"cpuset_cpus,omitempty"` // "0-2", "0,1"
	CpusetMems   Text  `json:"cpuset_mems,omitempty"`

	// Disks. A rate is in bytes or operations a second.
	BlkioWeight       uint16         `json:"blkio_weight,omitzero"` // 10 to 1000
	BlkioWeightDevice []WeightDevice `json:"blkio_weight_device,omitempty"`
	DeviceReadBps     []RateDevice   `json:"device_read_bps,omitempty"`
	DeviceReadIOps    []RateDevice   `json:"device_read_iops,omitempty"`
	DeviceWriteBps    []RateDevice   `json:"device_write_bps,omitempty"`
	DeviceWriteIOps   []RateDevice   `json:"device_write_iops,omitempty"`

	// The network. Network is docker-py's second word for NetworkMode, and wins.
	Network         string       `json:"network,omitempty"`
	NetworkMode     string       `json:"network_mode,omitempty"`
	NetworkDisabled bool         `json:"network_disabled,omitzero"`
	MacAddress      string       `json:"mac_address,omitempty"`
	DNS             []string     `json:"dns,omitempty"`
	DNSOpt          []string     `json:"dns_opt,omitempty"`
	DNSSearch       []string     `json:"dns_search,omitempty"`
	ExtraHosts      NamePairs    `json:"extra_hosts,omitempty"` // name:address
	Links           NamePairs    `json:"links,omitempty"`       // container:alias
	Ports           PortBindings `json:"ports,omitempty"`
	PublishAllPorts bool         `json:"publish_all_ports,omitzero"`

	// Files and devices of the node.
	ReadOnly          bool            `json:"read_only,omitzero"`
	Mounts            []Mount         `json:"mounts,omitempty"`
	VolumesFrom       Names           `json:"volumes_from,omitempty"`
	VolumeDriver      string          `json:"volume_driver,omitempty"`
	Devices           []Device        `json:"devices,omitempty"`
	DeviceRequests    []DeviceRequest `json:"device_requests,omitempty"`
	DeviceCgroupRules []string        `json:"device_cgroup_rules,omitempty"`

	// Isolation.
	Privileged   bool     `json:"privileged,omitzero"`
	CapAdd       []string `json:"cap_add,omitempty"`
	CapDrop      []string `json:"cap_drop,omitempty"`
	SecurityOpt  []string `json:"security_opt,omitempty"`
	IpcMode      string   `json:"ipc_mode,omitempty"`
	PidMode      string   `json:"pid_mode,omitempty"`
	UsernsMode   string   `json:"userns_mode,omitempty"`
	UtsMode      string   `json:"uts_mode,omitempty"`
	Cgroupns     string   `json:"cgroupns,omitempty"`
	CgroupParent string   `json:"cgroup_parent,omitempty"`

	// What Gantry needs in a certain form: a log driver that can be read again,
	// no restart of what has ended.
	LogConfig     *LogConfig     `json:"log_config,omitempty"`
	RestartPolicy *RestartPolicy `json:"restart_policy,omitempty"`
}

// NetworkOrMode returns the network that the task asks for, empty for none.
func (o *DockerOptions) NetworkOrMode() string {
	if o.Network != "" {
		return o.Network
	}
	return o.NetworkMode
}

// InitOrDefault reports whether a small first process runs the program, which
// reaps zombies and lets signals have their default effect.
func (o *DockerOptions) InitOrDefault() bool { return o.Init == nil || *o.Init }

// fixedOptions cannot be overridden by a task.
var fixedOptions = nameSet(
	"tty", "detach", "volumes", "command", "image", "remove", "auto_remove", "stdout", "stderr", "stream", "entrypoint",
)

// foreignOptions are options of docker-py that no Linux engine of today has, or
// that concern docker-py itself.
var foreignOptions = nameSet(
	"cpu_count", "cpu_percent", "init_path", "isolation", "lxc_conf", "networking_config", "use_config_proxy", "version",
)

func nameSet(names ...string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

// Ulimit is one resource limit of the processes. A field may be written as
// docker-py's classes do (Name) or as their arguments (name); so may those of
// the types below.
type Ulimit struct {
	Name string `json:"name,case:ignore"` // "nofile"
	Soft int64  `json:"soft,omitzero,case:ignore"`
	Hard int64  `json:"hard,omitzero,case:ignore"`
}

// DeviceRequest asks a driver of the engine for devices such as GPUs: Count of
// them (-1 for all) or those with DeviceIDs. One list of Capabilities has to be
// met in full.
type DeviceRequest struct {
	Driver       string     `json:"driver,omitempty,case:ignore"`
	Count        int        `json:"count,omitzero,case:ignore"`
	DeviceIDs    []string   `json:"device_ids,omitempty,case:ignore"`
	Capabilities [][]string `json:"capabilities,omitempty,case:ignore"`
	Options      StringMap  `json:"options,omitempty,case:ignore"`
}

// WeightDevice is the weight of one block device, 10 to 1000.
type WeightDevice struct {
	Path   string `json:"path,case:ignore"`
	Weight uint16 `json:"weight,case:ignore"`
}

// RateDevice is the most that is read from or written to one block device in a
// second.
type RateDevice struct {
	Path string `json:"path,case:ignore"`
	Rate uint64 `json:"rate,case:ignore"`
}

// Healthcheck says how the engine asks the container for its health. Times are
// in nanoseconds, 0 or at least a millisecond.
type Healthcheck struct {
	Test        HealthTest `json:"test,omitempty,case:ignore"`
	Interval    int64      `json:"interval,omitzero,case:ignore"`
	Timeout     int64      `json:"timeout,omitzero,case:ignore"`
	Retries     int        `json:"retries,omitzero,case:ignore"`
	StartPeriod int64      `json:"start_period,omitzero,case:ignore"`
}

// LogConfig names the engine's log driver.
type LogConfig struct {
	Type   string    `json:"type,omitempty,case:ignore"`
	Config StringMap `json:"config,omitempty,case:ignore"`
}

// RestartPolicy says whether the engine starts a container again.
type RestartPolicy struct {
	Name              string `json:"name,omitempty,case:ignore"`
	MaximumRetryCount int    `json:"maximum_retry_count,omitzero,case:ignore"`
}

// Mount is a mount in the engine's own form, as docker-py's Mount is. Its type
// is "bind", "volume" or "tmpfs".
type Mount struct {
	Target        string         `json:"target,case:ignore"`
	Source        string         `json:"source,omitempty,case:ignore"`
	Type          string         `json:"type,omitempty,case:ignore"` // "volume" if empty
	ReadOnly      bool           `json:"read_only,omitzero,case:ignore"`
	Consistency   string         `json:"consistency,omitempty,case:ignore"`
	BindOptions   *BindOptions   `json:"bind_options,omitempty,case:ignore"`
	VolumeOptions *VolumeOptions `json:"volume_options,omitempty,case:ignore"`
	TmpfsOptions  *TmpfsOptions  `json:"tmpfs_options,omitempty,case:ignore"`
}

// BindOptions are those of a [Mount] of type "bind".
type BindOptions struct {
	Propagation string `json:"propagation,omitempty,case:ignore"`
}

// VolumeOptions are those of a [Mount] of type "volume".
type VolumeOptions struct {
	NoCopy       bool          `json:"no_copy,omitzero,case:ignore"`
	Labels       StringMap     `json:"labels,omitempty,case:ignore"`
	Subpath      string        `json:"subpath,omitempty,case:ignore"`
	DriverConfig *VolumeDriver `json:"driver_config,omitempty,case:ignore"`
}

// VolumeDriver is the driver that makes a volume.
type VolumeDriver struct {
	Name    string    `json:"name,omitempty,case:ignore"`
	Options StringMap `json:"options,omitempty,case:ignore"`
}

// TmpfsOptions are those of a [Mount] of type "tmpfs".
type TmpfsOptions struct {
	SizeBytes ByteSize `json:"size_bytes,omitzero,case:ignore"`
	Mode      uint32   `json:"mode,omitzero,case:ignore"`
}

// Over returns the options with those of base where they say nothing. Variables
// of the environment, labels and mounts are added one by one; options that speak
// of the same thing are one.
func (o *DockerOptions) Over(base *DockerOptions) DockerOptions {
	all := *base
	mine, whole := reflect.ValueOf(o).Elem(), reflect.ValueOf(&all).Elem()
	for i := range mine.NumField() {
		if field := mine.Field(i); !field.IsZero() {
			whole.Field(i).Set(field)
		}
	}
	o.settle(base, &all)
	all.Environment = merged(base.Environment, o.Environment)
	all.Labels = merged(base.Labels, o.Labels)
	all.Mounts = slices.Concat(base.Mounts, o.Mounts)
	return all
}

// settle takes from all what does not go together with what o says: a second
// word for the network, another measure of processors (an engine takes nano_cpus
// or a quota of periods), less memory and swap than there is memory.
func (o *DockerOptions) settle(base, all *DockerOptions) {
	if o.NetworkOrMode() != "" {
		all.Network, all.NetworkMode = o.Network, o.NetworkMode
	}
	switch limited := all.NanoCPUs != 0 || all.CPUQuota != 0; {
	case o.NanoCPUs != 0 || o.CPUQuota != 0:
		all.NanoCPUs, all.CPUQuota, all.CPUPeriod = o.NanoCPUs, o.CPUQuota, o.CPUPeriod
	case limited: // a period by itself is no limit
		all.CPUPeriod = base.CPUPeriod
	}
	if swap := all.MemswapLimit; o.MemswapLimit == 0 && swap > 0 && swap < SwapSize(o.MemLimit) {
		all.MemswapLimit = SwapSize(o.MemLimit)
	}
	if memory := all.MemLimit; o.MemLimit == 0 && o.MemswapLimit > 0 && memory > ByteSize(o.MemswapLimit) {
		all.MemLimit = ByteSize(o.MemswapLimit)
	}
}

func merged[M ~map[string]V, V any](base, over M) M {
	if len(base) == 0 {
		return over
	}
	both := maps.Clone(base)
	maps.Copy(both, over)
	return both
}
