package contracts

import (
	"net/textproto"
	"path"
	"strings"
)

// wiring checks the connects of a task: what they join, and that nothing is
// joined twice.
type wiring struct {
	*validator
	// pipes has what is made of a pipe, by the pipe's place on the node.
	pipes map[string]joined
	// standard has where a standard stream of the container is connected.
	standard map[TransformType]string
}

type joined struct {
	at, inContainer string
	kind            TransformType
}

// namedPipe is a [NamedInputPipe] or a [NamedOutputPipe].
type namedPipe NamedInputPipe

// inContainer returns the pipe's path as the container sees it, as far as the
// task says so.
func (p *namedPipe) inContainer() string { return path.Join(p.ContainerPath, p.Name) }

// place returns where on the node a pipe is.
func (w *wiring) place(volume, hostPath, name string) string {
	if hostPath != "" {
		return path.Join(hostPath, name)
	}
	for i := range w.task.Docker.Volumes {
		if v := &w.task.Docker.Volumes[i]; v.Name == volume && v.Type == VolumeBindMount && volume != "" {
			return path.Join(v.HostPath, name)
		}
	}
	return volume + ":" + path.Clean(name)
}

// sinks are what the bytes that leave a container can go to, besides uploads.
var sinks = map[TransformType]bool{TypeChunkedStream: true, TypeHostStdout: true, TypeHostStderr: true}

// connect checks both ends, and that they fit each other.
func (w *wiring) connect(at string, c *Connect) {
	w.source(at+".input", c.Input)
	w.sink(at+".output", c.Output)
	if from, to := endType(c.Input), endType(c.Output); !fits(c) {
		w.fail(at, "%s cannot go to %s; a girder_file_stream goes to a named_input_pipe, and a named_output_pipe, container_stdout "+
			"or container_stderr to a chunked_stream, host_stdout, host_stderr, girder_upload_item or girder_upload_folder", from, to)
	}
	switch {
	case c.Parse == "":
	case c.Parse != "slicer":
		w.fail(at+".parse", "%q is not known; write \"slicer\", or nothing", c.Parse)
	case endType(c.Input) != string(TypeContainerStdout):
		w.fail(at+".parse", "%q takes progress out of container_stdout; the input is %s", c.Parse, endType(c.Input))
	}
}

// fits reports whether the ends of a connect may be joined.
func fits(c *Connect) bool {
	if c.Input.Transform == nil {
		return false
	}
	switch c.Input.Transform.TransformType() {
	case TypeGirderFileStream:
		return endType(c.Output) == string(TypeNamedInputPipe)
	case TypeNamedOutputPipe, TypeContainerStdout, TypeContainerStderr:
		return c.Output.Output != nil || sinks[TransformType(endType(c.Output))]
	default:
		return false
	}
}

func endType(end Endpoint) string {
	switch {
	case end.Output != nil:
		return string(end.Output.OutputType())
	case end.Transform != nil:
		return string(end.Transform.TransformType())
	default:
		return "nothing"
	}
}

// source checks what stands at the input of a connect.
func (w *wiring) source(at string, end Endpoint) {
	switch t := end.Transform.(type) {
	case *GirderFileStream:
		w.girderID(at+".id", t.ID)
		w.access(at, t.Girder)
	case *NamedOutputPipe:
		w.join(at, t.TransformType(), (*namedPipe)(t))
	case *ContainerStdout, *ContainerStderr:
		if first := w.standard[t.TransformType()]; first != "" {
			w.fail(at, "%s is connected already, by %s", t.TransformType(), first)
			return
		}
		w.standard[t.TransformType()] = at
	}
}

// sink checks what stands at the output of a connect.
func (w *wiring) sink(at string, end Endpoint) {
	switch o := end.Output.(type) {
	case *GirderUploadItem:
		w.girderID(at+".item_id", o.ItemID)
		w.upload(at, o.Path, o.DeleteFile, o.MustExist, o.UploadKwargs)
		w.access(at, o.Girder)
	case *GirderUploadFolder:
		w.girderID(at+".folder_id", o.FolderID)
		w.upload(at, o.Path, o.DeleteFile, o.MustExist, o.UploadKwargs)
		w.access(at, o.Girder)
	}
	switch t := end.Transform.(type) {
	case *NamedInputPipe:
		w.join(at, t.TransformType(), (*namedPipe)(t))
	case *ChunkedStream:
		if u := w.address(at+".url", t.URL); u != nil && u.Fragment != "" {
			w.fail(at+".url", "has a fragment, which no server sees; leave it out")
		}
		w.headers(at+".headers", t.Headers)
	}
}

