package contracts

import (
	"fmt"
	"path"
	"strings"
)

// transforms checks the arguments and the streams. Which pipes and standard
// streams the connects join is known first: an argument may name a pipe that a
// later connect joins.
func (v *validator) transforms() {
	w := &wiring{validator: v, pipes: map[string]joined{}, standard: map[TransformType]string{}}
	for i := range v.task.Docker.Streams {
		w.connect(fmt.Sprintf("docker.streams[%d]", i), &v.task.Docker.Streams[i])
	}
	for i, arg := range v.task.Docker.Args {
		at := fmt.Sprintf("docker.args[%d]", i)
		switch t := arg.Transform.(type) {
		case *Connect:
			w.connect(at, t)
		case *ProgressPipe:
			w.progress(at, t)
		}
	}
	for i, arg := range v.task.Docker.Args {
		at := fmt.Sprintf("docker.args[%d]", i)
		v.noNUL(at, arg.Text)
		switch t := arg.Transform.(type) {
		case *NamedInputPipe:
			w.mention(at, t.TransformType(), (*namedPipe)(t))
		case *NamedOutputPipe:
			w.mention(at, t.TransformType(), (*namedPipe)(t))
		default:
			v.argument(at, arg.Transform)
		}
	}
}

// argument checks a transform that is no pipe and no connect.
func (v *validator) argument(at string, transform Transform) {
	switch t := transform.(type) {
	case nil, *TemporaryVolume, *Connect, *ProgressPipe:
	case *GirderFile:
		v.girderFile(at, t)
	case *GirderItem:
		v.girderID(at+".id", t.ID)
		v.volume(at+".volume", t.Volume)
		v.access(at, t.Girder)
	case *GirderFolder:
		v.girderFolder(at, t)
	case *VolumePath:
		v.volumePath(at, t)
	case *VolumeRef:
		if t.Volume == "" {
			v.fail(at+".volume", "missing")
		}
		v.volume(at+".volume", t.Volume)
	case *GirderAPIURL:
		if v.task.GirderFor(nil).APIURL == "" {
			v.fail("girder.api_url", "missing; %s needs it", at)
		}
	case *GirderToken:
		if v.task.GirderFor(nil).Token == "" {
			v.fail("girder.token", "missing; %s needs it", at)
		}
	case *HostStdout, *HostStderr, *ContainerStdout, *ContainerStderr, *ChunkedStream, *GirderFileStream:
		v.fail(at+".type", "%s is no argument but an end of a connect; write it as its input or output", t.TransformType())
	default:
		v.unsupported(at+".type", string(t.TransformType()))
	}
}

func (v *validator) girderFile(at string, t *GirderFile) {
	v.girderID(at+".id", t.ID)
	v.volume(at+".volume", t.Volume)
	if t.Filename != "" {
		v.fileName(at+".filename", t.Filename)
	}
	if t.DirectPath != "" {
		v.absolutePath(at+".direct_path", t.DirectPath)
		if strings.HasSuffix(t.DirectPath, "/") {
			v.fail(at+".direct_path", "%q names a folder, not a file", t.DirectPath)
		}
	}
	v.access(at, t.Girder)
}

func (v *validator) girderFolder(at string, t *GirderFolder) {
	v.girderID(at+".id", t.ID)
	v.volume(at+".volume", t.Volume)
	if t.FolderName != "" {
		v.relativePath(at+".folder_name", t.FolderName)
		if path.Clean(t.FolderName) == "." {
			v.fail(at+".folder_name", "%q is no name; leave it out for the name in Girder", t.FolderName)
		}
	}
	v.access(at, t.Girder)
}

func (v *validator) outputs() {
	for i, output := range v.task.Outputs {
		at := fmt.Sprintf("outputs[%d]", i)
		v.volumePath(at+".path", output.From())
		switch o := output.OutputSpec.(type) {
		case *GirderUploadItem:
			v.girderID(at+".item_id", o.ItemID)
			v.uploadKwargs(at, o.UploadKwargs)
			v.access(at, o.Girder)
		case *GirderUploadFolder:
			v.girderID(at+".folder_id", o.FolderID)
			v.uploadKwargs(at, o.UploadKwargs)
			v.access(at, o.Girder)
		case *GirderJobArtifact:
			v.artifact(at, o)
		}
	}
}

func (v *validator) artifact(at string, o *GirderJobArtifact) {
	if !v.task.HasGirderJob() {
		v.fail(at+".type", "%s needs a Girder job to attach to; give girder.job or girder.job_info", o.OutputType())
	}
	if o.Name != "" && (o.Name == "." || o.Name == ".." || strings.ContainsAny(o.Name, "/\x00")) {
		v.fail(at+".name", "%q is not the name of a file", o.Name)
	}
	v.access(at, o.Girder)
}

func (v *validator) uploadKwargs(at string, kwargs map[string]string) {
	for name := range kwargs {
		if name != "reference" {
			v.fail(at+".upload_kwargs."+name, "unknown; only reference is passed on")
		}
	}
}
