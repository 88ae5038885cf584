package contracts

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Volumes are the volumes of a task: on the wire a list of them, which may hold
// docker-py's "host:container[:mode]" as well, or docker-py's object
// {"<host path>": {"bind": "<container path>", "mode": "ro"}}. Those of
// docker-py's forms are bind mounts without a name.
type Volumes []Volume

// UnmarshalJSONFrom reads a list or an object.
func (l *Volumes) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == '{' {
		return l.readObject(dec)
	}
	var list []volumeForm
	if err := json.UnmarshalDecode(dec, &list); err != nil {
		return err
	}
	*l = make(Volumes, len(list))
	for i := range list {
		(*l)[i] = Volume(list[i])
	}
	return nil
}

func (l *Volumes) readObject(dec *jsontext.Decoder) error {
	var binds map[string]bindForm
	if err := json.UnmarshalDecode(dec, &binds); err != nil {
		return err
	}
	*l = make(Volumes, 0, len(binds))
	for _, host := range slices.Sorted(maps.Keys(binds)) {
		bind := binds[host]
		*l = append(*l, Volume{Type: VolumeBindMount, HostPath: host, ContainerPath: bind.Bind, Mode: bind.Mode})
	}
	return nil
}

// volumeForm is one element of the list.
type volumeForm Volume

func (f *volumeForm) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case '{':
		return json.UnmarshalDecode(dec, (*Volume)(f))
	case '"':
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		volume, err := parseBind(token.String())
		*f = volumeForm(volume)
		return err
	default:
		return skip(dec, `must be an object, or text such as "/host:/container:ro"`)
	}
}

// bindForm is what docker-py's object has for a host path.
type bindForm struct {
	Bind string
	Mode string
}

func (f *bindForm) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case '{':
		var object struct {
			Bind string `json:"bind"`
			Mode string `json:"mode"`
		}
		err := json.UnmarshalDecode(dec, &object)
		*f = bindForm(object)
		return err
	case '"':
		token, err := dec.ReadToken()
		f.Bind = token.String()
		return err
	default:
		return skip(dec, `must be an object with "bind" and "mode", or the path in the container`)
	}
}

// parseBind reads docker-py's "host:container[:mode]".
func parseBind(text string) (Volume, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return Volume{}, fmt.Errorf(`%q is not "host:container" or "host:container:mode"`, text)
	}
	volume := Volume{Type: VolumeBindMount, HostPath: parts[0], ContainerPath: parts[1]}
	if len(parts) == 3 {
		volume.Mode = parts[2]
	}
	return volume, nil
}

// parseBindMode reads the mode of a bind mount, in any order of its parts.
func parseBindMode(mode string) (access, relabel string, err error) {
	if mode == "" {
		return "rw", "", nil
	}
	for part := range strings.SplitSeq(mode, ",") {
		switch {
		case (part == "rw" || part == "ro") && access == "":
			access = part
		case (part == "z" || part == "Z") && relabel == "":
			relabel = part
		default:
			return "", "", fmt.Errorf(`%q is not rw or ro, with ",z" or ",Z" for SELinux`, mode)
		}
	}
	if access == "" {
		access = "rw"
	}
	return access, relabel, nil
}

// parseDirMode reads the mode of a folder, an octal number.
func parseDirMode(mode string) (uint64, error) {
	if mode == "" {
		return 0, nil
	}
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err != nil || bits > 0o7777 {
		return 0, fmt.Errorf(`%q is not an octal mode such as "0755"`, mode)
	}
	return bits, nil
}