// upload refuses the fields that speak of a file: a stream has none.
func (w *wiring) upload(at string, from OutputPath, deleteFile bool, mustExist *bool, kwargs map[string]string) {
	for field, given := range map[string]bool{
		".path": from != OutputPath{}, ".delete_file": deleteFile, ".must_exist": mustExist != nil,
	} {
		if given {
			w.fail(at+field, "is for outputs; what is uploaded here is the stream")
		}
	}
	w.uploadKwargs(at, kwargs)
}

// join checks a pipe that a connect joins.
func (w *wiring) join(at string, kind TransformType, pipe *namedPipe) {
	if !w.pipe(at, pipe) {
		return
	}
	w.take(at, kind, w.place(pipe.Volume, pipe.HostPath, pipe.Name), pipe.inContainer())
}

func (w *wiring) progress(at string, pipe *ProgressPipe) {
	w.volume(at+".volume", pipe.Volume)
	w.fileName(at+".name", pipe.NameOrDefault())
	w.take(at, TypeProgressPipe, w.place(pipe.Volume, "", pipe.NameOrDefault()), "")
}

// take notes what is made of the pipe in a place. A pipe has one use.
func (w *wiring) take(at string, kind TransformType, place, inContainer string) {
	first, taken := w.pipes[place]
	switch {
	case !taken:
		w.pipes[place] = joined{at: at, inContainer: inContainer, kind: kind}
	case kind == TypeProgressPipe && first.kind == kind:
		w.fail(at, "is the second progress pipe of that name; %s has it", first.at)
	default:
		w.fail(at, "%s has this pipe already; give each connect a pipe of its own", first.at)
	}
}

// mention checks a pipe that stands as an argument of its own: some connect
// has to join it, or its other end would be nobody's.
func (w *wiring) mention(at string, kind TransformType, pipe *namedPipe) {
	if !w.pipe(at, pipe) {
		return
	}
	has, ok := w.pipes[w.place(pipe.Volume, pipe.HostPath, pipe.Name)]
	if !ok || has.kind != kind || (pipe.HostPath != "" && has.inContainer != pipe.inContainer()) {
		w.fail(at, "no connect joins this %s; add one to docker.streams", kind)
	}
}

// pipe checks where a pipe is.
func (w *wiring) pipe(at string, p *namedPipe) bool {
	before := len(w.problems)
	w.fileName(at+".name", p.Name)
	explicit := p.HostPath != "" || p.ContainerPath != ""
	switch {
	case explicit && p.Volume != "":
		w.fail(at+".volume", "give either a volume, or host_path and container_path")
	case explicit:
		w.absolutePath(at+".host_path", p.HostPath)
		w.absolutePath(at+".container_path", p.ContainerPath)
	default:
		w.volume(at+".volume", p.Volume)
	}
	return len(w.problems) == before
}

// ownHeaders are the headers that belong to a request as such.
var ownHeaders = nameSet("Transfer-Encoding", "Content-Length", "Host")

func (w *wiring) headers(at string, headers map[string]Secret) {
	seen := map[string]bool{}
	for name, value := range headers {
		field, canonical := at+"."+name, textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case name == "" || strings.ContainsFunc(name, notInToken):
			w.fail(at, "%q is not the name of a header", name)
		case ownHeaders[canonical]:
			w.fail(field, "belongs to the request itself; leave it out")
		case seen[canonical]:
			w.fail(field, "given twice; header names differ by more than capital letters")
		case strings.ContainsFunc(string(value), notInHeader):
			w.fail(field, "its value holds a control character")
		}
		seen[canonical] = true
		w.secret(field, value)
	}
}

// notInToken reports whether a character is none of an HTTP token's.
func notInToken(r rune) bool {
	letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

func notInHeader(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
