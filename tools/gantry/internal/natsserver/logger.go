package natsserver

import (
	"fmt"
	"sync"

	"github.com/rs/zerolog"
)

// logger passes what the server says on, and remembers its last error.
type logger struct {
	log zerolog.Logger

	mu    sync.Mutex
	last  string
	fatal bool
}

func (l *logger) Noticef(format string, v ...any) { l.log.Debug().Msgf(format, v...) }
func (l *logger) Debugf(format string, v ...any)  { l.log.Debug().Msgf(format, v...) }
func (l *logger) Tracef(format string, v ...any)  { l.log.Trace().Msgf(format, v...) }
func (l *logger) Warnf(format string, v ...any)   { l.log.Warn().Msgf(format, v...) }

func (l *logger) Errorf(format string, v ...any) {
	l.remember(fmt.Sprintf(format, v...))
	l.log.Error().Msgf(format, v...)
}

// Fatalf does not end the process: Start says that the server cannot run.
func (l *logger) Fatalf(format string, v ...any) {
	l.Errorf(format, v...)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fatal = true
}

// gaveUp reports whether the server said that it cannot run.
func (l *logger) gaveUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}

func (l *logger) remember(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = text
}

func (l *logger) lastError() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}
