package policy

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gantry-worker/gantry/contracts"
)

// ReadRunOptions reads the operator's options for every container: a JSON object
// with the names and forms of docker.options, and "volumes" in docker-py's form,
// {"<host path>": {"bind": "<container path>", "mode": "ro"}}. Empty text means
// none.
func ReadRunOptions(text string) (contracts.DockerOptions, error) {
	if text == "" {
		return contracts.DockerOptions{}, nil
	}
	var read struct {
		contracts.DockerOptions `json:",inline"`
		Volumes                 map[string]struct {
			Bind string `json:"bind"`
			Mode string `json:"mode,omitempty"`
		} `json:"volumes,omitempty"`
	}
	if err := contracts.DecodeStrict([]byte(text), &read); err != nil {
		return contracts.DockerOptions{}, err
	}
	options := read.DockerOptions
	for _, host := range slices.Sorted(maps.Keys(read.Volumes)) {
		volume := read.Volumes[host]
		if volume.Mode != "" && volume.Mode != "rw" && volume.Mode != "ro" {
			return contracts.DockerOptions{}, fmt.Errorf("volumes.%s.mode: %q is not rw or ro", host, volume.Mode)
		}
		options.Mounts = append(options.Mounts, contracts.Mount{
			Type: "bind", Source: host, Target: volume.Bind, ReadOnly: volume.Mode == "ro",
		})
	}
	return options, options.Validate()
}
