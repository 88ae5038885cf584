package contracts

// PullPolicy says when an image is pulled.
type PullPolicy string

// The pull policies. PullAlways is the default on the wire, as in Girder Worker.
const (
	PullAlways  PullPolicy = "always"
	PullMissing PullPolicy = "missing"
	PullNever   PullPolicy = "never"
)

// DockerRun says which container to run and how.
type DockerRun struct {
	// Image is the image's reference, with tag or digest.
	Image string `json:"image"`
	// Pull is one of the pull policies; [PullAlways] if empty.
	Pull PullPolicy `json:"pull,omitempty"`
	// Entrypoint replaces the image's entry point.
	Entrypoint Command `json:"entrypoint,omitzero"`
	// Args are the container's arguments: strings, numbers and transforms.
	Args []Arg `json:"args,omitempty"`
	// Volumes are mounted besides the default temporary volume.
	Volumes []Volume `json:"volumes,omitempty"`
	// Streams are connects that are no argument.
	Streams Connects `json:"streams,omitempty"`
	// RemoveContainer is true if absent.
	RemoveContainer *bool `json:"remove_container,omitempty"`
	// Options are docker-py's containers.run options.
	Options DockerOptions `json:"options,omitzero"`
}

// PullOrDefault returns the pull policy, [PullAlways] if none is given.
func (d *DockerRun) PullOrDefault() PullPolicy {
	if d.Pull == "" {
		return PullAlways
	}
	return d.Pull
}

// DockerOptions are docker-py's options of containers.run, with its names and
// value forms.
type DockerOptions struct {
	Environment Environment `json:"environment,omitempty"`
	// MemLimit is in bytes.
	MemLimit ByteSize `json:"mem_limit,omitzero"`
	// NanoCPUs is in units of 1e-9 CPUs.
	NanoCPUs    int64     `json:"nano_cpus,omitzero"`
	NetworkMode string    `json:"network_mode,omitempty"`
	User        Text      `json:"user,omitempty"`
	WorkingDir  string    `json:"working_dir,omitempty"`
	Labels      StringMap `json:"labels,omitempty"`
}

// laterOptions are the options of docker-py that this version does not have yet.
var laterOptions = nameSet(
	"memswap_limit", "shm_size", "cpu_shares", "cpu_period", "cpu_quota", "cpuset_cpus", "pids_limit", "ulimits",
	"group_add", "hostname", "domainname", "name", "network", "network_disabled", "dns", "dns_opt", "dns_search",
	"extra_hosts", "links", "ports", "mac_address", "devices", "device_requests", "device_cgroup_rules", "runtime",
	"privileged", "cap_add", "cap_drop", "security_opt", "read_only", "tmpfs", "mounts", "volumes_from",
	"volume_driver", "init", "ipc_mode", "pid_mode", "userns_mode", "uts_mode", "cgroup_parent", "sysctls",
	"stop_signal", "log_config", "healthcheck", "oom_kill_disable", "oom_score_adj", "blkio_weight",
	"blkio_weight_device", "device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops",
	"mem_reservation", "mem_swappiness", "kernel_memory", "cpu_count", "cpu_percent", "cpu_rt_period",
	"cpu_rt_runtime", "cpuset_mems", "isolation", "lxc_conf", "publish_all_ports", "platform", "restart_policy",
	"stdin_open", "storage_opt", "init_path", "nano_cpu", "use_config_proxy", "version",
)

// fixedOptions cannot be overridden by a task.
var fixedOptions = nameSet("tty", "detach", "volumes", "command", "image", "remove", "auto_remove", "stdout", "stderr", "stream", "entrypoint")

func nameSet(names ...string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

// VolumeType says where a volume's folder comes from.
type VolumeType string

// The volume types.
const (
	// VolumeBindMount mounts a folder of the node; the executor's policy must
	// allow it, and it is never removed.
	VolumeBindMount VolumeType = "bind_mount"
	// VolumeTemporary is a new folder, removed after the attempt.
	VolumeTemporary VolumeType = "temporary"
)

// Volume is a folder that is mounted into the container.
type Volume struct {
	// Name is how transforms refer to the volume: same rule as [Queue].
	Name string     `json:"name"`
	Type VolumeType `json:"type"`
	// HostPath is the folder on the node, for a bind mount.
	HostPath string `json:"host_path,omitempty"`
	// ContainerPath is where the container sees it, for a bind mount.
	ContainerPath string `json:"container_path,omitempty"`
	// Mode is "rw" (default) or "ro" for a bind mount, and the octal mode of the
	// folder for a temporary volume.
	Mode string `json:"mode,omitempty"`
	// HostDir is the folder in which a temporary volume is made.
	HostDir string `json:"host_dir,omitempty"`
}

// ReadOnly reports whether the container may only read a bind mount.
func (v *Volume) ReadOnly() bool { return v.Type == VolumeBindMount && v.Mode == "ro" }
