package demo

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/simseed"
)

const (
	resultPath = "out/mountains-inverted.pgm"
	jobTitle   = "Invert a picture"
)

// newTask is the demo's task: a file from Girder in, a file into an item of
// Girder out, progress through a pipe, and a Girder job that shows it.
func newTask(image, fileID string, seed simseed.Seed) *contracts.Task {
	result := contracts.VolumePath{Path: resultPath}
	return &contracts.Task{
		Version: contracts.Version,
		ID:      contracts.NewJobID(),
		Name:    contracts.TaskDockerRun,
		Docker: &contracts.DockerRun{
			Image: image,
			Pull:  contracts.PullMissing,
			Args: []contracts.Arg{
				{Transform: &contracts.GirderFile{ID: fileID, Filename: pictureName}},
				{Transform: &result},
				{Transform: &contracts.ProgressPipe{}},
			},
			Options: contracts.DockerOptions{NetworkMode: "none"},
		},
		Outputs: []contracts.Output{{OutputSpec: &contracts.GirderUploadItem{
			Path: contracts.OutputPath{VolumePath: result}, ItemID: seed.ItemID,
		}}},
		Girder: &contracts.Girder{
			APIURL: seed.APIURL,
			Token:  contracts.Secret(seed.DataToken),
			Job:    &contracts.GirderJob{Token: contracts.Secret(seed.JobCreationToken), Title: jobTitle, Type: contracts.TaskDockerRun},
		},
		Labels: map[string]string{"demo": "yes"},
	}
}

// printable is the task's JSON with its tokens blotted out.
func printable(task *contracts.Task) (string, error) {
	data, err := task.Encode()
	if err != nil {
		return "", fmt.Errorf("print task: %w", err)
	}
	blotted, err := contracts.ReadTask(data)
	if err != nil {
		return "", fmt.Errorf("print task: %w", err)
	}
	blotted.Girder.Token, blotted.Girder.Job.Token = "…", "…"
	if data, err = blotted.Encode(); err != nil {
		return "", fmt.Errorf("print task: %w", err)
	}
	value := jsontext.Value(data)
	if err := value.Indent(jsontext.WithIndent("  ")); err != nil {
		return "", fmt.Errorf("print task: %w", err)
	}
	return string(value), nil
}
