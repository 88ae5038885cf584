package attempt

import (
	"cmp"
	"fmt"
	"path"
	"slices"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/logship"
)

// streamsDir is where an attempt's folder has the pipes between its executor and
// transfer.
const streamsDir = "streams"

// routes says where the bytes of a task's connects go.
type routes struct {
	streams  []stream
	logged   []loggedPipe
	standard [2]outlet // of the container's standard output and standard error
}

// stream is a connect whose bytes are moved by transfer.
type stream struct {
	step contracts.Step
	pipe contracts.Pipe // our end of the container's pipe, or of the one that stands for its standard stream
	from engine.Stream  // the standard stream, 0 for a pipe of the container
}

// takesInput reports whether the container is the one who reads.
func (s *stream) takesInput() bool { return s.pipe.End == contracts.PipeWrite }

// hasLimit reports whether the task's time limit is that of the stream too, also
// after the container has ended.
func (s *stream) hasLimit() bool { return s.step.Stream.To.URL != "" }

// isUpload reports whether the bytes become a file in Girder.
func (s *stream) isUpload() bool {
	return s.step.Stream.To.ItemID != "" || s.step.Stream.To.FolderID != ""
}

// loggedPipe is a named pipe whose bytes go into the job's log.
type loggedPipe struct {
	field string
	pipe  contracts.Pipe
	to    logship.Source
}

// outlet says where a standard stream of the container goes: into the job's log,
// if nothing is said.
type outlet struct {
	field string
	step  string              // the stream that takes it, empty for the log
	parse bool                // progress is taken out of it first
	label contracts.LogStream // of the log, its own if empty
}

// isPlain reports whether the log has the stream as the container wrote it.
func (o *outlet) isPlain() bool { return o.step == "" && !o.parse }

// connect plans a connect. Where it is an argument that names a pipe, argument
// is the pipe's path in the container.
func (p *plan) connect(task *contracts.Task, f *folder.Folder, field string, c *contracts.Connect) (argument string, has bool, err error) {
	switch from := c.Input.Transform.(type) {
	case *contracts.GirderFileStream:
		to, ok := c.Output.Transform.(*contracts.NamedInputPipe)
		if !ok {
			break
		}
		at, argument, err := p.connectPipe(field, contracts.PipeWrite, to.Volume, to.Name, to.HostPath, to.ContainerPath)
		if err != nil {
			return "", false, err
		}
		p.stream(f, field, contracts.RouteEnd{FileID: from.ID, Girder: task.GirderFor(from.Girder)}, contracts.RouteEnd{}, at, 0)
		return argument, true, nil
	case *contracts.NamedOutputPipe:
		at, argument, err := p.connectPipe(field, contracts.PipeRead, from.Volume, from.Name, from.HostPath, from.ContainerPath)
		if err != nil {
			return "", false, err
		}
		if to, ok := logSource(c.Output.Transform); ok {
			p.logged = append(p.logged, loggedPipe{field, at, to})
			return argument, true, nil
		}
		to, ok := sink(task, &c.Output, path.Base(at.Name))
		if !ok {
			break
		}
		p.stream(f, field, contracts.RouteEnd{}, to, at, 0)
		return argument, true, nil
	case *contracts.ContainerStdout:
		return "", false, p.connectStandard(task, f, field, engine.Stdout, c)
	case *contracts.ContainerStderr:
		return "", false, p.connectStandard(task, f, field, engine.Stderr, c)
	}
	return "", false, errConnect
}

// errConnect is for a task that a newer version accepted.
var errConnect = &Failure{"this executor does not know what is to be connected here"}

// connectPipe plans the pipe of a connect, which is of no other use.
func (p *plan) connectPipe(field string, end contracts.PipeEnd, volume, name, hostPath, containerPath string) (contracts.Pipe, string, error) {
	at, argument, err := p.pipePlace(volume, name, hostPath, containerPath)
	if err != nil {
		return at, "", err
	}
	at.End = end
	for _, s := range p.streams {
		if s.pipe.Volume == at.Volume && s.pipe.Name == at.Name {
			return at, "", &Failure{fmt.Sprintf("%s has the pipe %q already", s.step.Stream.Field, at.Name)}
		}
	}
	for _, l := range p.logged {
		if l.pipe.Volume == at.Volume && l.pipe.Name == at.Name {
			return at, "", &Failure{fmt.Sprintf("%s has the pipe %q already", l.field, at.Name)}
		}
	}
	p.addPipe(field, at)
	return at, argument, nil
}

