package telemetry

import (
	"io"
	"time"

	"github.com/rs/zerolog"
)

// Settings are the options that every service has; its Config embeds them.
type Settings struct {
	LogLevel      string `help:"Least severe level that is logged: trace, debug, info, warn, error." default:"info" enum:"trace,debug,info,warn,error"`
	LogFormat     string `help:"Log as json (for machines) or console (for people)." default:"json" enum:"json,console"`
	HealthAddress string `help:"Answer /healthz and /readyz on this address; empty: nowhere." placeholder:"HOST:PORT"`
}

// Telemetry returns the settings themselves, through whatever embeds them.
func (s Settings) Telemetry() Settings { return s }

// NewLogger returns a logger that writes to w. An empty level is info, an empty
// format is json.
func NewLogger(w io.Writer, s Settings) zerolog.Logger {
	level, err := zerolog.ParseLevel(s.LogLevel)
	if err != nil || s.LogLevel == "" {
		level = zerolog.InfoLevel
	}
	if s.LogFormat == "console" {
		w = zerolog.ConsoleWriter{Out: w, NoColor: true, TimeFormat: "15:04:05.000"}
	}
	return zerolog.New(w).Level(level).Hook(timestamp{})
}

// timestamp gives a line its time in UTC with milliseconds, as messages have
// it; zerolog's own would take the format from a global variable.
type timestamp struct{}

func (timestamp) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(zerolog.TimestampFieldName, time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00"))
}
