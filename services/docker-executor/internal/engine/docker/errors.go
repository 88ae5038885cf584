package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// The engine tells many faults apart by text alone. All comparing of texts is
// in this file; the rest of the project sees kinds.

// wrap makes an engine.Error of what the client returned. ctx is the caller's,
// so that its end is not taken for an engine that does not answer.
func (e *Engine) wrap(ctx context.Context, op, subject string, err error) error {
	return e.wrapAs(ctx, op, subject, err, kindOf)
}

func (e *Engine) wrapAs(ctx context.Context, op, subject string, err error, kind func(error) error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s: %w", op, subject, context.Cause(ctx))
	}
	if known := (*engine.Error)(nil); errors.As(err, &known) {
		return err
	}
	e.renew(ctx, err)
	return &engine.Error{Op: op, Subject: subject, Kind: kind(err), Detail: detail(err)}
}

// detail is the engine's text without what every one of them begins with.
func detail(err error) string {
	text := strings.TrimSpace(err.Error())
	text = strings.TrimPrefix(text, "Error response from daemon: ")
	if _, after, found := strings.Cut(text, "unable to start container process: "); found {
		text = after
	}
	return strings.TrimSuffix(text, ": unknown")
}

// kindOf sorts an error of any call.
func kindOf(err error) error {
	switch {
	case noSpace(err):
		return engine.ErrNoSpace
	case errors.Is(err, context.DeadlineExceeded):
		return engine.ErrSilent
	case disconnected(err), errdefs.IsUnavailable(err), saysNoContainerd(err):
		return engine.ErrUnavailable
	case saysOtherVersion(err):
		return engine.ErrOtherVersion
	case errdefs.IsNotFound(err):
		return engine.ErrNotFound
	case errdefs.IsInvalidArgument(err):
		return engine.ErrRefused
	default:
		return engine.ErrFailed
	}
}

// createKind sorts an error of Create: there not found means the image, and a
// conflict means the name.
func createKind(err error) error {
	switch {
	case errdefs.IsNotFound(err) && says(err, "no such image"):
		return engine.ErrImageNotFound
	case errdefs.IsNotFound(err):
		return engine.ErrRefused // for example container:<id> of a container that is gone
	case errdefs.IsConflict(err) && says(err, "container name"):
		return engine.ErrNameConflict
	case errdefs.IsConflict(err):
		return engine.ErrRefused
	case saysNoRuntime(err):
		return engine.ErrNoDriver
	case says(err, "--storage-opt"):
		return engine.ErrRefused // options that the engine's own storage does not have
	case says(err, "cannot mkdir") && says(err, "is not a directory"):
		return engine.ErrRefused // a working_dir that is a file of the image
	default:
		return kindOf(err)
	}
}

// startKind sorts an error of Start: what the runtime cannot run is the task's
// fault, unless the host ran out of something.
func startKind(err error) error {
	kind := kindOf(err)
	switch {
	case kind == engine.ErrNoSpace, errors.Is(kind, engine.ErrUnavailable):
		return kind
	case says(err, "no such container"):
		return engine.ErrNotFound
	case saysNoRuntime(err), saysNoDevices(err):
		return engine.ErrNoDriver
	case saysPassing(err):
		return engine.ErrFailed
	case kind == engine.ErrRefused, kind == engine.ErrNotFound: // such as a network that does not exist
		return engine.ErrCannotStart
	case says(err, "oci runtime create failed", "unable to find user", "no matching entries in passwd",
		"unable to find group", "no matching entries in group", "invalid tmpfs option", "stat /dev/", "gathering device information"):
		return engine.ErrCannotStart
	default:
		return kind
	}
}

