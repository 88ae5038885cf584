package stage

import (
	"cmp"
	"errors"
	"maps"
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
	Pending  map[NotedPath]Pending // uploads, by path
	Begun    map[NotedPath]Begun   // requests without an upload, by path
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
	// Later says that the note need not outlive a crash of the machine by itself.
	Later bool `json:"-"`
}

// Partial is a download under a temporary name, or one that came at once.
type Partial struct {
	Path      NotedPath `json:"path"`                // where the whole file goes
	Temporary NotedPath `json:"temporary,omitempty"` // empty: it has none
	Created   string    `json:"created,omitempty"`   // what Girder's document says
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
// Girder could be asked about: an empty file, an artifact, or an upload whose
// note a crash of the machine may have taken.
type Begun struct {
	Path  NotedPath `json:"path"`
	Local Local     `json:"local"`
	// SHA512 is that of a small file, which is noted before its upload begins, and
	// Boot the run of the machine that noted it.
	SHA512 string `json:"sha512,omitempty"`
	Boot   string `json:"boot,omitempty"`
	// OldID and OldCreated are as in [Pending].
	OldID      girder.FileID `json:"old_id,omitempty"`
	OldCreated string        `json:"old_created,omitempty"`
}

// mayBeSent reports whether the file may be in Girder where nothing else is noted
// of it. What was noted before its upload began may be only after a crash of the
// machine, which can have taken the note of the upload.
func (b Begun) mayBeSent() bool { return b.Boot == "" || b.Boot != boot() }

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

// Clone is a copy that notes for the original do not change.
func (m *Memory) Clone() Memory {
	c := *m
	c.Partials, c.Pending, c.Begun = maps.Clone(m.Partials), maps.Clone(m.Pending), maps.Clone(m.Begun)
	c.Sent, c.Targets = maps.Clone(m.Sent), maps.Clone(m.Targets)
	return c
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
		keep(&m.Begun, n.Begun.Path, *n.Begun)
	}
	if n.Pending != nil {
		keep(&m.Pending, n.Pending.Path, *n.Pending)
	}
	if n.Canceled != "" {
		maps.DeleteFunc(m.Pending, func(_ NotedPath, p Pending) bool { return p.ID == n.Canceled })
	}
	if n.Sent != nil {
		keep(&m.Sent, n.Sent.Path, *n.Sent)
		delete(m.Pending, n.Sent.Path)
		delete(m.Begun, n.Sent.Path)
	}
}

// unknown returns the size and the checksum of the file at a path of which it is
// not known whether it came into its folder.
func (m *Memory) unknown(path NotedPath) (size int64, checksum string, ok bool) {
	if p, ok := m.Pending[path]; ok {
		return p.Local.Size, p.SHA512, p.SHA512 != "" // or its last chunk was never sent
	}
	begun, ok := m.Begun[path]
	return begun.Local.Size, begun.SHA512, ok && begun.mayBeSent()
}

// replaced returns the id of the file that the one at a path was to replace.
func (m *Memory) replaced(path NotedPath) girder.FileID {
	return cmp.Or(m.Pending[path].OldID, m.Begun[path].OldID)
}

func keep[T any](in *map[NotedPath]T, path NotedPath, value T) {
	if *in == nil {
		*in = map[NotedPath]T{}
	}
	(*in)[path] = value
}

// Remember puts a note where a later process finds it. An [Out] has several
// files on their way and calls it from several goroutines at once.
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