func (p *plan) connectStandard(task *contracts.Task, f *folder.Folder, field string, from engine.Stream, c *contracts.Connect) error {
	out := &p.standard[from-engine.Stdout]
	if out.field != "" {
		return &Failure{fmt.Sprintf("%s has the container's %s already", out.field, from)}
	}
	out.field, out.parse = field, c.Parse != ""
	if to, ok := logSource(c.Output.Transform); ok {
		out.label = contracts.LogStdout
		if to == logship.SpoolStderr {
			out.label = contracts.LogStderr
		}
		return nil
	}
	to, ok := sink(task, &c.Output, from.String())
	if !ok {
		return errConnect
	}
	at := contracts.Pipe{Volume: f.Path(), Name: path.Join(streamsDir, streamName(len(p.streams))), End: contracts.PipeRead}
	out.step = p.stream(f, field, contracts.RouteEnd{}, to, at, from)
	return nil
}

func streamName(i int) string { return fmt.Sprintf("stream-%d", i) }

// stream plans the step that moves a stream from or to a pipe, which is the end
// that is not given, and returns its name.
func (p *plan) stream(f *folder.Folder, field string, from, to contracts.RouteEnd, at contracts.Pipe, standard engine.Stream) string {
	end := at // as transfer has it
	if at.End == contracts.PipeWrite {
		to.Pipe = &end
	} else {
		from.Pipe = &end
	}
	step := contracts.Step{
		Version: contracts.Version, Job: f.Job, Attempt: f.Attempt, Step: streamName(len(p.streams)), Kind: contracts.StepStream,
		Folder: f.Relative(), Stream: &contracts.Route{Field: field, From: from, To: to},
	}
	switch { // one of the ends may be in Girder
	case from.FileID != "":
		step.Session = p.task.SessionFor(&from.Girder)
	case to.URL == "":
		step.Session = p.task.SessionFor(&to.Girder)
	}
	p.streams = append(p.streams, stream{step: step, pipe: at, from: standard})
	return step.Step
}

// logSource returns what of the log the output of a connect is.
func logSource(to contracts.Transform) (logship.Source, bool) {
	switch to.(type) {
	case *contracts.HostStdout:
		return logship.SpoolStdout, true
	case *contracts.HostStderr:
		return logship.SpoolStderr, true
	default:
		return 0, false
	}
}

// sink returns the end of a route outside of the node, ok if the output of the
// connect is one; name is what a file of it is called.
func sink(task *contracts.Task, to *contracts.Endpoint, name string) (end contracts.RouteEnd, ok bool) {
	if t, is := to.Transform.(*contracts.ChunkedStream); is {
		return contracts.RouteEnd{URL: t.URL, Headers: t.Headers}, true
	}
	switch t := to.Output.(type) {
	case *contracts.GirderUploadItem:
		return contracts.RouteEnd{
			ItemID: t.ItemID, Name: name, Reference: t.UploadKwargs["reference"], Girder: task.GirderFor(t.Girder),
		}, true
	case *contracts.GirderUploadFolder:
		return contracts.RouteEnd{
			FolderID: t.FolderID, Name: name, Reference: t.UploadKwargs["reference"], Girder: task.GirderFor(t.Girder),
		}, true
	default:
		return end, false
	}
}

// labels says which stream of the job's log each source belongs to.
func (r *routes) labels() logship.Labels {
	return logship.Labels{
		logship.EngineStdout: cmp.Or(r.standard[0].label, contracts.LogStdout),
		logship.EngineStderr: cmp.Or(r.standard[1].label, contracts.LogStderr),
		logship.SpoolParsed:  cmp.Or(r.standard[0].label, contracts.LogStdout),
	}
}

// plain returns the container's standard streams that the log has as they are,
// 0 for none.
func (r *routes) plain() engine.Streams {
	var streams engine.Streams
	for i, only := range [...]engine.Streams{engine.StdoutOnly, engine.StderrOnly} {
		if r.standard[i].isPlain() {
			streams |= only
		}
	}
	return streams
}

// hasLimit is that of the stream of a step.
func (r *routes) hasLimit(step string) bool {
	return slices.ContainsFunc(r.streams, func(s stream) bool { return s.step.Step == step && s.hasLimit() })
}

// movedBytes returns what of the task is about bytes that the executor itself
// moves, and that nobody has any more once they are read: those of a pipe, or
// what went into one. It is empty where there are none.
func (r *routes) movedBytes() (field string) {
	for _, l := range r.logged {
		return l.field
	}
	for _, out := range r.standard {
		if out.step != "" {
			return out.field
		}
	}
	return ""
}
