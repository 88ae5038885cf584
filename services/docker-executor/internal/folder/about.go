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
	EngineRun engine.Run        `json:"engine_run,omitzero"`
	Timings   contracts.Timings `json:"timings,omitzero"`
	// Exit is how the container ended, once that is known and all of its log is
	// stored; LogSeq is then the number of the log's last piece.
	Exit   *engine.Exit `json:"exit,omitempty"`
	LogSeq uint64       `json:"log_seq,omitempty"`
}

// Volume is a folder of the host and its place in the container.
type Volume struct {
	Name      string `json:"name,omitempty"` // empty: the default volume
	Host      string `json:"host"`
	Container string `json:"container"`
	ReadOnly  bool   `json:"read_only,omitempty"`
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
