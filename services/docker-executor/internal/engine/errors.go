package engine

import (
	"context"
	"errors"
	"fmt"
)

// The kinds of errors that an engine returns, each wrapped in an *Error that
// says what was done to what. Test for them with errors.Is.
var (
	// ErrImageNotFound: the engine (Image, Create, pull policy never) or the
	// registry (Pull) has no such image.
	ErrImageNotFound = errors.New("image not found")

	// ErrPullDenied: the registry wants credentials, or other ones. Some
	// registries answer so for images that do not exist.
	ErrPullDenied = errors.New("pull denied")

	// ErrRefused: the engine does not accept what it was asked for, for example a
	// malformed image name or a memory limit below its minimum.
	ErrRefused = errors.New("refused by the engine")

	// ErrCannotStart: the container exists and its program cannot be run.
	ErrCannotStart = errors.New("container cannot start")

	// ErrNoDriver: the engine has no runtime of the name that was asked for
	// (Create), or nothing that gives the container the devices of a device
	// request (Start): mostly a GPU. The container may be tried again without, as
	// another one; one that could not start is to be removed as any other.
	ErrNoDriver = errors.New("no such runtime or device driver on the engine")

	// ErrNameConflict: another container holds the name.
	ErrNameConflict = errors.New("container name in use")

	// ErrNotFound: no such container (any more). Somebody else removed it.
	ErrNotFound = errors.New("container not found")

	// ErrNoSpace: the disk of the engine is full.
	ErrNoSpace = errors.New("no space left on the engine's disk")

	// ErrRegistryUnavailable: the registry cannot be reached, fails, or went
	// silent in the middle of a pull.
	ErrRegistryUnavailable = errors.New("registry unavailable")

	// ErrUnavailable: the engine does not answer.
	ErrUnavailable = errors.New("container engine unavailable")

	// ErrSilent: a call ran into its time limit without an answer of the engine.
	// It is an ErrUnavailable.
	ErrSilent = fmt.Errorf("%w: it gives no answer", ErrUnavailable)

	// ErrLockedUp: a call got no answer, nor did another one that takes a working
	// engine no time, see Watched. It is an ErrSilent.
	ErrLockedUp = fmt.Errorf("%w, has locked up or its host is overloaded", ErrSilent)

	// ErrOtherVersion: the engine was exchanged for one that does not speak the
	// version of its API that was agreed upon with the former one. It is an
	// ErrUnavailable.
	ErrOtherVersion = fmt.Errorf("%w: it speaks another version of its API", ErrUnavailable)

	// ErrFailed: the engine reports a fault of its own that fits no other kind.
	ErrFailed = errors.New("container engine failed")
)

const restartDocker = `if that stays so, restart Docker (deploy/README.md, "The Docker engine")`

// advice is what a reader can do about an error of each kind.
var advice = map[error]string{
	ErrImageNotFound:       "check its name and tag, and the task's pull policy",
	ErrPullDenied:          "check the image's name, and that the executor's Docker config has credentials for its registry",
	ErrNoDriver:            "install it there (for GPUs: NVIDIA's container toolkit), or send the task to a queue of nodes that have it",
	ErrNameConflict:        "choose another name, or remove that container",
	ErrNoSpace:             "free some space there",
	ErrRegistryUnavailable: "check that the engine's host reaches the registry",
	ErrUnavailable:         "check that it runs, and that the executor may use its socket",
	ErrSilent:              restartDocker,
	ErrLockedUp:            restartDocker,
	ErrOtherVersion:        "if that stays so, check the engine's version, and that the executor has no DOCKER_API_VERSION",
}

// Error is an error of the engine: what was done, to what, the kind of failure,
// and the engine's own words.
type Error struct {
	Op      string // "pull", "start", …
	Subject string // "image busybox:1.36", "container gantry-01JD"
	Kind    error  // one of the sentinels of this package
	Detail  string // in the engine's words, may be empty
}

// Error returns one sentence that names the subject and says what to do.
func (e *Error) Error() string {
	text := e.Op + " " + e.Subject + ": " + e.Kind.Error()
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if a := advice[e.Kind]; a != "" {
		text += "; " + a
	}
	return text
}

// NotRun says that a program of an image could not be run, why by the exit code
// that stands for it, as in a shell (126: not executable, else missing), and what
// to do.
func NotRun(program, image string, code int) string {
	if code == 126 {
		return fmt.Sprintf("The program %q of image %s may not be executed: check its mode, the user of the container (docker.options.user), "+
			"and the task's docker.entrypoint and docker.args.", program, image)
	}
	return fmt.Sprintf("The program %q is not in image %s, or an interpreter that it needs is not: check the task's docker.entrypoint and docker.args, "+
		"and the image's own entrypoint.", program, image)
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// IsInfrastructure reports whether an error of this package is ours, so that
// the same task may well succeed on another try. An error of no known kind
// counts as ours; a context that ended is nobody's fault.
func IsInfrastructure(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	for _, own := range []error{ErrImageNotFound, ErrPullDenied, ErrRefused, ErrCannotStart, ErrNoDriver, ErrNameConflict} {
		if errors.Is(err, own) {
			return false
		}
	}
	return true
}
