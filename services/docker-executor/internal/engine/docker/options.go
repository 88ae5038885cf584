package docker

import (
	"cmp"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/blkiodev"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/go-connections/nat"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// configOf returns what a container's process is.
func configOf(spec engine.Spec) *container.Config {
	o := &spec.Options
	config := &container.Config{
		Image: spec.Image, Entrypoint: spec.Entrypoint, Cmd: spec.Args, Labels: spec.Labels,
		Hostname: o.Hostname, Domainname: o.Domainname, User: string(o.User), WorkingDir: o.WorkingDir,
		Env: environment(o.Environment), OpenStdin: o.StdinOpen, StopSignal: o.StopSignal,
		Healthcheck: healthcheckOf(o.Healthcheck), NetworkDisabled: o.NetworkDisabled, ExposedPorts: exposed(o.Ports),
	}
	//lint:ignore SA1019 older engines know no other place; the client leaves it out for newer ones
	config.MacAddress = o.MacAddress
	return config
}

// networkingOf has the hardware address for engines of API 1.44 and later, nil
// where there is nothing to say.
func (e *Engine) networkingOf(o *contracts.DockerOptions) *network.NetworkingConfig {
	if o.MacAddress == "" || versions.LessThan(e.api().ClientVersion(), "1.44") {
		return nil
	}
	name := cmp.Or(o.NetworkOrMode(), network.NetworkDefault)
	return &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{name: {MacAddress: o.MacAddress}}}
}

// hostConfigOf returns what a container asks of the node.
func (e *Engine) hostConfigOf(spec engine.Spec) *container.HostConfig {
	o := &spec.Options
	init := o.InitOrDefault()
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode(o.NetworkOrMode()), PortBindings: published(o.Ports), PublishAllPorts: o.PublishAllPorts,
		DNS: o.DNS, DNSOptions: o.DNSOpt, DNSSearch: o.DNSSearch, ExtraHosts: o.ExtraHosts, Links: o.Links,
		GroupAdd: texts(o.GroupAdd), CapAdd: o.CapAdd, CapDrop: o.CapDrop, SecurityOpt: o.SecurityOpt, Privileged: o.Privileged,
		IpcMode: container.IpcMode(o.IpcMode), PidMode: container.PidMode(o.PidMode), UTSMode: container.UTSMode(o.UtsMode),
		UsernsMode: container.UsernsMode(o.UsernsMode), CgroupnsMode: container.CgroupnsMode(o.Cgroupns),
		ReadonlyRootfs: o.ReadOnly, Tmpfs: o.Tmpfs, ShmSize: int64(o.ShmSize), StorageOpt: o.StorageOpt, Sysctls: textMap(o.Sysctls),
		VolumesFrom: o.VolumesFrom, VolumeDriver: o.VolumeDriver, Binds: labeledOf(spec.Mounts), Mounts: mountsOf(spec.Mounts, o.Mounts),
		Runtime: o.Runtime, Init: &init, OomScoreAdj: o.OOMScoreAdj, Resources: resourcesOf(o),
		LogConfig: e.logConfig(),
	}
	if r := o.RestartPolicy; r != nil {
		host.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyMode(r.Name), MaximumRetryCount: r.MaximumRetryCount}
	}
	return host
}

// logConfig keeps the whole log in one file: what is dropped cannot be shipped
// again. The driver "local" keeps bytes that are no UTF-8, which "json-file"
// does not, so a task that asks for that one gets this one.
func (e *Engine) logConfig() container.LogConfig {
	return container.LogConfig{
		Type: "local", Config: map[string]string{"max-size": e.cfg.LogMaxSize, "max-file": "1", "compress": "false"},
	}
}

func resourcesOf(o *contracts.DockerOptions) container.Resources {
	return container.Resources{
		Memory: int64(o.MemLimit), MemoryReservation: int64(o.MemReservation), MemorySwap: int64(o.MemswapLimit),
		MemorySwappiness: o.MemSwappiness, KernelMemory: int64(o.KernelMemory), OomKillDisable: isSet(o.OOMKillDisable),
		PidsLimit: o.PidsLimit, Ulimits: ulimitsOf(o.Ulimits), CgroupParent: o.CgroupParent,
		NanoCPUs: o.NanoCPUs, CPUShares: o.CPUShares, CPUPeriod: o.CPUPeriod, CPUQuota: o.CPUQuota,
		CPURealtimePeriod: o.CPURTPeriod, CPURealtimeRuntime: o.CPURTRuntime,
		CpusetCpus: string(o.CpusetCPUs), CpusetMems: string(o.CpusetMems),
		BlkioWeight: o.BlkioWeight, BlkioWeightDevice: weightsOf(o.BlkioWeightDevice),
		BlkioDeviceReadBps: ratesOf(o.DeviceReadBps), BlkioDeviceWriteBps: ratesOf(o.DeviceWriteBps),
		BlkioDeviceReadIOps: ratesOf(o.DeviceReadIOps), BlkioDeviceWriteIOps: ratesOf(o.DeviceWriteIOps),
		Devices: devicesOf(o.Devices), DeviceCgroupRules: o.DeviceCgroupRules, DeviceRequests: deviceRequestsOf(o.DeviceRequests),
	}
}

// isSet returns nil, the engine's own choice, for false.
func isSet(yes bool) *bool {
	if !yes {
		return nil
	}
	return &yes
}

func environment(vars contracts.Environment) []string {
	env := make([]string, 0, len(vars))
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, name+"="+string(vars[name]))
	}
	return env
}

