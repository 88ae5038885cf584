package model

import (
	"fmt"
	"hash/fnv"
	"io"
	"strings"
	"sync"
	"time"
)

// trace is who did what, in order.
type trace struct {
	mu    sync.Mutex
	began time.Time
	lines []string
	hash  uint64 // of the turns that were given
}

func newTrace() *trace { return &trace{began: time.Now()} }

func (t *trace) add(who, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := fmt.Sprintf("%9.3fs  %-16s  %s", time.Since(t.began).Seconds(), who, text)
	t.lines = append(t.lines, line)
	if *traceFlag { // at once: what hangs tells nothing in the end
		fmt.Println(line)
	}
}

func (t *trace) event(format string, args ...any) { t.add("--", fmt.Sprintf(format, args...)) }

// turn notes a turn that the scheduler gave.
func (t *trace) turn(who, what string, verdict verdict) {
	text := what
	if verdict != pass {
		text += "   [" + verdict.String() + "]"
	}
	t.add(who, text)
	what, _, _ = strings.Cut(what, "ACK.") // which has times
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, t.hash, who, what, verdict)
	t.hash = h.Sum64()
}

// writer takes the log of an actor.
func (t *trace) writer(a *actor) io.Writer { return &logWriter{t, a} }

type logWriter struct {
	trace *trace
	actor *actor
}

func (l *logWriter) Write(p []byte) (int, error) {
	l.trace.add(l.actor.name, "log: "+strings.TrimSpace(string(p)))
	return len(p), nil
}

// about returns the lines that concern a job, and what happened to the actors.
func (t *trace) about(job string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var text strings.Builder
	for _, line := range t.lines {
		if strings.Contains(line, job) || strings.Contains(line, "  --  ") || strings.Contains(line, "   [") || strings.Contains(line, "--   ") {
			text.WriteString(line + "\n")
		}
	}
	return text.String()
}
