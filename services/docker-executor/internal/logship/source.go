package logship

import (
	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// Source is where bytes of a log come from. Each can be read again: the engine
// and the spools keep what they have until the attempt is over.
type Source int

// The sources. An index notes them by number.
const (
	// EngineStdout and EngineStderr are the container's own streams.
	EngineStdout = Source(engine.Stdout)
	EngineStderr = Source(engine.Stderr)
	// SpoolStdout and SpoolStderr take what else belongs to these streams of the
	// log: pipes of the container, and lines of Gantry's own.
	SpoolStdout = EngineStderr + 1
	SpoolStderr = EngineStderr + 2
	// SpoolParsed takes what a parser leaves of a container's standard output, and
	// nothing else: so its length says how far the parser's text is spooled.
	SpoolParsed = EngineStderr + 3
)

// sources is how many there are.
const sources = int(SpoolParsed)

// spooled lists the sources that are files.
var spooled = [...]Source{SpoolStdout, SpoolStderr, SpoolParsed}

func (s Source) isEngine() bool { return s == EngineStdout || s == EngineStderr }

func (s Source) known() bool { return s >= EngineStdout && s <= SpoolParsed }

// spool returns a source's place among the spooled ones.
func (s Source) spool() int { return int(s - SpoolStdout) }

// Labels say which stream of the log a source belongs to, where that is not the
// one that its name says; SpoolParsed is standard output.
type Labels map[Source]contracts.LogStream

func (l Labels) of(s Source) contracts.LogStream {
	if label, ok := l[s]; ok {
		return label
	}
	if s == EngineStderr || s == SpoolStderr {
		return contracts.LogStderr
	}
	return contracts.LogStdout
}
