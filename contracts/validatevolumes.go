package contracts

import (
	"fmt"
	"path"
	"strings"
)

func (v *validator) volumes(volumes []Volume) {
	names, mounts := map[string]bool{}, map[string]int{}
	for i := range volumes {
		at, volume := fmt.Sprintf("docker.volumes[%d]", i), &volumes[i]
		if volume.Name != "" {
			v.name(at+".name", volume.Name)
		}
		if volume.Name != "" && names[volume.Name] {
			v.fail(at+".name", "%q is the name of two volumes", volume.Name)
		}
		names[volume.Name] = true
		switch volume.Type {
		case VolumeBindMount:
			v.bindMount(at, volume)
			place := path.Clean(volume.ContainerPath)
			if first, taken := mounts[place]; taken {
				v.fail(at+".container_path", "%q is where docker.volumes[%d] is mounted too", volume.ContainerPath, first)
			}
			mounts[place] = i
		case VolumeTemporary:
			v.temporaryVolume(at, volume)
		case "":
			v.fail(at+".type", "missing; write bind_mount or temporary")
		default:
			v.fail(at+".type", "%q is not bind_mount or temporary", volume.Type)
		}
	}
}

func (v *validator) bindMount(at string, volume *Volume) {
	v.absolutePath(at+".host_path", volume.HostPath)
	v.absolutePath(at+".container_path", volume.ContainerPath)
	if path.IsAbs(volume.ContainerPath) && path.Clean(volume.ContainerPath) == "/" {
		v.fail(at+".container_path", "%q is the container's own root; mount below it", volume.ContainerPath)
	}
	_, relabel, err := parseBindMode(volume.Mode)
	if err != nil {
		v.fail(at+".mode", "%v", err)
	}
	if relabel != "" && strings.Contains(volume.HostPath+volume.ContainerPath, ":") {
		v.fail(at+".mode", "%q: no engine labels a folder with a colon in its path; leave %s out", volume.Mode, relabel)
	}
	if volume.HostDir != "" {
		v.fail(at+".host_dir", "is for temporary volumes; a bind mount has host_path")
	}
}

func (v *validator) temporaryVolume(at string, volume *Volume) {
	if volume.Name == "" {
		v.fail(at+".name", "missing; transforms refer to a temporary volume by its name")
	}
	if volume.HostDir != "" {
		v.absolutePath(at+".host_dir", volume.HostDir)
	}
	if _, err := parseDirMode(volume.Mode); err != nil {
		v.fail(at+".mode", "%v", err)
	}
	if volume.Mode != "" && volume.HostDir == "" {
		v.fail(at+".mode", "%q is the mode of host_dir, which is missing", volume.Mode)
	}
	if volume.HostPath != "" {
		v.fail(at+".host_path", "is for bind mounts; a temporary volume is made in host_dir")
	}
	if volume.ContainerPath != "" {
		v.fail(at+".container_path", "is for bind mounts; a temporary volume's place is chosen by the executor")
	}
}

func (v *validator) volumePath(at string, p *VolumePath) {
	v.volume(at+".volume", p.Volume)
	v.relativePath(at+".path", p.Path)
}

func (v *validator) volume(at, name string) {
	if name == "" || v.task.Docker == nil {
		return
	}
	for i := range v.task.Docker.Volumes {
		if v.task.Docker.Volumes[i].Name == name {
			return
		}
	}
	v.fail(at, "%q is not the name of one of docker.volumes", name)
}

func (v *validator) relativePath(at, p string) {
	switch {
	case p == "":
		v.fail(at, "missing")
	case strings.ContainsRune(p, 0):
		v.fail(at, "%q holds a NUL character", p)
	case path.IsAbs(p):
		v.fail(at, "%q must be relative to the volume", p)
	case p != "." && !isLocal(p):
		v.fail(at, "%q leaves the volume", p)
	}
}

// fileName is relativePath for something that is a file, not the volume itself.
func (v *validator) fileName(at, p string) {
	if p != "" && (path.Clean(p) == "." || strings.HasSuffix(p, "/")) {
		v.fail(at, "%q names a folder, not a file", p)
		return
	}
	v.relativePath(at, p)
}

func isLocal(p string) bool {
	clean := path.Clean(p)
	return clean != ".." && !strings.HasPrefix(clean, "../")
}

func (v *validator) noNUL(at, text string) {
	if strings.ContainsRune(text, 0) {
		v.fail(at, "holds a NUL character")
	}
}

// absolutePath checks a path on the node or in the container.
func (v *validator) absolutePath(at, p string) {
	switch {
	case strings.ContainsRune(p, 0):
		v.fail(at, "%q holds a NUL character", p)
	case p == "":
		v.fail(at, "missing; give an absolute path")
	case !path.IsAbs(p):
		v.fail(at, "%q is not an absolute path", p)
	}
}
