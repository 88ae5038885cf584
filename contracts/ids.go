package contracts

import (
	"crypto/rand"
	"fmt"
	"regexp"
	"strings"

	"github.com/oklog/ulid/v2"
)

// JobID names a job: 1 to 64 characters of A-Z a-z 0-9 _ and -. It is a token
// of many subjects and a key in several buckets.
type JobID string

// Queue is where tasks wait by name: 1 to 32 characters of a-z 0-9 _ and -.
type Queue string

// NodeID names a node, that is one work folder: same rule as [Queue].
type NodeID string

// ExecutorID names one running executor process: same rule as [Queue].
type ExecutorID string

// DefaultQueue is the queue of a task that names none.
const DefaultQueue Queue = "default"

// Kind says which sort of executor takes a task: "docker" or "plugin-<name>".
type Kind string

// KindDocker is the kind of docker_run tasks.
const KindDocker Kind = "docker"

// Lane is the priority class of a ready message.
type Lane string

// The lanes, most urgent first.
const (
	LaneHigh   Lane = "high"   // priority 7 to 9
	LaneNormal Lane = "normal" // priority 4 to 6
	LaneLow    Lane = "low"    // priority 0 to 3
)

// Lanes lists the lanes, most urgent first.
var Lanes = []Lane{LaneHigh, LaneNormal, LaneLow}

// LaneOf returns the lane of a priority from 0 to 9.
func LaneOf(priority int) Lane {
	switch {
	case priority >= 7:
		return LaneHigh
	case priority >= 4:
		return LaneNormal
	default:
		return LaneLow
	}
}

var (
	jobIDPattern    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	namePattern     = regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)
	girderIDPattern = regexp.MustCompile(`^[0-9a-f]{24}$`)
)

// ParseJobID checks s against the rule of [JobID].
func ParseJobID(s string) (JobID, error) {
	if !jobIDPattern.MatchString(s) {
		return "", fmt.Errorf("%q is not a job id (1 to 64 characters of A-Z a-z 0-9 _ -)", s)
	}
	return JobID(s), nil
}

// ParseName checks s against the rule of names of queues, nodes and executors.
func ParseName[T ~string](s string) (T, error) {
	if !namePattern.MatchString(s) {
		return "", fmt.Errorf("%q is not a name (1 to 32 characters of a-z 0-9 _ -)", s)
	}
	return T(s), nil
}

// NewJobID returns a new ULID.
func NewJobID() JobID { return JobID(ulid.Make().String()) }

// NewToken returns 26 random characters of a-z and 2-7, for entry ids, executor
// names and whatever else must not collide.
func NewToken() string { return strings.ToLower(rand.Text()) }
