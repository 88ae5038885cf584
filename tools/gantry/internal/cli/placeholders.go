package cli

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
)

// girderPlaceholders has what arguments that need Girder become.
var girderPlaceholders = map[string]contracts.TransformType{
	"file": contracts.TypeGirderFile, "item": contracts.TypeGirderItem, "folder": contracts.TypeGirderFolder,
	"stream": contracts.TypeConnect, "girder-url": contracts.TypeGirderAPIURL, "girder-token": contracts.TypeGirderToken,
}

// parseArgs reads the container's arguments, with what stands for something.
func parseArgs(words []string) ([]contracts.Arg, error) {
	args := make([]contracts.Arg, len(words))
	for i, word := range words {
		name, isPlaceholder := strings.CutPrefix(word, "@")
		if !isPlaceholder || strings.HasPrefix(name, "@") {
			args[i].Text = name // "@@x" is "@x"
			continue
		}
		transform, err := parsePlaceholder(name, i)
		if err != nil {
			return nil, err
		}
		args[i].Transform = transform
	}
	return args, nil
}

// parsePlaceholder reads what stands behind the @ of the argument at a place.
func parsePlaceholder(text string, at int) (contracts.Transform, error) {
	switch text {
	case "progress":
		return &contracts.ProgressPipe{}, nil
	case "volume":
		return &contracts.TemporaryVolume{}, nil
	case "girder-url":
		return &contracts.GirderAPIURL{}, nil
	case "girder-token":
		return &contracts.GirderToken{}, nil
	}
	kind, value, hasValue := strings.Cut(text, ":")
	id, name, _ := strings.Cut(value, ":")
	switch {
	case kind == "file" && hasValue:
		return &contracts.GirderFile{ID: id, Filename: name}, nil
	case kind == "item" && hasValue:
		return &contracts.GirderItem{ID: value}, nil
	case kind == "folder" && hasValue:
		return &contracts.GirderFolder{ID: id, FolderName: name}, nil
	case kind == "stream" && hasValue:
		pipe := &contracts.NamedInputPipe{Name: fmt.Sprintf(".girder_stream_%d", at)}
		return &contracts.Connect{
			Input:  contracts.Endpoint{Transform: &contracts.GirderFileStream{ID: value}},
			Output: contracts.Endpoint{Transform: pipe},
		}, nil
	case kind == "path" && hasValue:
		return &contracts.VolumePath{Path: value}, nil
	default:
		return nil, fmt.Errorf("argument %q: known are @file:ID[:NAME], @item:ID, @folder:ID[:NAME], @stream:ID, @path:PATH, @progress, @volume, "+
			"@girder-url and @girder-token; write %q to pass it as it is", "@"+text, "@@"+text)
	}
}

// parseVolumes reads -v in the form of the wire, which is docker-py's.
func parseVolumes(texts []string) (contracts.Volumes, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	for _, text := range texts {
		if parts := strings.Split(text, ":"); len(parts) != 2 && len(parts) != 3 {
			return nil, fmt.Errorf("--volume: %q is not HOST:CONTAINER or HOST:CONTAINER:ro", text)
		}
	}
	list, err := json.Marshal(texts)
	if err != nil {
		return nil, fmt.Errorf("--volume: %w", err)
	}
	var volumes contracts.Volumes
	if err := json.Unmarshal(list, &volumes); err != nil {
		return nil, fmt.Errorf("--volume: %w", err)
	}
	return volumes, nil
}

// outputs reads what is to be uploaded, the artifacts last.
func (s *Specification) outputs() ([]contracts.Output, error) {
	var outputs []contracts.Output
	for _, text := range s.Upload {
		upload, err := parseUpload(text)
		if err != nil {
			return nil, err
		}
		outputs = append(outputs, contracts.Output{OutputSpec: upload})
	}
	for _, path := range s.Artifact {
		outputs = append(outputs, contracts.Output{OutputSpec: &contracts.GirderJobArtifact{Path: onVolume(path), UploadOnException: true}})
	}
	return outputs, nil
}

func parseUpload(text string) (contracts.OutputSpec, error) {
	if at := strings.LastIndex(text, "="); at > 0 {
		path, target := onVolume(text[:at]), text[at+1:]
		if id, ok := strings.CutPrefix(target, "item:"); ok {
			return &contracts.GirderUploadItem{Path: path, ItemID: id}, nil
		}
		if id, ok := strings.CutPrefix(target, "folder:"); ok {
			return &contracts.GirderUploadFolder{Path: path, FolderID: id}, nil
		}
	}
	return nil, fmt.Errorf("--upload: %q is not PATH=item:ID or PATH=folder:ID", text)
}

func onVolume(path string) contracts.OutputPath {
	return contracts.OutputPath{VolumePath: contracts.VolumePath{Path: path}}
}
