package engine

import (
	"context"
	"time"

	"github.com/gantry-worker/gantry/services/docker-executor/removetree"
)

// Engine runs the containers of attempts.
//
// Order: Create, Start, then Logs and Wait side by side, then Remove. Signal
// may be called at any time after Start. Remove is safe at any point and more
// than once. All methods may be called concurrently, also for one container.
//
// A process that adopts a container of another one begins with List, then Logs
// (from the position that the other one stored) and Wait.
type Engine interface {
	ImageStore

	// Create makes a container and does not start it. The image has to be
	// present: a missing one is ErrImageNotFound, nothing is pulled. A name that
	// another container holds is ErrNameConflict, a runtime that the engine does
	// not have ErrNoDriver.
	Create(ctx context.Context, spec Spec) (id string, err error)

	// Start starts a created container; one that was started before is left alone,
	// also if it has ended. ErrCannotStart is the task's own fault, for example a
	// program that the image does not have. ErrNoDriver says that nothing gives it
	// the devices that it requests.
	Start(ctx context.Context, id string) error

	// Logs hands every record that the container wrote to these streams after
	// since to emit, in the order of each stream, until the container has ended
	// and all is read. It returns the position behind the last record that emit
	// took, also with an error, so that another call can go on there; the mark of
	// a stream that was not read stays. An error of emit ends it. An emit that
	// takes its time delays nobody else who reads the same container's log.
	Logs(ctx context.Context, id string, streams Streams, since Position, emit func(Frame) error) (Position, error)

	// Wait returns when a started container has ended, at once when it already
	// has. It outlives a broken connection, and an engine that is away for a
	// while.
	//
	// began is what Run said before the container was started, or at any later
	// time while it still ran: so an adopter can tell that the engine was
	// restarted meanwhile, see Exit.EngineLost. The zero value stands for a
	// caller that does not know.
	Wait(ctx context.Context, id string, began Run) (Exit, error)

	// Signal sends a signal such as "SIGTERM" to the container's first process. A
	// container that has ended is no error: the signal came too late, that is all.
	Signal(ctx context.Context, id, signal string) error

	// Remove kills the container if it runs and removes it. One that does not
	// exist is no error.
	Remove(ctx context.Context, id string) error

	// List returns the containers that carry all these labels, whatever their
	// state is.
	List(ctx context.Context, labels map[string]string) ([]Container, error)

	// Ping returns nil when the engine answers, else ErrUnavailable.
	Ping(ctx context.Context) error

	// ID identifies this engine among all engines, for as long as it lives.
	ID(ctx context.Context) (string, error)

	// Run returns the engine's present run, from its start to its end.
	Run(ctx context.Context) (Run, error)

	// RemoveTree removes all that is in a folder of the engine's host, whoever owns
	// it, and not the folder. No symbolic link is followed, and nothing that is
	// mounted below it is touched. What cannot be removed stays and is named in the
	// error; all else is removed all the same. Where the path has come to lead to
	// another folder than id, nothing is removed, and that is an error. The labels, and LabelHelper, are on
	// the container that does it, which is gone afterwards.
	RemoveTree(ctx context.Context, hostPath string, id removetree.ID, labels map[string]string) error

	// Self returns the container of this engine that this process runs in, nil
	// where it runs in none. It is never another one: where that cannot be told,
	// it is an error.
	Self(ctx context.Context) (*Self, error)
}

// LabelHelper is on the containers that do Gantry's own work, with what they do,
// and on the image that they are made of.
const LabelHelper = "gantry.helper"

// ImageStore is the part of an engine that Images builds on.
type ImageStore interface {
	// Image returns a present image, or ErrImageNotFound.
	Image(ctx context.Context, ref string) (Image, error)

	// Pull fetches an image from its registry, also when it is present, and tells
	// progress (never concurrently) how far it is.
	Pull(ctx context.Context, ref string, progress func(PullProgress)) error
}

// Image is one image of the engine's store.
type Image struct {
	ID     string            // of its content on this engine
	Digest string            // in the registry it came from; empty for one that was built here
	Labels map[string]string // of its configuration
	// StopSignal is what its containers want to be stopped with, empty where it
	// does not say.
	StopSignal string
}

// PullProgress says how far a pull is.
type PullProgress struct {
	Done, Total int64  // bytes of all layers known so far
	Layer       string // that this message is about, may be empty
	Status      string // in the engine's words, for example "Downloading"
}

// State is where a container is in its life.
type State string

// The states of a container. An engine's states in between count as Running.
const (
	Created State = "created"
	Running State = "running"
	Exited  State = "exited"
	// Removing is a container that somebody began to remove: it never runs again,
	// and has neither an exit nor a log.
	Removing State = "removing"
)

// Container is one entry of a List.
type Container struct {
	ID     string
	Name   string
	Image  string // as it was named at Create
	State  State
	Labels map[string]string
}

// Exit is how a container ended. It is a result, not an error.
type Exit struct {
	Code       int
	Signal     string // "SIGKILL" for code 137, empty where the code names none
	OOMKilled  bool   // it or one of its processes went over the memory limit
	Error      string // what the engine has to say about it, mostly empty
	FinishedAt time.Time

	// NotRun names the program that the container's init could not run, which is
	// why it ended; empty where the program ran.
	NotRun string

	// EngineLost says that the engine may have ended the container and not the
	// task itself: an engine that stops ends its containers. It is set where the
	// container did not outlive the run of the engine that Wait was told, unless
	// it is known to have ended by itself before; or, where Wait was told none,
	// when the connection to the engine had broken before the container ended.
	EngineLost bool
}

// Run is one run of an engine. It is plain data that an adopter gets from the
// one who had the container before.
type Run struct {
	// ID differs from run to run. It is empty for an engine that does not tell
	// its runs apart.
	ID string `json:"id,omitempty"`
	// Seen is when this run was known to be alive, by the engine's clock.
	Seen time.Time `json:"seen,omitzero"`
	// Host differs from one start of the engine's host to the next, where that is
	// known. No container outlives it.
	Host string `json:"host,omitempty"`
	// Keeps says that containers live on when the run ends.
	Keeps bool `json:"keeps,omitempty"`
}

// Ended reports whether a container that has ended at some time may have been
// ended along with the run r, when the engine's present run is another one.
func (r Run) Ended(present Run, at time.Time) bool {
	switch {
	case at.Before(r.Seen):
		return false // r lived on
	case r.Host != present.Host:
		return true
	case r.Keeps && present.Keeps:
		return false
	}
	return r.ID != present.ID
}
