package contracts

import "io/fs"

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
	Volumes Volumes `json:"volumes,omitempty"`
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
	// Name is how transforms refer to the volume: same rule as [Queue]. A bind
	// mount that none refers to needs no name.
	Name string     `json:"name,omitempty"`
	Type VolumeType `json:"type"`
	// HostPath is the folder on the node, for a bind mount.
	HostPath string `json:"host_path,omitempty"`
	// ContainerPath is where the container sees it, for a bind mount.
	ContainerPath string `json:"container_path,omitempty"`
	// Mode is "rw" (default) or "ro" for a bind mount, followed by ",z" or ",Z"
	// where SELinux is to label the folder for all containers or for this one.
	// For a temporary volume it is the octal mode of HostDir, if that is made.
	Mode string `json:"mode,omitempty"`
	// HostDir is the folder of the node in which a temporary volume is made; the
	// attempt's own folder if empty.
	HostDir string `json:"host_dir,omitempty"`
}

// ReadOnly reports whether the container may only read a bind mount.
func (v *Volume) ReadOnly() bool {
	access, _, err := parseBindMode(v.Mode)
	return v.Type == VolumeBindMount && err == nil && access == "ro"
}

// Relabel returns how SELinux is to label a bind mount: "z", "Z", or nothing.
func (v *Volume) Relabel() string {
	_, relabel, err := parseBindMode(v.Mode)
	if v.Type != VolumeBindMount || err != nil {
		return ""
	}
	return relabel
}

// DirMode returns the mode of a temporary volume's HostDir, 0777 if the task
// gives none.
func (v *Volume) DirMode() fs.FileMode {
	bits, err := parseDirMode(v.Mode)
	if v.Type != VolumeTemporary || v.Mode == "" || err != nil {
		return 0o777
	}
	mode := fs.FileMode(bits) & fs.ModePerm
	for bit, special := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if bits&bit != 0 {
			mode |= special
		}
	}
	return mode
}
