package contracts

// TransformType is the value of a transform's field "type".
type TransformType string

// The transforms, one for each class of Girder Worker.
const (
	TypeGirderFile         TransformType = "girder_file"
	TypeGirderItem         TransformType = "girder_item"
	TypeGirderFolder       TransformType = "girder_folder"
	TypeGirderFileStream   TransformType = "girder_file_stream"
	TypeVolumePath         TransformType = "volume_path"
	TypeVolume             TransformType = "volume"
	TypeTemporaryVolume    TransformType = "temporary_volume"
	TypeNamedInputPipe     TransformType = "named_input_pipe"
	TypeNamedOutputPipe    TransformType = "named_output_pipe"
	TypeConnect            TransformType = "connect"
	TypeChunkedStream      TransformType = "chunked_stream"
	TypeHostStdout         TransformType = "host_stdout"
	TypeHostStderr         TransformType = "host_stderr"
	TypeContainerStdout    TransformType = "container_stdout"
	TypeContainerStderr    TransformType = "container_stderr"
	TypeProgressPipe       TransformType = "progress_pipe"
	TypeGirderAPIURL       TransformType = "girder_api_url"
	TypeGirderToken        TransformType = "girder_token"
	TypeGirderFilePath     TransformType = "girder_file_path"
	TypeGirderItemPath     TransformType = "girder_item_path"
	TypeGirderFolderPath   TransformType = "girder_folder_path"
	TypeGirderItemMetadata TransformType = "girder_item_metadata"
	TypeTemporaryDirectory TransformType = "temporary_directory"
)

// Transform is a placeholder in a task that becomes a string, a file or a
// stream. The types of this file are all there are.
type Transform interface {
	TransformType() TransformType
}

// GirderFile downloads a file into a volume before the container is created
// and becomes its path in the container.
type GirderFile struct {
	ID string `json:"id"`
	// Volume is the name of a volume; the default temporary volume if empty.
	Volume string `json:"volume,omitempty"`
	// Filename is the path in the volume; <id>/<name in Girder> if empty.
	Filename string `json:"filename,omitempty"`
	// DirectPath is where the same file may be found on the node: where the
	// executor can read it and its policy allows that, it is mounted, read-only,
	// and not downloaded.
	DirectPath string        `json:"direct_path,omitempty"`
	Girder     *GirderAccess `json:"girder,omitempty"`
}

// GirderItem downloads all files of an item into a volume and becomes their
// path in the container.
type GirderItem struct {
	ID     string        `json:"id"`
	Volume string        `json:"volume,omitempty"`
	Girder *GirderAccess `json:"girder,omitempty"`
}

// GirderFolder downloads a folder recursively into a volume and becomes its
// path in the container.
type GirderFolder struct {
	ID         string        `json:"id"`
	Volume     string        `json:"volume,omitempty"`
	FolderName string        `json:"folder_name,omitempty"`
	Girder     *GirderAccess `json:"girder,omitempty"`
}

// GirderFileStream is a file's bytes as the input of a [Connect].
type GirderFileStream struct {
	ID     string        `json:"id"`
	Girder *GirderAccess `json:"girder,omitempty"`
}

// VolumePath is a path on a volume: in arguments the path in the container, in
// outputs the same file on the node.
type VolumePath struct {
	// Path is relative and stays inside the volume.
	Path   string `json:"path"`
	Volume string `json:"volume,omitempty"`
}

// VolumeRef becomes a named volume's path in the container.
type VolumeRef struct {
	Volume string `json:"volume"`
}

// TemporaryVolume becomes the default temporary volume's path in the container.
type TemporaryVolume struct{}

// NamedInputPipe is a FIFO that the container reads. It becomes its path in the
// container.
type NamedInputPipe struct {
	// Name is the FIFO's path on the volume, or its name in HostPath.
	Name   string `json:"name"`
	Volume string `json:"volume,omitempty"`
	// HostPath and ContainerPath, both or none, are a folder of the node and
	// where the container sees it, instead of a volume.
	ContainerPath string `json:"container_path,omitempty"`
	HostPath      string `json:"host_path,omitempty"`
}

// NamedOutputPipe is a FIFO that the container writes; its fields are those of
// [NamedInputPipe].
type NamedOutputPipe struct {
	Name          string `json:"name"`
	Volume        string `json:"volume,omitempty"`
	ContainerPath string `json:"container_path,omitempty"`
	HostPath      string `json:"host_path,omitempty"`
}

// Connect joins a source to a sink; one of them is a pipe or a standard stream
// of the container.
type Connect struct {
	Input  Endpoint `json:"input"`
	Output Endpoint `json:"output"`
	// Parse is "slicer" to take progress out of the container's standard output.
	Parse string `json:"parse,omitempty"`
}

// ChunkedStream posts a stream to an HTTP server, one chunk per write.
type ChunkedStream struct {
	URL     string            `json:"url"`
	Headers map[string]Secret `json:"headers,omitempty"`
}

// HostStdout and HostStderr are the job's log; ContainerStdout and
// ContainerStderr are the container's standard streams.
type (
	HostStdout      struct{}
	HostStderr      struct{}
	ContainerStdout struct{}
	ContainerStderr struct{}
)

