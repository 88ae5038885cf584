package docker

import (
	"time"

	"github.com/docker/docker/api/types/versions"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// fullPart is the length of every part of a long line but its last. A last part
// is shorter, if only because its newline needs room.
const fullPart = 16 << 10

// losesNewlines reports whether the engine's log driver drops the newline of
// each line that is longer than fullPart: it does before 23.0 (API 1.42).
func (e *Engine) losesNewlines() bool {
	return versions.LessThan(e.api().ClientVersion(), "1.42")
}

// newlines gives the last part of a long line its newline back. One case cannot
// be told apart from outside the engine, an output that ends in the middle of a
// long line: it gets a newline too.
type newlines struct {
	open [2]bool      // a stream is inside a long line
	time [2]time.Time // that all of its parts share
}

// restore returns the frame with the newline that it lacks.
func (n *newlines) restore(f engine.Frame) engine.Frame {
	i := int(f.Stream - engine.Stdout)
	part := n.open[i] && n.time[i].Equal(f.Time)
	whole := len(f.Data) > 0 && f.Data[len(f.Data)-1] == '\n'
	if !whole && len(f.Data) == fullPart {
		n.open[i], n.time[i] = true, f.Time
		return f
	}
	n.open[i] = false
	if part && !whole {
		f.Data = append(f.Data, '\n')
	}
	return f
}
