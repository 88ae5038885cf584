package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/gantry/internal/show"
)

// Progress says how a job that is followed is shown beside its log.
type Progress string

// The modes: a line that moves on a terminal and nothing elsewhere, a line of
// words now and then, nothing.
const (
	ProgressAuto  Progress = "auto"
	ProgressPlain Progress = "plain"
	ProgressNone  Progress = "none"
)

// redrawEvery is how often the moving line is drawn while nothing happens.
const redrawEvery = 200 * time.Millisecond

const (
	// eraseRest takes off the terminal what follows on the line.
	eraseRest = "\x1b[K"
	// eraseLine takes the moving line off the terminal.
	eraseLine = "\r" + eraseRest
)

// screen shows a job that is being followed: its log, byte by byte, and below
// it one line that moves (on a terminal) or now and then a line of words.
//
// Order: newScreen, then any of the methods, from any goroutine, then close,
// which takes the moving line away.
type screen struct {
	env   *Env
	mode  Progress
	moves bool // there is a moving line

	mu       sync.Mutex
	live     show.Live
	hinted   int    // the attempt whose phase and progress live has
	lastKey  string // of the last plain line
	lastLine string
	drawn    bool
	midLine  bool // the log's last byte on the terminal was no newline

	stop, stopped chan struct{}
}

func newScreen(env *Env, mode Progress, job contracts.JobID) *screen {
	s := &screen{
		env: env, mode: mode, moves: mode == ProgressAuto && env.StderrTerminal,
		live: show.Live{Job: job, Since: now()},
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	go s.keepMoving()
	return s
}

func (s *screen) keepMoving() {
	defer close(s.stopped)
	if !s.moves {
		return
	}
	ticker := time.NewTicker(redrawEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
			s.mu.Lock()
			s.draw()
			s.mu.Unlock()
		}
	}
}

// close ends the moving line.
func (s *screen) close() {
	close(s.stop)
	<-s.stopped
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
}

// entry shows a step in the job's life.
func (s *screen) entry(e *contracts.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live.Attempt, s.live.Status = e.Attempt, contracts.StatusAfter(s.live.Status, e)
	s.forget(e.Attempt)
	s.update()
}

// hint shows what an attempt says of itself. Hints and entries come on two ways,
// so either may be of an older attempt.
func (s *screen) hint(attempt int, change func(*show.Live)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if attempt < max(s.live.Attempt, s.hinted) {
		return
	}
	s.forget(attempt)
	change(&s.live)
	s.update()
}

// forget drops the hints of attempts before the given one.
func (s *screen) forget(attempt int) {
	if attempt > s.hinted {
		s.hinted = attempt
		s.live.Phase, s.live.Progress = nil, nil
	}
}

func (s *screen) update() {
	if s.mode == ProgressPlain {
		if line, key := show.PlainLine(s.live); key != s.lastKey && line != s.lastLine {
			s.lastKey, s.lastLine = key, line
			s.env.notice("%s", line)
		}
	}
	s.draw()
}

// log writes a piece of the job's log to where it came from.
func (s *screen) log(chunk *contracts.LogChunk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	out, terminal := s.env.Stdout, s.env.StdoutTerminal
	if chunk.Stream == contracts.LogStderr {
		out, terminal = s.env.Stderr, s.env.StderrTerminal
	}
	data := chunk.Bytes()
	if terminal {
		s.erase()
	}
	if _, err := out.Write(data); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	if terminal && len(data) > 0 {
		s.midLine = data[len(data)-1] != '\n'
	}
	s.draw()
	return nil
}

// notice tells something beside the log.
func (s *screen) notice(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	if s.midLine {
		fmt.Fprintln(s.env.Stderr)
		s.midLine = false
	}
	s.env.notice(format, args...)
	s.draw()
}

func (s *screen) draw() {
	if !s.moves || s.midLine {
		return
	}
	// Over the one before, whose rest goes then: a line that is erased first flickers.
	_, _ = io.WriteString(s.env.Stderr, "\r"+show.LiveLine(s.live, now(), s.env.ErrStyle())+eraseRest) // only a picture
	s.drawn = true
}

func (s *screen) erase() {
	if s.drawn {
		_, _ = io.WriteString(s.env.Stderr, eraseLine) // only a picture
		s.drawn = false
	}
}
