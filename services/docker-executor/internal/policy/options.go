package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gantry-worker/gantry/contracts"
)

// Guarded are the options, or values of options, that a task may only have where
// the operator allows them: each leads out of the container. A volume with a
// name may hold what another task left, and its driver can mount any folder.
var Guarded = []string{
	"privileged", "cap_add", "devices", "device_cgroup_rules", "security_opt", "cgroup_parent", "volumes_from",
	"volume_driver", "mounts=volume",
	"network_mode=host", "network_mode=container", "pid_mode=host", "pid_mode=container", "ipc_mode=host", "ipc_mode=container",
	"userns_mode=host", "uts_mode=host", "cgroupns=host",
}

// allOptions in AllowOptions allows all of Guarded.
const allOptions = "all"

// Options returns nil if a task may have these options, else a *Refusal.
func (p *Policy) Options(o *contracts.DockerOptions) error {
	for _, asked := range []struct {
		option string
		is     bool
	}{
		{"privileged", o.Privileged},
		{"cap_add", len(o.CapAdd) > 0},
		{"devices", len(o.Devices) > 0},
		{"device_cgroup_rules", len(o.DeviceCgroupRules) > 0},
		{"security_opt", len(o.SecurityOpt) > 0},
		{"cgroup_parent", o.CgroupParent != ""},
		{"volumes_from", len(o.VolumesFrom) > 0},
		{"volume_driver", o.VolumeDriver != "" || slices.ContainsFunc(o.Mounts, hasDriver)},
		{"mounts=volume", slices.ContainsFunc(o.Mounts, isNamedVolume)},
		{"userns_mode=host", o.UsernsMode == "host"},
		{"uts_mode=host", o.UtsMode == "host"},
		{"cgroupns=host", o.Cgroupns == "host"},
	} {
		if asked.is && !p.allows(asked.option) {
			return refused(asked.option, asked.option)
		}
	}
	for name, mode := range map[string]string{"network_mode": o.NetworkOrMode(), "pid_mode": o.PidMode, "ipc_mode": o.IpcMode} {
		if err := p.namespace(name, mode); err != nil {
			return err
		}
	}
	for i := range o.Mounts {
		if err := p.mount(&o.Mounts[i]); err != nil {
			return fmt.Errorf("mounts[%d]: %w", i, err)
		}
	}
	return p.caps.check(o)
}

func (p *Policy) allows(option string) bool {
	return slices.Contains(p.options, option) || slices.Contains(p.options, allOptions)
}

func refused(what, option string) *Refusal {
	return &Refusal{What: what, Reason: "this node does not allow it", Setting: SettingOptions, Value: option}
}

// namespace decides about one of the namespaces that a container may share.
func (p *Policy) namespace(name, mode string) error {
	kind, _, _ := strings.Cut(mode, ":")
	what := fmt.Sprintf("%s %q", name, mode)
	switch kind {
	case "host", "container":
		if option := name + "=" + kind; !p.allows(option) {
			return refused(what, option)
		}
	case "ns":
		return &Refusal{What: what, Reason: "it is a namespace of the node"}
	}
	return nil
}

func isNamedVolume(m contracts.Mount) bool {
	return (m.Type == "" || m.Type == "volume") && m.Source != ""
}

func hasDriver(m contracts.Mount) bool {
	return m.VolumeOptions != nil && m.VolumeOptions.DriverConfig != nil
}

// mount decides about a mount of a folder of the host.
func (p *Policy) mount(m *contracts.Mount) error {
	if m.Type != "bind" {
		return nil
	}
	mode := ReadWrite
	if m.ReadOnly {
		mode = ReadOnly
	}
	resolved, err := p.Bind(m.Target, m.Source, mode)
	if err == nil && resolved != m.Source {
		err = &Refusal{What: fmt.Sprintf("host path %q", m.Source), Reason: "it leads over a symbolic link: write " + resolved}
	}
	return err
}

// Complete returns a task's options with the operator's own, and the node's
// caps, where the task says nothing.
func (p *Policy) Complete(task *contracts.DockerOptions) contracts.DockerOptions {
	all := task.Over(&p.run)
	p.caps.complete(&all)
	return all
}

// MemoryLimit returns how many bytes of memory a container with a task's options
// may use, and what says so; 0 is no limit.
func (p *Policy) MemoryLimit(task *contracts.DockerOptions) (limit int64, setting string) {
	all := p.Complete(task)
	if limit = int64(all.MemLimit); limit == 0 {
		return 0, ""
	}
	switch {
	case task.MemLimit > 0:
		return limit, "docker.options.mem_limit"
	case p.run.MemLimit > 0:
		return limit, "mem_limit in this node's " + SettingRunOptions
	case limit >= p.caps.Memory:
		return limit, "this node's " + SettingMemory
	case task.MemswapLimit > 0: // which includes the memory, and is less than the cap
		return limit, "docker.options.memswap_limit"
	default:
		return limit, "memswap_limit in this node's " + SettingRunOptions
	}
}

// Volumes returns what the operator mounts into every container.
func (p *Policy) Volumes() []contracts.Volume { return p.volumes }