func texts(list []contracts.Text) []string {
	var plain []string
	for _, text := range list {
		plain = append(plain, string(text))
	}
	return plain
}

func textMap(m contracts.TextMap) map[string]string {
	if m == nil {
		return nil
	}
	plain := make(map[string]string, len(m))
	for name, text := range m {
		plain[name] = string(text)
	}
	return plain
}

func healthcheckOf(h *contracts.Healthcheck) *container.HealthConfig {
	if h == nil {
		return nil
	}
	return &container.HealthConfig{
		Test: h.Test, Interval: time.Duration(h.Interval), Timeout: time.Duration(h.Timeout),
		StartPeriod: time.Duration(h.StartPeriod), Retries: h.Retries,
	}
}

func exposed(ports contracts.PortBindings) nat.PortSet {
	if len(ports) == 0 {
		return nil
	}
	set := nat.PortSet{}
	for port := range ports {
		set[nat.Port(port)] = struct{}{}
	}
	return set
}

func published(ports contracts.PortBindings) nat.PortMap {
	if len(ports) == 0 {
		return nil
	}
	bindings := nat.PortMap{}
	for port, on := range ports {
		for _, b := range on {
			bindings[nat.Port(port)] = append(bindings[nat.Port(port)], nat.PortBinding{HostIP: b.HostIP, HostPort: string(b.HostPort)})
		}
	}
	return bindings
}

func ulimitsOf(limits []contracts.Ulimit) []*container.Ulimit {
	var list []*container.Ulimit
	for _, l := range limits {
		list = append(list, &container.Ulimit{Name: l.Name, Soft: l.Soft, Hard: l.Hard})
	}
	return list
}

func weightsOf(devices []contracts.WeightDevice) []*blkiodev.WeightDevice {
	var list []*blkiodev.WeightDevice
	for _, d := range devices {
		list = append(list, &blkiodev.WeightDevice{Path: d.Path, Weight: d.Weight})
	}
	return list
}

func ratesOf(devices []contracts.RateDevice) []*blkiodev.ThrottleDevice {
	var list []*blkiodev.ThrottleDevice
	for _, d := range devices {
		list = append(list, &blkiodev.ThrottleDevice{Path: d.Path, Rate: d.Rate})
	}
	return list
}

func devicesOf(devices []contracts.Device) []container.DeviceMapping {
	var list []container.DeviceMapping
	for _, d := range devices {
		mapping := container.DeviceMapping{PathOnHost: d.PathOnHost, PathInContainer: d.PathInContainer, CgroupPermissions: d.CgroupPermissions}
		if mapping.PathInContainer == "" {
			mapping.PathInContainer = d.PathOnHost
		}
		if mapping.CgroupPermissions == "" {
			mapping.CgroupPermissions = "rwm"
		}
		list = append(list, mapping)
	}
	return list
}

func deviceRequestsOf(requests []contracts.DeviceRequest) []container.DeviceRequest {
	var list []container.DeviceRequest
	for _, r := range requests {
		list = append(list, container.DeviceRequest{
			Driver: r.Driver, Count: r.Count, DeviceIDs: r.DeviceIDs, Capabilities: r.Capabilities, Options: r.Options,
		})
	}
	return list
}

func mountsOf(ours []engine.Mount, asked []contracts.Mount) []mount.Mount {
	var list []mount.Mount
	for _, m := range ours {
		if m.SELinux != "" {
			continue
		}
		made := mount.Mount{Type: mount.TypeBind, Source: m.HostPath, Target: m.ContainerPath, ReadOnly: m.ReadOnly}
		if m.Alone {
			made.BindOptions = &mount.BindOptions{NonRecursive: true}
		}
		list = append(list, made)
	}
	for i := range asked {
		list = append(list, mountOf(&asked[i]))
	}
	return list
}

// labeledOf returns the mounts that SELinux is to label: only this older form
// can say so. With it the engine would make a host path that is missing.
func labeledOf(ours []engine.Mount) []string {
	var list []string
	for _, m := range ours {
		if m.SELinux == "" {
			continue
		}
		mode := "rw"
		if m.ReadOnly {
			mode = "ro"
		}
		list = append(list, m.HostPath+":"+m.ContainerPath+":"+mode+","+m.SELinux)
	}
	return list
}

func mountOf(m *contracts.Mount) mount.Mount {
	made := mount.Mount{
		Type: mount.Type(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly, Consistency: mount.Consistency(m.Consistency),
	}
	if m.Type == "" {
		made.Type = mount.TypeVolume
	}
	if b := m.BindOptions; b != nil {
		made.BindOptions = &mount.BindOptions{Propagation: mount.Propagation(b.Propagation)}
	}
	if v := m.VolumeOptions; v != nil {
		made.VolumeOptions = &mount.VolumeOptions{NoCopy: v.NoCopy, Labels: v.Labels, Subpath: v.Subpath}
		if d := v.DriverConfig; d != nil {
			made.VolumeOptions.DriverConfig = &mount.Driver{Name: d.Name, Options: d.Options}
		}
	}
	if t := m.TmpfsOptions; t != nil {
		made.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: int64(t.SizeBytes), Mode: os.FileMode(t.Mode)}
	}
	return made
}

// platformOf reads "os[/architecture[/variant]]"; nil is the engine's own.
func platformOf(platform string) *ocispec.Platform {
	if platform == "" {
		return nil
	}
	system, rest, _ := strings.Cut(platform, "/")
	architecture, variant, _ := strings.Cut(rest, "/")
	return &ocispec.Platform{OS: system, Architecture: architecture, Variant: variant}
}