// pullKind sorts an error of a pull. Most of them are texts in an answer with
// status 200.
func pullKind(err error) error {
	switch {
	case noSpace(err):
		return engine.ErrNoSpace
	case disconnected(err) && !says(err, "error response from daemon"):
		return engine.ErrUnavailable
	case saysOtherVersion(err):
		return engine.ErrOtherVersion
	case says(err, "connect: permission denied", "layer does not exist"): // a firewall; another pull's or a removal's doing
		return engine.ErrRegistryUnavailable
	case says(err, "denied", "unauthorized", "no basic auth credentials", "authentication required", "forbidden"):
		return engine.ErrPullDenied
	case says(err, "manifest unknown", "name unknown", "not found", "does not exist", "no matching manifest"):
		return engine.ErrImageNotFound
	case errdefs.IsInvalidArgument(err), says(err, "invalid reference format"):
		return engine.ErrRefused
	case says(err, "unsupported media type", "schema version", "manifest invalid", "verification failed"):
		return engine.ErrRefused
	default: // timeouts, refused connections, 5xx, too many requests, broken layers
		return engine.ErrRegistryUnavailable
	}
}

// saysNoRuntime: in the words of engines before 23.0, and of later ones.
func saysNoRuntime(err error) bool {
	return says(err, "unknown runtime specified", "unknown or invalid runtime name")
}

// saysNoDevices: no driver took the request, or none of the vendors' files
// describes such devices; or NVIDIA's programs, which carry a request out, are
// not all there or find no GPU.
func saysNoDevices(err error) bool {
	return says(err, "could not select device driver", "cdi device injection failed", "vendor from cdi", "nvidia-container-")
}

// saysNoContainerd: the engine answers, and what runs its containers is being
// restarted.
func saysNoContainerd(err error) bool {
	return says(err, "connection error: desc", "error while dialing", "transport is closing", "client connection is closing", "ttrpc: closed")
}

// saysOtherVersion: the engine was exchanged for one that does not speak the
// version of its API that was agreed upon with the former one.
func saysOtherVersion(err error) bool {
	return says(err, "client version") && says(err, "is too old", "is too new")
}

// saysPassing: the host, or what the runtime needs of it, was short of something
// for the moment, whatever the task is.
func saysPassing(err error) bool {
	return says(err, "cannot allocate memory", "resource temporarily unavailable", "too many open files", "context deadline",
		"context canceled", "did not terminate successfully: signal", "device or resource busy", "connection reset by peer", "/run/systemd/private")
}

// cannotExec reports whether a runtime's words are about a container's program,
// which it cannot run, and the exit code that stands for the reason.
func cannotExec(detail, program string) (code int, ok bool) {
	at := strings.Index(detail, fmt.Sprintf("exec: %q", program))
	switch {
	case at < 0:
		return 0, false
	case strings.Contains(detail[at:], "permission denied"), strings.Contains(detail[at:], "is a directory"):
		return codeNotExecutable, true
	default: // "executable file not found in $PATH", "no such file or directory"
		return codeMissing, true
	}
}

// initsWords are those of the init that engines bring along, where it cannot run
// the program.
var initsWords = regexp.MustCompile(`^\[FATAL tini \(\d+\)\] exec (.+) failed: [^\n]+\n?$`)

// notRunByInit returns the program that a container's init says it could not
// run, empty for other words.
func notRunByInit(said string) string {
	if words := initsWords.FindStringSubmatch(said); words != nil {
		return words[1]
	}
	return ""
}

func noSpace(err error) bool { return says(err, "no space left on device", "disk quota exceeded") }

// disconnected reports whether the engine could not be reached, or broke off.
func disconnected(err error) bool {
	var netErr net.Error
	return client.IsErrConnectionFailed(err) ||
		errors.As(err, &netErr) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded)
}

// brokeOff reports whether what the engine was asked for may well come when it is
// asked again: it could not be reached, or had a fault of its own, as on its way
// down or up, or while a plugin that it asks is.
func brokeOff(err error) bool {
	return disconnected(err) || errdefs.IsInternal(err) || errors.Is(kindOf(err), engine.ErrUnavailable)
}

// says reports whether the error's text has one of the phrases, given in lower
// case.
func says(err error, phrases ...string) bool {
	text := strings.ToLower(err.Error())
	for _, p := range phrases {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}
