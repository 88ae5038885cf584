package attempt

import (
	"fmt"
	"slices"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// plan is what a task comes to on this node: its volumes, pipes, steps, and how
// each argument gets its text.
type plan struct {
	volumes map[string]volume.Volume // by name, the default one under ""
	pipes   []contracts.Pipe
	pipeArg map[contracts.Pipe]int // the first argument that names a pipe
	inputs  []contracts.Step
	// args turn into text when the inputs are there; results are by step.
	args []func(results map[string]*contracts.StepResult) (string, error)
	// outputs are the steps of the task's outputs, in their order.
	outputs []contracts.Step
}

// makePlan says what a task comes to on the folder's volumes. A task that asks
// for what there cannot be is a Failure.
func makePlan(task *contracts.Task, f *folder.Folder) (*plan, error) {
	p := &plan{volumes: map[string]volume.Volume{}, pipeArg: map[contracts.Pipe]int{}}
	for _, v := range f.Volumes {
		p.volumes[v.Name] = volume.Volume{Host: v.Host, Container: v.Container}
	}
	for i, arg := range task.Docker.Args {
		if err := p.argument(task, f, arg); err != nil {
			return nil, fmt.Errorf("docker.args[%d]: %w", i, err)
		}
	}
	for i, output := range task.Outputs {
		if err := p.output(task, f, i, output.OutputSpec); err != nil {
			return nil, fmt.Errorf("outputs[%d]: %w", i, err)
		}
	}
	return p, nil
}

func (p *plan) argument(task *contracts.Task, f *folder.Folder, arg contracts.Arg) error {
	text := func(s string, err error) error {
		if err != nil {
			return &Failure{err.Error()}
		}
		p.args = append(p.args, func(map[string]*contracts.StepResult) (string, error) { return s, nil })
		return nil
	}
	switch t := arg.Transform.(type) {
	case nil:
		return text(arg.Text, nil)
	case *contracts.VolumePath:
		return text(p.volumes[t.Volume].ContainerPath(t.Path))
	case *contracts.VolumeRef:
		return text(p.volumes[t.Volume].Container, nil)
	case *contracts.TemporaryVolume:
		return text(p.volumes[""].Container, nil)
	case *contracts.ProgressPipe:
		return text(p.progressPipe(t))
	case *contracts.GirderFile:
		p.girderFile(task, f, t)
		return nil
	default:
		return &Failure{fmt.Sprintf("this executor does not know %s", arg.Transform.TransformType())}
	}
}

func (p *plan) progressPipe(t *contracts.ProgressPipe) (string, error) {
	on := p.volumes[t.Volume]
	name, err := volume.Clean(t.NameOrDefault())
	if err != nil {
		return "", err
	}
	if at := (contracts.Pipe{Volume: on.Host, Name: name, End: contracts.PipeRead}); !slices.Contains(p.pipes, at) {
		p.pipes = append(p.pipes, at)
		p.pipeArg[at] = len(p.args)
	}
	return on.ContainerPath(name)
}

// girderFile plans the step that brings a file; the same file for the same
// place is brought once.
func (p *plan) girderFile(task *contracts.Task, f *folder.Folder, t *contracts.GirderFile) {
	on := p.volumes[t.Volume]
	step := contracts.Step{
		Version: contracts.Version, Job: f.Job, Attempt: f.Attempt, Kind: contracts.StepStageIn, Folder: f.Relative(),
		Girder: task.GirderFor(t.Girder), Volume: on.Host, FileID: t.ID, Filename: t.Filename,
	}
	same := slices.IndexFunc(p.inputs, func(other contracts.Step) bool {
		return other.FileID == step.FileID && other.Volume == step.Volume && other.Filename == step.Filename && other.Girder == step.Girder
	})
	if same < 0 {
		same = len(p.inputs)
		step.Step = fmt.Sprintf("in-%d", same)
		p.inputs = append(p.inputs, step)
	}
	name := p.inputs[same].Step
	p.args = append(p.args, func(results map[string]*contracts.StepResult) (string, error) {
		return on.ContainerPath(results[name].Path)
	})
}

func (p *plan) output(task *contracts.Task, f *folder.Folder, index int, spec contracts.OutputSpec) error {
	upload, ok := spec.(*contracts.GirderUploadItem)
	if !ok {
		return &Failure{fmt.Sprintf("this executor does not know %s", spec.OutputType())}
	}
	p.outputs = append(p.outputs, contracts.Step{
		Version: contracts.Version, Job: f.Job, Attempt: f.Attempt, Step: fmt.Sprintf("out-%d", index),
		Kind: contracts.StepStageOut, Folder: f.Relative(), Girder: task.GirderFor(upload.Girder),
		Volume: p.volumes[upload.Path.Volume].Host, Path: upload.Path.Path, ItemID: upload.ItemID,
		Reference: upload.UploadKwargs["reference"], DeleteFile: upload.DeleteFile,
		MustExist: upload.MustExist == nil || *upload.MustExist,
	})
	return nil
}
