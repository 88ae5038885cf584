package engine

import (
	"path"
	"strings"
)

// Self is the container that this process runs in.
type Self struct {
	ID     string
	Mounts []SelfMount
	// Networks are those that somebody made, without the engine's own ones; the
	// one that the container was created with is the first.
	Networks []string
}

// SelfMount is something of the engine's host that the container sees.
type SelfMount struct {
	Source      string // on the host; empty for what is not on a disk of it
	Destination string // in the container
	ReadOnly    bool
}

// HostPath returns what a path of this process is called on the engine's host.
// It reports false for one that is on no mount: only this container has it. The
// path has to be absolute and without symbolic links. A process in no container,
// a nil Self, sees the host's own paths.
func (s *Self) HostPath(local string) (string, bool) {
	local = path.Clean(local)
	if s == nil {
		return local, true
	}
	var on *SelfMount
	rest := ""
	for i := range s.Mounts {
		m := &s.Mounts[i]
		below, inside := strings.CutPrefix(local, strings.TrimSuffix(m.Destination, "/"))
		if inside && (below == "" || below[0] == '/') && (on == nil || len(m.Destination) > len(on.Destination)) {
			on, rest = m, below
		}
	}
	if on == nil || on.Source == "" {
		return "", false
	}
	return path.Join(on.Source, rest), true
}
