package contracts

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
)

// DefaultGrace is the time between the stop signal and SIGKILL where a revoke
// gives none.
const DefaultGrace = 10 * time.Second

// DefaultStopSignal is the stop signal where a revoke gives none.
const DefaultStopSignal = "SIGTERM"

// Revoke is the broadcast order to end a job, on [RevokeSubject]. It is kept
// for 7 days and applies also to a task that arrives later.
type Revoke struct {
	Version int   `json:"version"`
	Job     JobID `json:"job"`
	// Terminate is true: a running task is stopped.
	Terminate bool `json:"terminate"`
	// Signal is the stop signal by name; if empty, the container's own, else SIGTERM.
	Signal string `json:"signal,omitempty"`
	// Grace is the time from the signal to SIGKILL, at most the executor's
	// max_grace; absent means [DefaultGrace].
	Grace *Duration `json:"grace,omitempty"`
	// By and Reason are for people.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// SignalOrDefault returns the stop signal for a container that has none of its own.
func (r *Revoke) SignalOrDefault() string {
	if r.Signal == "" {
		return DefaultStopSignal
	}
	return r.Signal
}

// GraceOrDefault returns the time from the stop signal to SIGKILL.
func (r *Revoke) GraceOrDefault() time.Duration {
	if r.Grace == nil {
		return DefaultGrace
	}
	return time.Duration(*r.Grace)
}

// DecodeRevoke reads a revoke and checks that it is for the given job.
func DecodeRevoke(data []byte, job JobID) (*Revoke, error) {
	var revoke Revoke
	if err := json.Unmarshal(data, &revoke); err != nil {
		return nil, fmt.Errorf("decode revoke: %w", err)
	}
	if revoke.Job != job {
		return nil, fmt.Errorf("decode revoke: field job is %q, the subject's is %q", revoke.Job, job)
	}
	return &revoke, nil
}
