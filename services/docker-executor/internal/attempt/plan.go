package attempt

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// plan is what a task comes to on this node: its volumes, pipes, steps, and how
// each argument gets its text.
type plan struct {
	task    *contracts.Task
	folder  *folder.Folder
	volumes map[string]volume.Volume // by name, the default one under ""
	pipes   []contracts.Pipe         // all named pipes
	// progress are those of the pipes that take progress.
	progress []contracts.Pipe
	fields   map[contracts.Pipe]string // what in the task names a pipe first
	routes
	inputs []contracts.Step
	// args turn into text when the inputs are there.
	args []argument
	// outputs are the steps of the task's outputs, in their order.
	outputs []contracts.Step
}

// argument is one of the container's arguments.
type argument struct {
	field string // in the task
	text  func(in *provided) (string, error)
}

// provided is what arguments are made of that a plan does not know yet.
type provided struct {
	results   map[string]*contracts.StepResult // of the inputs, by step
	secrets   contracts.Secrets                // that the task hands to its container
	girderURL string                           // the operator's, empty for the task's own
}

// makePlan says what a task comes to on the folder's volumes. A task that asks
// for what there cannot be is a Failure.
func makePlan(task *contracts.Task, f *folder.Folder) (*plan, error) {
	p := &plan{task: task, folder: f, volumes: map[string]volume.Volume{}, fields: map[contracts.Pipe]string{}}
	for _, v := range f.Volumes {
		if v.Name != "" || v.IsDefault() {
			p.volumes[v.Name] = volume.Volume{Host: v.Host, Container: v.Container}
		}
	}
	for i, arg := range task.Docker.Args {
		field := fmt.Sprintf("docker.args[%d]", i)
		if err := p.argument(field, arg); err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
	}
	for i := range task.Docker.Streams {
		field := fmt.Sprintf("docker.streams[%d]", i)
		if _, _, err := p.connect(task, f, field, &task.Docker.Streams[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
	}
	for i, output := range task.Outputs {
		if err := p.output(i, output.OutputSpec); err != nil {
			return nil, fmt.Errorf("outputs[%d]: %w", i, err)
		}
	}
	return p, nil
}

func (p *plan) argument(field string, arg contracts.Arg) error {
	add := func(text func(in *provided) (string, error)) error {
		p.args = append(p.args, argument{field, text})
		return nil
	}
	text := func(s string, err error) error {
		if err != nil {
			return &Failure{err.Error()}
		}
		return add(func(*provided) (string, error) { return s, nil })
	}
	switch t := arg.Transform.(type) {
	case nil:
		return text(arg.Text, nil)
	case *contracts.VolumePath:
		on, err := p.volume(t.Volume)
		if err != nil {
			return err
		}
		return text(on.ContainerPath(t.Path))
	case *contracts.VolumeRef:
		on, err := p.volume(t.Volume)
		return text(on.Container, err)
	case *contracts.TemporaryVolume:
		return text(p.volumes[""].Container, nil)
	case *contracts.ProgressPipe:
		return text(p.progressPipe(field, t))
	case *contracts.NamedInputPipe:
		return text(p.pipe(field, contracts.PipeWrite, t.Volume, t.Name, t.HostPath, t.ContainerPath))
	case *contracts.NamedOutputPipe:
		return text(p.pipe(field, contracts.PipeRead, t.Volume, t.Name, t.HostPath, t.ContainerPath))
	case *contracts.Connect:
		argument, has, err := p.connect(p.task, p.folder, field, t)
		if err != nil || !has {
			return err
		}
		return text(argument, nil)
	case *contracts.GirderFile:
		if path := p.direct(field); path != "" {
			return text(path, nil)
		}
		return p.input(field, contracts.Step{FileID: t.ID, Filename: t.Filename}, t.Volume, t.Girder)
	case *contracts.GirderItem:
		return p.input(field, contracts.Step{ItemID: t.ID}, t.Volume, t.Girder)
	case *contracts.GirderFolder:
		return p.input(field, contracts.Step{FolderID: t.ID, FolderName: t.FolderName}, t.Volume, t.Girder)
	case *contracts.GirderAPIURL:
		return add(p.girderURL)
	case *contracts.GirderToken:
		return add(p.girderToken)
	default:
		return &Failure{fmt.Sprintf("this executor does not know %s", arg.Transform.TransformType())}
	}
}

// volume returns the volume of a name, the default one for "".
func (p *plan) volume(name string) (volume.Volume, error) {
	on, ok := p.volumes[name]
	if !ok {
		return on, &Failure{fmt.Sprintf("no volume of the task is named %q", name)}
	}
	return on, nil
}

// direct returns where the container sees a file that is mounted and not
// downloaded, empty for one that is.
func (p *plan) direct(field string) string {
	for _, v := range p.folder.Volumes {
		if v.Kind == folder.DirectFile && slices.Contains(v.Fields, field) {
			return v.Container
		}
	}
	return ""
}

func (p *plan) girderURL(in *provided) (string, error) {
	if p.task.Girder == nil || p.task.Girder.APIURL == "" {
		return "", &Failure{"girder.api_url: missing; girder_api_url needs it"}
	}
	if in.girderURL != "" {
		return strings.TrimRight(in.girderURL, "/"), nil
	}
	return p.task.Girder.APIURL, nil
}

func (p *plan) girderToken(in *provided) (string, error) {
	if p.task.Girder == nil || p.task.Girder.Token == "" {
		return "", &Failure{"girder.token: missing; girder_token needs it"}
	}
	token, err := p.task.Girder.Token.Resolve(in.secrets)
	if err != nil {
		return "", &Failure{err.Error()}
	}
	return token, nil
}

// needsSecrets reports whether an argument is one of the task's secrets.
func (p *plan) needsSecrets() bool {
	return slices.ContainsFunc(p.task.Docker.Args, func(arg contracts.Arg) bool {
		_, is := arg.Transform.(*contracts.GirderToken)
		return is
	})
}

// pipePlace returns where a named pipe is, its end yet to be said, and its path
// in the container. It is on a volume, or in a folder of the host that the task
// names.
func (p *plan) pipePlace(volumeName, name, hostPath, containerPath string) (contracts.Pipe, string, error) {
	var on volume.Volume
	var err error
	if hostPath == "" && containerPath == "" {
		on, err = p.volume(volumeName)
	} else {
		on, err = p.pipeFolder(hostPath, containerPath)
	}
	if err != nil {
		return contracts.Pipe{}, "", err
	}
	clean, err := volume.Clean(name)
	if err != nil {
		return contracts.Pipe{}, "", &Failure{err.Error()}
	}
	path, err := on.ContainerPath(clean)
	if err != nil {
		return contracts.Pipe{}, "", &Failure{err.Error()}
	}
	return contracts.Pipe{Volume: on.Host, Name: clean}, path, nil
}

// pipeFolder returns the folder of the host that a pipe names itself.
func (p *plan) pipeFolder(hostPath, containerPath string) (volume.Volume, error) {
	for _, v := range p.folder.Volumes {
		if v.Container != path.Clean(containerPath) {
			continue
		}
		if v.Asked != hostPath {
			break
		}
		return volume.Volume{Host: v.Host, Container: v.Container}, nil
	}
	return volume.Volume{}, &Failure{fmt.Sprintf("the container does not see the pipe's host_path %q at %q: another volume is mounted there", hostPath, containerPath)}
}

// addPipe adds a named pipe with its end; field names it.
func (p *plan) addPipe(field string, at contracts.Pipe) {
	if !slices.Contains(p.pipes, at) {
		p.pipes = append(p.pipes, at)
		p.fields[at] = field
	}
}

// pipe plans a named pipe that nothing of ours is connected with: the task's
// own processes use it, or those of another container.
func (p *plan) pipe(field string, end contracts.PipeEnd, volumeName, name, hostPath, containerPath string) (string, error) {
	at, path, err := p.pipePlace(volumeName, name, hostPath, containerPath)
	if err != nil {
		return "", err
	}
	at.End = end
	p.addPipe(field, at)
	return path, nil
}

func (p *plan) progressPipe(field string, t *contracts.ProgressPipe) (string, error) {
	at, path, err := p.pipePlace(t.Volume, t.NameOrDefault(), "", "")
	if err != nil {
		return "", err
	}
	at.End = contracts.PipeRead
	if !slices.Contains(p.progress, at) {
		p.progress = append(p.progress, at)
	}
	p.addPipe(field, at)
	return path, nil
}

// input plans the step that brings a file, item or folder; the same one for the
// same place is brought once, with the token that is named first.
func (p *plan) input(field string, step contracts.Step, volumeName string, access *contracts.GirderAccess) error {
	on, err := p.volume(volumeName)
	if err != nil {
		return err
	}
	step.Version, step.Job, step.Attempt = contracts.Version, p.folder.Job, p.folder.Attempt
	step.Kind, step.Folder = contracts.StepStageIn, p.folder.Relative()
	step.Girder, step.Session, step.Volume = p.task.GirderFor(access), p.task.SessionFor(access), on.Host
	same := slices.IndexFunc(p.inputs, func(other contracts.Step) bool {
		return other.Volume == step.Volume && other.Girder.APIURL == step.Girder.APIURL &&
			other.FileID == step.FileID && other.Filename == step.Filename &&
			other.ItemID == step.ItemID && other.FolderID == step.FolderID && other.FolderName == step.FolderName
	})
	if same < 0 {
		same = len(p.inputs)
		step.Step = fmt.Sprintf("in-%d", same)
		p.inputs = append(p.inputs, step)
	}
	name := p.inputs[same].Step
	p.args = append(p.args, argument{field, func(in *provided) (string, error) {
		return on.ContainerPath(in.results[name].Path)
	}})
	return nil
}

func (p *plan) output(index int, spec contracts.OutputSpec) error {
	step := contracts.Step{
		Version: contracts.Version, Job: p.folder.Job, Attempt: p.folder.Attempt, Step: fmt.Sprintf("out-%d", index),
		Kind: contracts.StepStageOut, Folder: p.folder.Relative(), Path: spec.From().Path,
	}
	switch o := spec.(type) {
	case *contracts.GirderUploadItem:
		step.Girder, step.Session, step.ItemID = p.task.GirderFor(o.Girder), p.task.SessionFor(o.Girder), o.ItemID
		step.Reference, step.DeleteFile, step.MustExist = o.UploadKwargs["reference"], o.DeleteFile, mustExist(o.MustExist)
	case *contracts.GirderUploadFolder:
		step.Girder, step.Session, step.FolderID = p.task.GirderFor(o.Girder), p.task.SessionFor(o.Girder), o.FolderID
		step.Reference, step.DeleteFile, step.MustExist = o.UploadKwargs["reference"], o.DeleteFile, mustExist(o.MustExist)
	case *contracts.GirderJobArtifact:
		step.Girder, step.Session = p.task.GirderFor(o.Girder), p.task.SessionFor(o.Girder)
		step.Artifact, step.Name = true, o.Name
	default:
		return &Failure{fmt.Sprintf("this executor does not know %s", spec.OutputType())}
	}
	on, err := p.volume(spec.From().Volume)
	if err != nil {
		return err
	}
	step.Volume = on.Host
	p.outputs = append(p.outputs, step)
	return nil
}

func mustExist(said *bool) bool { return said == nil || *said }
