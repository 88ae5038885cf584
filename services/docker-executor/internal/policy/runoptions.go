package policy

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/gantry-worker/gantry/contracts"
)

// ReadRunOptions reads the operator's options for every container: a JSON object
// with the names and forms of docker.options, and "volumes" in docker-py's forms:
// {"<host path>": {"bind": "<container path>", "mode": "ro"}}, or a list of
// "<host path>:<container path>[:<mode>]", read-only where that says no mode.
// Empty text means none.
func ReadRunOptions(text string) (contracts.DockerOptions, []contracts.Volume, error) {
	if text == "" {
		return contracts.DockerOptions{}, nil, nil
	}
	var read struct {
		contracts.DockerOptions `json:",inline"`
		Volumes                 operatorVolumes `json:"volumes,omitempty"`
	}
	if err := contracts.DecodeStrict([]byte(text), &read); err != nil {
		return contracts.DockerOptions{}, nil, err
	}
	if err := read.DockerOptions.Validate(); err != nil {
		return contracts.DockerOptions{}, nil, err
	}
	probe := &contracts.Task{
		Version: contracts.Version, Name: contracts.TaskDockerRun,
		Docker: &contracts.DockerRun{Image: "image", Volumes: contracts.Volumes(read.Volumes)},
	}
	if err := probe.Validate(); err != nil {
		return contracts.DockerOptions{}, nil, err
	}
	for i := range read.Volumes {
		if read.Volumes[i].Type != contracts.VolumeBindMount {
			return contracts.DockerOptions{}, nil, fmt.Errorf("volumes[%d]: only folders of the host can be mounted into every container", i)
		}
	}
	return read.DockerOptions, read.Volumes, nil
}

// operatorVolumes are volumes whose short form means read-only, as with Girder
// Worker.
type operatorVolumes []contracts.Volume

// UnmarshalJSONFrom reads any of the forms.
func (v *operatorVolumes) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	var volumes contracts.Volumes
	if err := json.Unmarshal(value, &volumes); err != nil {
		return err
	}
	var elements []jsontext.Value
	if value.Kind() == '[' {
		if err := json.Unmarshal(value, &elements); err != nil {
			return err
		}
	}
	for i, element := range elements {
		if element.Kind() == '"' && volumes[i].Mode == "" {
			volumes[i].Mode = string(ReadOnly)
		}
	}
	*v = operatorVolumes(volumes)
	return nil
}
