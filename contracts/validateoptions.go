package contracts

import (
	"bytes"
	"fmt"
	"net"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// What the engine takes; checked here so that a task hears of it at once.
var (
	containerNamePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)
	hostNamePattern      = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$`)
	cpusetPattern        = regexp.MustCompile(`^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$`)
	signalPattern        = regexp.MustCompile(`^(SIG)?[A-Z][A-Z0-9+-]*$|^[0-9]{1,2}$`)
	platformPattern      = regexp.MustCompile(`^[a-z0-9]+(/[a-z0-9_]+(/[a-z0-9]+)?)?$`)
	permissionsPattern   = regexp.MustCompile(`^[rwm]{0,3}$`)
	cgroupRulePattern    = regexp.MustCompile(`^[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}$`)
)

// Validate checks options that stand by themselves, as an operator's.
func (o *DockerOptions) Validate() error {
	v := &validator{}
	v.options(o)
	return invalid(v.problems...)
}

func (v *validator) options(o *DockerOptions) {
	const at = "docker.options"
	v.noNULInside(at, o)
	for name := range o.Labels {
		if strings.HasPrefix(name, "gantry.") {
			v.fail(at+".labels", "%q: labels that start with \"gantry.\" are set by Gantry", name)
		}
	}
	v.absolute(at+".working_dir", o.WorkingDir)
	v.pattern(at+".name", o.Name, containerNamePattern, "a container's name")
	v.pattern(at+".hostname", o.Hostname, hostNamePattern, "a host name")
	v.pattern(at+".domainname", o.Domainname, hostNamePattern, "a domain name")
	v.pattern(at+".stop_signal", o.StopSignal, signalPattern, `a signal such as "SIGTERM"`)
	v.pattern(at+".platform", o.Platform, platformPattern, `a platform such as "linux/amd64"`)
	v.optionNumbers(at, o)
	v.optionNetwork(at, o)
	v.optionDevices(at, o)
	v.optionMounts(at, o)
	v.optionModes(at, o)
}

func (v *validator) optionNumbers(at string, o *DockerOptions) {
	for name, value := range map[string]int64{
		".nano_cpus": o.NanoCPUs, ".cpu_shares": o.CPUShares, ".cpu_period": o.CPUPeriod,
		".cpu_rt_period": o.CPURTPeriod, ".cpu_rt_runtime": o.CPURTRuntime,
	} {
		if value < 0 {
			v.fail(at+name, "%d is negative", value)
		}
	}
	v.between(at+".cpu_quota", o.CPUQuota, -1, 1<<62)
	v.between(at+".oom_score_adj", int64(o.OOMScoreAdj), -1000, 1000)
	if o.PidsLimit != nil {
		v.between(at+".pids_limit", *o.PidsLimit, -1, 1<<32)
	}
	if o.MemSwappiness != nil {
		v.between(at+".mem_swappiness", *o.MemSwappiness, -1, 100)
	}
	if o.MemswapLimit > 0 && int64(o.MemswapLimit) < int64(o.MemLimit) {
		v.fail(at+".memswap_limit", "%d is less than mem_limit, which it includes", o.MemswapLimit)
	}
	v.weight(at+".blkio_weight", o.BlkioWeight, true)
	for i, device := range o.BlkioWeightDevice {
		v.devicePath(fmt.Sprintf("%s.blkio_weight_device[%d].path", at, i), device.Path)
		v.weight(fmt.Sprintf("%s.blkio_weight_device[%d].weight", at, i), device.Weight, false)
	}
	for name, rates := range map[string][]RateDevice{
		"device_read_bps": o.DeviceReadBps, "device_read_iops": o.DeviceReadIOps,
		"device_write_bps": o.DeviceWriteBps, "device_write_iops": o.DeviceWriteIOps,
	} {
		for i, device := range rates {
			v.devicePath(fmt.Sprintf("%s.%s[%d].path", at, name, i), device.Path)
		}
	}
	v.pattern(at+".cpuset_cpus", string(o.CpusetCPUs), cpusetPattern, `processors such as "0-2,5"`)
	v.pattern(at+".cpuset_mems", string(o.CpusetMems), cpusetPattern, `memory nodes such as "0-1"`)
	for i, limit := range o.Ulimits {
		name := fmt.Sprintf("%s.ulimits[%d]", at, i)
		if limit.Name == "" {
			v.fail(name+".name", "missing")
		}
		if limit.Hard > 0 && limit.Soft > limit.Hard {
			v.fail(name+".soft", "%d is more than the hard limit %d", limit.Soft, limit.Hard)
		}
	}
	if h := o.Healthcheck; h != nil {
		for name, value := range map[string]int64{".interval": h.Interval, ".timeout": h.Timeout, ".start_period": h.StartPeriod} {
			if value != 0 && value < 1_000_000 {
				v.fail(at+".healthcheck"+name, "%d is not 0 or at least 1000000 (nanoseconds)", value)
			}
		}
	}
}

func (v *validator) optionNetwork(at string, o *DockerOptions) {
	if o.MacAddress != "" {
		if _, err := net.ParseMAC(o.MacAddress); err != nil {
			v.fail(at+".mac_address", "%q is not a hardware address", o.MacAddress)
		}
	}
	for i, server := range o.DNS {
		if !isAddress(server) {
			v.fail(fmt.Sprintf("%s.dns[%d]", at, i), "%q is not an IP address", server)
		}
	}
	for i, entry := range o.ExtraHosts {
		name, address, _ := strings.Cut(entry, ":")
		if name == "" || !isAddress(strings.Trim(address, "[]")) && address != "host-gateway" {
			v.fail(fmt.Sprintf("%s.extra_hosts[%d]", at, i), "%q is not name:address", entry)
		}
	}
	if o.NetworkOrMode() == "host" && len(o.Ports) > 0 {
		v.fail(at+".ports", "cannot be published in the host's network")
	}
}

func (v *validator) optionDevices(at string, o *DockerOptions) {
	for i, device := range o.Devices {
		name := fmt.Sprintf("%s.devices[%d]", at, i)
		v.devicePath(name, device.PathOnHost)
		v.absolute(name, device.PathInContainer)
		v.pattern(name, device.CgroupPermissions, permissionsPattern, "permissions made of r, w and m")
	}
	for i, request := range o.DeviceRequests {
		if request.Count != 0 && len(request.DeviceIDs) > 0 {
			v.fail(fmt.Sprintf("%s.device_requests[%d]", at, i), "give either count or device_ids, not both")
		}
	}
	for i, rule := range o.DeviceCgroupRules {
		v.pattern(fmt.Sprintf("%s.device_cgroup_rules[%d]", at, i), rule, cgroupRulePattern, `a rule such as "c 1:3 rwm"`)
	}
}

var propagations = []string{"", "private", "rprivate", "shared", "rshared", "slave", "rslave"}

func (v *validator) optionMounts(at string, o *DockerOptions) {
	for target := range o.Tmpfs {
		v.requiredPath(at+".tmpfs", target)
	}
	for i := range o.Mounts {
		name, m := fmt.Sprintf("%s.mounts[%d]", at, i), &o.Mounts[i]
		v.requiredPath(name+".target", m.Target)
		switch m.Type {
		case "", "volume":
		case "bind":
			v.requiredPath(name+".source", m.Source)
			if m.BindOptions != nil && !slices.Contains(propagations, m.BindOptions.Propagation) {
				v.fail(name+".bind_options.propagation", "%q is not a propagation mode", m.BindOptions.Propagation)
			}
		case "tmpfs":
			if m.Source != "" {
				v.fail(name+".source", "is not for a tmpfs")
			}
		default:
			v.fail(name+".type", "%q is not bind, volume or tmpfs", m.Type)
		}
	}
}

func (v *validator) optionModes(at string, o *DockerOptions) {
	v.oneOf(at+".userns_mode", o.UsernsMode, "host")
	v.oneOf(at+".uts_mode", o.UtsMode, "host")
	v.oneOf(at+".cgroupns", o.Cgroupns, "host", "private")
	if c := o.LogConfig; c != nil {
		v.oneOf(at+".log_config.type", c.Type, "json-file", "local")
		if len(c.Config) > 0 {
			v.fail(at+".log_config.config", "cannot be set: the log is read from the engine to its last byte")
		}
	}
	if r := o.RestartPolicy; r != nil {
		v.oneOf(at+".restart_policy.name", r.Name, "no", "on-failure")
	}
}

// noNULInside refuses NUL characters in every text of a value.
func (v *validator) noNULInside(at string, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		v.fail(at, "cannot be written as JSON: %v", err)
		return
	}
	if !bytes.Contains(text, []byte(`\u0000`)) {
		return
	}
	dec := jsontext.NewDecoder(bytes.NewReader(text))
	for {
		token, err := dec.ReadToken()
		if err != nil {
			return
		}
		if token.Kind() == '"' && strings.ContainsRune(token.String(), 0) {
			v.fail(join(at, dottedPath(dec.StackPointer())), "holds a NUL character")
		}
	}
}

func (v *validator) pattern(at, value string, allowed *regexp.Regexp, what string) {
	if value != "" && !allowed.MatchString(value) {
		v.fail(at, "%q is not %s", value, what)
	}
}

func (v *validator) oneOf(at, value string, allowed ...string) {
	if value != "" && !slices.Contains(allowed, value) {
		v.fail(at, "%q is not %s", value, strings.Join(allowed, " or "))
	}
}

func (v *validator) between(at string, value, least, most int64) {
	if value < least || value > most {
		v.fail(at, "%d is not between %d and %d", value, least, most)
	}
}

func (v *validator) weight(at string, weight uint16, mayBeAbsent bool) {
	if weight != 0 || !mayBeAbsent {
		v.between(at, int64(weight), 10, 1000)
	}
}

func (v *validator) absolute(at, p string) {
	if p != "" && !path.IsAbs(p) {
		v.fail(at, "%q is not an absolute path", p)
	}
}

func (v *validator) requiredPath(at, p string) {
	if !path.IsAbs(p) || path.Clean(p) == "/" {
		v.fail(at, "%q is not an absolute path below /", p)
	}
}

func (v *validator) devicePath(at, p string) {
	if !path.IsAbs(p) {
		v.fail(at, "%q is not the path of a device", p)
	}
}
