package stage

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// ErrSuspended is the cause of a context that ends because this process does:
// a Run then leaves what is half done where it is, for the next process, which
// gets its [Memory].
var ErrSuspended = errors.New("suspended, to be continued")

// Memory is what is known of the runs of a step that did not come to their
// end. The zero value is that of a step which begins.
type Memory struct {
	Partial *Partial        // a download
	Pending *Pending        // an upload
	Sent    map[string]Sent // files that are in the item, by path
}

// Note is one thing to remember. It has to be on disk before the work goes on.
type Note struct {
	Partial  *Partial        `json:"partial,omitempty"`
	Pending  *Pending        `json:"pending,omitempty"`
	Canceled girder.UploadID `json:"canceled,omitempty"`
	Sent     *Sent           `json:"sent,omitempty"`
}

// Partial is a download under a temporary name.
type Partial struct {
	Path      string `json:"path"` // where the whole file goes
	Temporary string `json:"temporary"`
	Created   string `json:"created,omitempty"` // what Girder's document says
	Updated   string `json:"updated,omitempty"`
	SHA512    string `json:"sha512,omitempty"`
	// Boot is the run of the machine that wrote it: after a crash of the
	// machine only a checksum proves what is on disk.
	Boot string `json:"boot,omitempty"`
	// Whole is the complete file, noted before it gets its name.
	Whole *Local `json:"whole,omitempty"`
}

// Pending is an upload that has begun.
type Pending struct {
	Path  string          `json:"path"`
	Local Local           `json:"local"`
	ID    girder.UploadID `json:"id"`
	// OldID and OldCreated are of the file of that name that was in the item.
	OldID      girder.FileID `json:"old_id,omitempty"`
	OldCreated string        `json:"old_created,omitempty"`
}

// Sent is a file that is in the item.
type Sent struct {
	Path  string               `json:"path"`
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
		m.Partial = n.Partial
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
	if m.Sent == nil {
		m.Sent = map[string]Sent{}
	}
	m.Sent[n.Sent.Path] = *n.Sent
	if m.Pending != nil && m.Pending.Path == n.Sent.Path {
		m.Pending = nil
	}
}

// Remember puts a note where a later process finds it.
type Remember func(Note) error

func (r Remember) note(n Note) error {
	if r == nil {
		return nil
	}
	return r(n)
}

// Discard removes what a download that is not wanted any more left on a volume.
func Discard(volume string, m Memory) error {
	if m.Partial == nil {
		return nil
	}
	root, err := os.OpenRoot(volume)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return onVolume(m.Partial.Temporary, remove(root, m.Partial.Temporary))
}

// boot identifies this run of the machine, "" where it cannot be told.
func boot() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
