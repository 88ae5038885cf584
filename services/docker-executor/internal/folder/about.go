package folder

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// About says what the attempt is and how far it came, for whoever finds its
// folder.
type About struct {
	Job     contracts.JobID `json:"job"`
	Attempt int             `json:"attempt"`
	// Installation is whose attempt it is, empty in what an older version noted:
	// an executor may be started with another NATS, which knows nothing of it.
	Installation string `json:"installation,omitempty"`
	// Executor is the one that owns the attempt, or did when it died.
	Executor contracts.ExecutorID `json:"executor"`
	// Reply is the acknowledgement subject of the ready message.
	Reply string `json:"reply"`
	// Volumes are what the attempt mounts, none until that is decided.
	Volumes []Volume `json:"volumes,omitempty"`
	// Pipes are the named pipes that the attempt made on folders of the host.
	Pipes []contracts.Pipe `json:"pipes,omitempty"`
	// Container is the container's name, ContainerID what the engine calls it
	// once it is about to start.
	Container   string `json:"container"`
	ContainerID string `json:"container_id,omitempty"`
	ImageDigest string `json:"image_digest,omitempty"`
	// EngineRun is the run of the engine that started the container, noted before
	// it does.
	EngineRun engine.Run `json:"engine_run,omitzero"`
	// OtherWays says that there are other ways to create the container, should
	// the engine refuse to start it in this one.
	OtherWays bool              `json:"other_ways,omitempty"`
	Timings   contracts.Timings `json:"timings,omitzero"`
	// AskedToEnd says that the container was asked to end, for its soft time limit,
	// or is about to be.
	AskedToEnd bool `json:"asked_to_end,omitempty"`
	// Exit is how the container ended, once that is known and all of its log is
	// stored; LogSeq is then the number of the log's last piece.
	Exit   *engine.Exit `json:"exit,omitempty"`
	LogSeq uint64       `json:"log_seq,omitempty"`
	// Written is, along with Exit, how many bytes of the container's standard
	// streams went to transfer, by step.
	Written map[string]int64 `json:"written,omitempty"`
}

// VolumeKind says what a volume is besides a folder that somebody else made.
type VolumeKind string

// The kinds.
const (
	// TemporaryVolume is a folder of ours: it is noted before it is made, and
	// removed with the attempt.
	TemporaryVolume VolumeKind = "temporary"
	// DirectFile is an input that is mounted where it is.
	DirectFile VolumeKind = "direct_file"
)

// Volume is a folder or file of the host and its place in the container.
type Volume struct {
	Name      string `json:"name,omitempty"` // empty for one that no transform names
	Host      string `json:"host"`
	Container string `json:"container"`
	ReadOnly  bool   `json:"read_only,omitempty"`
	// Relabel is how SELinux is to label it: "z", "Z" or not at all.
	Relabel string     `json:"relabel,omitempty"`
	Kind    VolumeKind `json:"kind,omitempty"`
	// Fields are the fields of the task that ask for it, none for the default
	// volume; Asked is the host's path in them, before symbolic links were followed.
	Fields []string `json:"fields,omitempty"`
	Asked  string   `json:"asked,omitempty"`
}

// IsDefault reports whether it is the default temporary volume.
func (v *Volume) IsDefault() bool { return v.Name == "" && len(v.Fields) == 0 }

// BelongsTo reports whether it is an attempt of an installation.
func (a *About) BelongsTo(installation string) bool {
	return a.Installation == "" || a.Installation == installation
}

// Note writes what was changed in About. The file is not synced: it survives
// the end of this process, and a container does not survive that of its host.
func (f *Folder) Note() error {
	if err := f.write(); err != nil {
		return fmt.Errorf("note how far attempt %d of %s is: %w", f.Attempt, f.Job, err)
	}
	return nil
}

func (f *Folder) write() error {
	data, err := json.Marshal(f.About)
	if err != nil {
		return err
	}
	temporary := filepath.Join(f.path, aboutFile+".new")
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(f.path, aboutFile))
}
