package contracts

import "time"

// StepKind says what a step does.
type StepKind string

// The step kinds.
const (
	// StepStageIn brings one Girder file, item or folder to the node.
	StepStageIn StepKind = "stage_in"
	// StepStageOut puts one output into Girder.
	StepStageOut StepKind = "stage_out"
	// StepStream moves the bytes of one [Connect] while the container runs. It
	// holds its end of a pipe like StepHold, also where it failed, until the
	// attempt's folder is removed: only a stream that moved everything may give
	// the container an end of file. It is never resumed. Its [StreamingMark] says
	// that it is ready, and the container may start.
	StepStream StepKind = "stream"
	// StepFinish says that the attempt's container has ended: its streams take
	// what is left in their pipes and come to their end.
	StepFinish StepKind = "finish"
	// StepHold keeps our end of an attempt's named pipes open, beside the
	// executor: the death of one of the two gives the container neither a false
	// end of file nor SIGPIPE. Its result says that they are held; they stay so
	// until the attempt's folder is removed.
	StepHold StepKind = "hold"
)

// Pipe is the place of a named pipe on a node, and which end of it is ours.
type Pipe struct {
	Volume string  `json:"volume"` // the volume's absolute path on the host
	Name   string  `json:"name"`   // the pipe's path on the volume
	End    PipeEnd `json:"end"`
}

// PipeEnd is one end of a named pipe. Holding the container's end as well would
// hide that the container has closed it.
type PipeEnd string

// The ends.
const (
	// PipeRead is ours where the container writes, as into a progress pipe.
	PipeRead PipeEnd = "read"
	// PipeWrite is ours where the container reads.
	PipeWrite PipeEnd = "write"
)

// Step is what an executor asks of its node's transfer, on [TransferSubject].
// Asking again is harmless: a step that is done is answered from its result.
type Step struct {
	Version int      `json:"version"`
	Job     JobID    `json:"job"`
	Attempt int      `json:"attempt"`
	Step    string   `json:"step"` // a subject token, unique in the attempt: "in-0"
	Kind    StepKind `json:"kind"`
	// Folder is the attempt's folder, relative to the work folder; the result
	// goes to steps/<step>.json in it.
	Folder string `json:"folder"`
	// Girder has the API URL, and the token as a reference to the bucket of
	// secrets.
	Girder GirderAccess `json:"girder,omitzero"`
	// Session is the task's, with its secrets as references.
	Session *GirderSession `json:"session,omitempty"`
	// Volume is the absolute path of a volume's folder on the node; every path
	// below stays inside it.
	Volume string `json:"volume,omitempty"`

	// FileID and Filename are for stage_in of a file: it goes to Filename in the
	// volume, or to <id>/<name in Girder> if that is empty.
	FileID   string `json:"file_id,omitempty"`
	Filename string `json:"filename,omitempty"`

	// ItemID is the item to stage in, below <id>/ in the volume, or the item to
	// put an output into.
	ItemID string `json:"item_id,omitempty"`
	// FolderID is the folder to stage in, to <id>/<FolderName or its name>, or
	// the folder to put an output into.
	FolderID   string `json:"folder_id,omitempty"`
	FolderName string `json:"folder_name,omitempty"`

	// Path and the fields after it are for stage_out, as in [GirderUploadItem],
	// [GirderUploadFolder] and [GirderJobArtifact].
	Path       string `json:"path,omitempty"`
	Reference  string `json:"reference,omitempty"`
	DeleteFile bool   `json:"delete_file,omitzero"`
	MustExist  bool   `json:"must_exist,omitzero"`
	// Artifact attaches the output to the job's Girder job; Name is then the
	// name of a single file, its own if empty.
	Artifact bool   `json:"artifact,omitzero"`
	Name     string `json:"name,omitempty"`

	// Pipes are for hold.
	Pipes []Pipe `json:"pipes,omitempty"`

	// Stream is for stream.
	Stream *Route `json:"stream,omitempty"`

	// Written is for finish: how many bytes the executor wrote into the pipes of
	// the steps that take a container's standard streams, by step.
	Written map[string]int64 `json:"written,omitempty"`
}

// Route says from where to where the bytes of a [Connect] go.
type Route struct {
	// Field is the path of the connect in the task, for people: "docker.args[2]".
	Field string   `json:"field"`
	From  RouteEnd `json:"from"`
	To    RouteEnd `json:"to"`
}

// RouteEnd is one end of a [Route]. Exactly one of Pipe, FileID, URL, ItemID
// and FolderID is set.
type RouteEnd struct {
	// Pipe is our end of a named pipe, to read from or to write into.
	Pipe *Pipe `json:"pipe,omitempty"`
	// FileID is the Girder file to read.
	FileID string `json:"file_id,omitempty"`
	// URL takes the bytes in one POST with chunked transfer encoding, and Headers
	// beside those that belong to it.
	URL     string            `json:"url,omitempty"`
	Headers map[string]Secret `json:"headers,omitempty"`
	// ItemID or FolderID is where a new file of the given Name goes.
	ItemID    string `json:"item_id,omitempty"`
	FolderID  string `json:"folder_id,omitempty"`
	Name      string `json:"name,omitempty"`
	Reference string `json:"reference,omitempty"`
	// Girder is the access to FileID, ItemID or FolderID.
	Girder GirderAccess `json:"girder,omitzero"`
}

// StepOutcome says how a step ended.
type StepOutcome string

// The outcomes.
const (
	StepDone StepOutcome = "done"
	// StepFailure is the task's fault: a missing file, a refused token.
	StepFailure StepOutcome = "failure"
	// StepInfrastructure is ours or the network's, after all retries.
	StepInfrastructure StepOutcome = "infrastructure"
	// StepAborted is a step whose job was revoked or whose attempt ended.
	StepAborted StepOutcome = "aborted"
)

// StepResult is the content of steps/<step>.json.
type StepResult struct {
	Version int         `json:"version"`
	Step    string      `json:"step"`
	Outcome StepOutcome `json:"outcome"`
	// Message is the reason in a sentence, for people, unless done.
	Message string `json:"message,omitempty"`
	// Path is where a staged-in file is, relative to the volume.
	Path string `json:"path,omitempty"`
	// Bytes is how much was moved.
	Bytes int64 `json:"bytes"`
	// Files are what a stage_out, or the stream of an upload, put into Girder.
	Files []GirderSent `json:"files,omitempty"`
	// Warnings are for people, about what was left out: an artifact that Girder
	// does not take.
	Warnings []string  `json:"warnings,omitempty"`
	Ended    time.Time `json:"ended"`
}

// StreamingMark is the file in the attempt's folder, beside the results, that is
// there as soon as transfer has its end of the stream's pipe.
func StreamingMark(step string) string { return step + ".streaming" }
