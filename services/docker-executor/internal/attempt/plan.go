package attempt

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/pipe"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/volume"
)

// mountRoot is where containers see their default temporary volume, below a
// random name, as with Girder Worker.
const mountRoot = "/mnt/girder_worker/"

// plan is what a task comes to on this node: its volumes, pipes, steps, and how
// each argument gets its text.
type plan struct {
	volumes map[string]volume.Volume // by name, the default one under ""
	mounts  []engine.Mount
	pipes   []pipeAt
	inputs  []contracts.Step
	// args turn into text when the inputs are there; results are by step.
	args []func(results map[string]*contracts.StepResult) (string, error)
	// outputs are the steps of the task's outputs, in their order.
	outputs []contracts.Step
}

type pipeAt struct {
	volume volume.Volume
	path   string
}

// makePlan checks the task against the node's policy and makes its volumes and
// pipes. A task that asks for what this node does not grant is a Failure.
func makePlan(task *contracts.Task, tools *Tools, f *folder.Folder) (*plan, error) {
	docker := task.Docker
	if err := tools.Policy.Image(docker.Image); err != nil {
		return nil, err
	}
	if err := tools.Policy.Network(docker.Options.NetworkMode); err != nil {
		return nil, err
	}
	p := &plan{volumes: map[string]volume.Volume{}}
	if err := p.mount(docker.Volumes, tools.Policy); err != nil {
		return nil, err
	}
	temporary, err := volume.Make(f.Volumes(), mountRoot+contracts.NewToken())
	if err != nil {
		return nil, &Infrastructure{err.Error()}
	}
	p.volumes[""] = temporary
	p.mounts = append(p.mounts, engine.Mount{HostPath: temporary.Host, ContainerPath: temporary.Container})

	for i, arg := range docker.Args {
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

func (p *plan) mount(volumes []contracts.Volume, allowed *policy.Policy) error {
	for i := range volumes {
		v := &volumes[i]
		host, err := bind(v, allowed)
		if err != nil {
			return fmt.Errorf("docker.volumes[%d]: %w", i, err)
		}
		p.volumes[v.Name] = volume.Volume{Host: host, Container: v.ContainerPath}
		p.mounts = append(p.mounts, engine.Mount{HostPath: host, ContainerPath: v.ContainerPath, ReadOnly: v.ReadOnly()})
	}
	return nil
}

func bind(v *contracts.Volume, allowed *policy.Policy) (host string, err error) {
	mode := policy.ReadWrite
	if v.ReadOnly() {
		mode = policy.ReadOnly
	}
	return allowed.Bind(v.Name, v.HostPath, mode)
}

// confirm checks again, before they are mounted, that the task's volumes lead
// where they led when the plan was made.
func (p *plan) confirm(volumes []contracts.Volume, allowed *policy.Policy) error {
	for i := range volumes {
		v := &volumes[i]
		host, err := bind(v, allowed)
		if err == nil && host != p.volumes[v.Name].Host {
			err = &policy.Refusal{
				What:   fmt.Sprintf("host path %q of volume %q", v.HostPath, v.Name),
				Reason: "it leads elsewhere than when the attempt began",
			}
		}
		if err != nil {
			return fmt.Errorf("docker.volumes[%d]: %w", i, err)
		}
	}
	return nil
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
		path, err := p.progressPipe(f, t)
		if err != nil && !isTasksFault(err) {
			return &Infrastructure{err.Error()}
		}
		return text(path, err)
	case *contracts.GirderFile:
		p.girderFile(task, f, t)
		return nil
	default:
		return &Failure{fmt.Sprintf("this executor does not know %s", arg.Transform.TransformType())}
	}
}

// isTasksFault reports whether a pipe could not be made for what the task, or
// somebody's folder, has at its place.
func isTasksFault(err error) bool {
	for _, fault := range []error{volume.ErrPath, volume.ErrSymlink, fs.ErrExist, fs.ErrNotExist} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}

func (p *plan) progressPipe(f *folder.Folder, t *contracts.ProgressPipe) (string, error) {
	on := p.volumes[t.Volume]
	name, err := volume.Clean(t.NameOrDefault())
	if err != nil {
		return "", err
	}
	if at := (pipeAt{on, name}); !slices.Contains(p.pipes, at) {
		if err := pipe.Make(on, name); err != nil {
			return "", err
		}
		p.pipes = append(p.pipes, at)
		if t.Volume != "" { // the default volume goes with the folder
			if err := f.AddPipe(folder.Pipe{Volume: on.Host, Name: name}); err != nil {
				return "", &Infrastructure{err.Error()}
			}
		}
	}
	return on.ContainerPath(name)
}

// RemovePipes removes the named pipes that an attempt made on folders of the
// host, where they would stay.
func RemovePipes(f *folder.Folder) error {
	var errs []error
	for _, p := range f.Pipes {
		errs = append(errs, pipe.Remove(volume.Volume{Host: p.Volume}, p.Name))
	}
	return errors.Join(errs...)
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
