package contracts

import "time"

// StepKind says what a step does.
type StepKind string

// The step kinds.
const (
	// StepStageIn brings one Girder file to the node.
	StepStageIn StepKind = "stage_in"
	// StepStageOut puts one output into Girder.
	StepStageOut StepKind = "stage_out"
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
	// Volume is the absolute path of a volume's folder on the node; every path
	// below stays inside it.
	Volume string `json:"volume,omitempty"`

	// FileID and Filename are for stage_in: the file goes to Filename in the
	// volume, or to <id>/<name in Girder> if that is empty.
	FileID   string `json:"file_id,omitempty"`
	Filename string `json:"filename,omitempty"`

	// Path and the fields after it are for stage_out, as in [GirderUploadItem].
	Path       string `json:"path,omitempty"`
	ItemID     string `json:"item_id,omitempty"`
	Reference  string `json:"reference,omitempty"`
	DeleteFile bool   `json:"delete_file,omitzero"`
	MustExist  bool   `json:"must_exist,omitzero"`

	// Pipes are for hold.
	Pipes []Pipe `json:"pipes,omitempty"`
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
	// Files are what a stage_out put into Girder.
	Files []GirderSent `json:"files,omitempty"`
	Ended time.Time    `json:"ended"`
}