// ProgressPipe is a FIFO that takes one JSON object per line with message,
// total and current; it becomes its path in the container.
type ProgressPipe struct {
	// Name is the FIFO's name in the volume; [DefaultProgressPipe] if empty.
	Name   string `json:"name,omitempty"`
	Volume string `json:"volume,omitempty"`
}

// DefaultProgressPipe is the name of a progress pipe that is given none.
const DefaultProgressPipe = ".girder_progress"

// NameOrDefault returns the FIFO's name.
func (p *ProgressPipe) NameOrDefault() string {
	if p.Name == "" {
		return DefaultProgressPipe
	}
	return p.Name
}

// GirderAPIURL and GirderToken become the task's API URL and token as strings.
type (
	GirderAPIURL struct{}
	GirderToken  struct{}
)

// GirderFilePath, GirderItemPath, GirderFolderPath, GirderItemMetadata and
// TemporaryDirectory are for plugin tasks.
type (
	GirderFilePath struct {
		ID     string        `json:"id"`
		Girder *GirderAccess `json:"girder,omitempty"`
	}
	GirderItemPath struct {
		ID     string        `json:"id"`
		Girder *GirderAccess `json:"girder,omitempty"`
	}
	GirderFolderPath struct {
		ID     string        `json:"id"`
		Girder *GirderAccess `json:"girder,omitempty"`
	}
	GirderItemMetadata struct {
		ID     string        `json:"id"`
		Girder *GirderAccess `json:"girder,omitempty"`
	}
	TemporaryDirectory struct{}
)

func (*GirderFile) TransformType() TransformType         { return TypeGirderFile }
func (*GirderItem) TransformType() TransformType         { return TypeGirderItem }
func (*GirderFolder) TransformType() TransformType       { return TypeGirderFolder }
func (*GirderFileStream) TransformType() TransformType   { return TypeGirderFileStream }
func (*VolumePath) TransformType() TransformType         { return TypeVolumePath }
func (*VolumeRef) TransformType() TransformType          { return TypeVolume }
func (*TemporaryVolume) TransformType() TransformType    { return TypeTemporaryVolume }
func (*NamedInputPipe) TransformType() TransformType     { return TypeNamedInputPipe }
func (*NamedOutputPipe) TransformType() TransformType    { return TypeNamedOutputPipe }
func (*Connect) TransformType() TransformType            { return TypeConnect }
func (*ChunkedStream) TransformType() TransformType      { return TypeChunkedStream }
func (*HostStdout) TransformType() TransformType         { return TypeHostStdout }
func (*HostStderr) TransformType() TransformType         { return TypeHostStderr }
func (*ContainerStdout) TransformType() TransformType    { return TypeContainerStdout }
func (*ContainerStderr) TransformType() TransformType    { return TypeContainerStderr }
func (*ProgressPipe) TransformType() TransformType       { return TypeProgressPipe }
func (*GirderAPIURL) TransformType() TransformType       { return TypeGirderAPIURL }
func (*GirderToken) TransformType() TransformType        { return TypeGirderToken }
func (*GirderFilePath) TransformType() TransformType     { return TypeGirderFilePath }
func (*GirderItemPath) TransformType() TransformType     { return TypeGirderItemPath }
func (*GirderFolderPath) TransformType() TransformType   { return TypeGirderFolderPath }
func (*GirderItemMetadata) TransformType() TransformType { return TypeGirderItemMetadata }
func (*TemporaryDirectory) TransformType() TransformType { return TypeTemporaryDirectory }

// decodeTransforms has a decoder for each transform type.
var decodeTransforms = map[TransformType]unionDecoder[Transform]{
	TypeGirderFile:         as[Transform, GirderFile],
	TypeGirderItem:         as[Transform, GirderItem],
	TypeGirderFolder:       as[Transform, GirderFolder],
	TypeGirderFileStream:   as[Transform, GirderFileStream],
	TypeVolumePath:         as[Transform, VolumePath],
	TypeVolume:             as[Transform, VolumeRef],
	TypeTemporaryVolume:    as[Transform, TemporaryVolume],
	TypeNamedInputPipe:     as[Transform, NamedInputPipe],
	TypeNamedOutputPipe:    as[Transform, NamedOutputPipe],
	TypeConnect:            decodeConnect,
	TypeChunkedStream:      as[Transform, ChunkedStream],
	TypeHostStdout:         as[Transform, HostStdout],
	TypeHostStderr:         as[Transform, HostStderr],
	TypeContainerStdout:    as[Transform, ContainerStdout],
	TypeContainerStderr:    as[Transform, ContainerStderr],
	TypeProgressPipe:       as[Transform, ProgressPipe],
	TypeGirderAPIURL:       as[Transform, GirderAPIURL],
	TypeGirderToken:        as[Transform, GirderToken],
	TypeGirderFilePath:     as[Transform, GirderFilePath],
	TypeGirderItemPath:     as[Transform, GirderItemPath],
	TypeGirderFolderPath:   as[Transform, GirderFolderPath],
	TypeGirderItemMetadata: as[Transform, GirderItemMetadata],
	TypeTemporaryDirectory: as[Transform, TemporaryDirectory],
}
