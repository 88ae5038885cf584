package stage

import (
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// ErrSuspended is the cause of a context that ends because this process does:
// a Run then leaves what is half done where it is, for the next process, which
// gets its [Memory].
var ErrSuspended = errors.New("suspended, to be continued")

// Memory is what is known of the runs of a step that did not come to their
// end. The zero value is that of a step which begins.
type Memory struct {
	Partials map[NotedPath]Partial // downloads, by path
	Pending  *Pending              // an upload
	Begun    *Begun                // a request without an upload
	Attached *Attached             // what the job had before the first artifact
	Sent     map[NotedPath]Sent    // files that are in Girder, by path
	Targets  map[NotedPath]Target  // the folders of Girder that they are in, by path
	// Earlier is what attempts of the job that ended before this one knew, the
	// latest first. It is no part of a note.
	Earlier []Memory
}

// Note is one thing to remember. It has to be on disk before the work goes on.
type Note struct {
	Partial  *Partial        `json:"partial,omitempty"`
	Pending  *Pending        `json:"pending,omitempty"`
	Canceled girder.UploadID `json:"canceled,omitempty"`
	Sent     *Sent           `json:"sent,omitempty"`
	Begun    *Begun          `json:"begun,omitempty"`
	Attached *Attached       `json:"attached,omitempty"`
	Target   *Target         `json:"target,omitempty"`
}

// Partial is a download under a temporary name.
type Partial struct {
	Path      NotedPath `json:"path"` // where the whole file goes
	Temporary NotedPath `json:"temporary"`
	Created   string    `json:"created,omitempty"` // what Girder's document says
	Updated   string    `json:"updated,omitempty"`
	SHA512    string    `json:"sha512,omitempty"`
	// Boot is the run of the machine that wrote it: after a crash of the
	// machine only a checksum proves what is on disk.
	Boot string `json:"boot,omitempty"`
	// Whole is the complete file, noted before it gets its name.
	Whole *Local `json:"whole,omitempty"`
}

// Pending is an upload that has begun.
type Pending struct {
	Path  NotedPath       `json:"path"`
	Local Local           `json:"local"`
	ID    girder.UploadID `json:"id"`
	// SHA512 is the whole file's. It is noted before the last chunk is sent to a
	// folder, where nothing else tells our file from one of the same name and size.
	SHA512 string `json:"sha512,omitempty"`
	// OldID and OldCreated are of the file that was there and gets new contents.
	OldID      girder.FileID `json:"old_id,omitempty"`
	OldCreated string        `json:"old_created,omitempty"`
}

// Begun is a request that makes a file appear in Girder without an upload that
// Girder could be asked about: an empty file, or an artifact.
type Begun struct {
	Path  NotedPath `json:"path"`
	Local Local     `json:"local"`
	// OldID and OldCreated are as in [Pending].
	OldID      girder.FileID `json:"old_id,omitempty"`
	OldCreated string        `json:"old_created,omitempty"`
}

// Attached is the files that were attached to a job before: of the same name and
// size, only another one can be ours.
type Attached struct {
	IDs []girder.FileID `json:"ids"`
}

// Target is a folder of Girder that files go to.
type Target struct {
	Path NotedPath       `json:"path"` // on the volume
	ID   girder.FolderID `json:"id"`
	// Newest is the youngest item that was in the folder before, and Created
	// when it came there: what an upload of ours left is younger.
	Newest  girder.ItemID `json:"newest,omitempty"`
	Created string        `json:"created,omitempty"`
}

// Sent is a file that is in Girder.
type Sent struct {
	Path  NotedPath            `json:"path"`
	Local Local                `json:"local"`
	File  contracts.GirderSent `json:"file"`
}

// Local tells one state of a file on the volume from another.
type Local struct {
	Size    int64  `json:"size"`
	ModTime int64  `json:"mod_time"` // nanoseconds
	Inode   uint64 `json:"inode"`
}

func localOf(info os.FileInfo) Local {
	l := Local{Size: info.Size(), ModTime: info.ModTime().UnixNano()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		l.Inode = stat.Ino
	}
	return l
}

// Add takes in a note.
func (m *Memory) Add(n Note) {
	if n.Partial != nil {
		keep(&m.Partials, n.Partial.Path, *n.Partial)
	}
	if n.Target != nil {
		keep(&m.Targets, n.Target.Path, *n.Target)
	}
	if n.Attached != nil {
		m.Attached = n.Attached
	}
	if n.Begun != nil {
		m.Begun = n.Begun
	}
	if n.Pending != nil {
		m.Pending = n.Pending
	}
	if m.Pending != nil && m.Pending.ID == n.Canceled {
		m.Pending = nil
	}
	if n.Sent == nil {
		return
	}
	keep(&m.Sent, n.Sent.Path, *n.Sent)
	if m.Pending != nil && m.Pending.Path == n.Sent.Path {
		m.Pending = nil
	}
	if m.Begun != nil && m.Begun.Path == n.Sent.Path {
		m.Begun = nil
	}
}

// unknown returns the size and the checksum of the file at a path of which it is
// not known whether it came into its folder.
func (m *Memory) unknown(path NotedPath) (size int64, checksum string, ok bool) {
	switch {
	case m.Pending != nil && m.Pending.Path == path:
		return m.Pending.Local.Size, m.Pending.SHA512, m.Pending.SHA512 != "" // or its last chunk was never sent
	case m.Begun != nil && m.Begun.Path == path:
		return m.Begun.Local.Size, "", true
	}
	return 0, "", false
}

func keep[T any](in *map[NotedPath]T, path NotedPath, value T) {
	if *in == nil {
		*in = map[NotedPath]T{}
	}
	(*in)[path] = value
}

// Remember puts a note where a later process finds it.
type Remember func(Note) error

func (r Remember) note(n Note) error {
	if r == nil {
		return nil
	}
	return r(n)
}

// Discard removes what downloads that are not wanted any more left on a volume.
func Discard(on string, m Memory) error {
	if len(m.Partials) == 0 {
		return nil
	}
	root, err := volume.OpenRoot(on)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	for _, partial := range m.Partials {
		temporary := string(partial.Temporary)
		err = errors.Join(err, onVolume(temporary, remove(root, temporary)))
	}
	return err
}

// boot identifies this run of the machine, "" where it cannot be told.
var boot = sync.OnceValue(func() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
})
