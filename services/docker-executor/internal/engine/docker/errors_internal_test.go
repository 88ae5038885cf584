package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// answer is an error as the client makes it of the engine's answer.
func answer(class error, text string) error {
	return fmt.Errorf("Error response from daemon: %s%w", text, quiet{class})
}

// quiet is an error that has a class and says nothing.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

// The texts are those of engines from 20.10 to 28.
func TestKinds(t *testing.T) {
	t.Parallel()
	internal, invalid, missing, conflict := errdefs.ErrInternal, errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrConflict
	for _, test := range []struct {
		call func(error) error
		err  error
		want error
	}{
		{createKind, answer(missing, "No such image: tool:1"), engine.ErrImageNotFound},
		{createKind, answer(missing, "No such container: gone"), engine.ErrRefused},
		{createKind, answer(conflict, `Conflict. The container name "/a" is already in use by container "b"`), engine.ErrNameConflict},
		{createKind, answer(conflict, "conflicting options: hostname and the network mode"), engine.ErrRefused},
		{createKind, answer(invalid, "Unknown runtime specified nvidia"), engine.ErrNoDriver},
		{createKind, answer(invalid, "unknown or invalid runtime name: nvidia"), engine.ErrNoDriver},
		{createKind, answer(invalid, "Minimum memory limit allowed is 6MB"), engine.ErrRefused},
		{createKind, answer(internal, "mkdir /var/lib/docker/overlay2/x: no space left on device"), engine.ErrNoSpace},
		{createKind, io.ErrUnexpectedEOF, engine.ErrUnavailable},
		{createKind, answer(internal, "Cannot mkdir: /bin/sh is not a directory"), engine.ErrRefused},
		{createKind, fmt.Errorf("create: %w", context.DeadlineExceeded), engine.ErrSilent},
		{startKind, fmt.Errorf("start: %w", context.DeadlineExceeded), engine.ErrSilent},
		{kindOf, fmt.Errorf("inspect: %w", context.DeadlineExceeded), engine.ErrUnavailable},
		{startKind, answer(internal, "invalid tmpfs option [\"foo=bar\"]"), engine.ErrCannotStart},
		{startKind, answer(internal, "Unable to find group nogroup: no matching entries in group file"), engine.ErrCannotStart},
		{startKind, answer(internal, "Unable to find user nobody: no matching entries in passwd file"), engine.ErrCannotStart},
		{startKind, answer(internal, `could not select device driver "" with capabilities: [[gpu]]`), engine.ErrNoDriver},
		{startKind, answer(internal, `could not select device driver "nvidia" with capabilities: [[gpu]]`), engine.ErrNoDriver},
		{startKind, answer(internal, "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=all"), engine.ErrNoDriver},
		{startKind, answer(internal, "failed to discover GPU vendor from CDI: no known GPU vendor found"), engine.ErrNoDriver},
		{startKind, answer(internal, "OCI runtime create failed: container_linux.go:349: starting container process caused \"process_linux.go:449: container init caused \\\"process_linux.go:432: running prestart hook 0 caused \\\\\\\"error running hook: exit status 1, stdout: , stderr: nvidia-container-cli: initialization error: driver error: failed to process request\\\\\\\\n\\\\\\\"\\\"\": unknown"), engine.ErrNoDriver},
		{startKind, answer(internal, "failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error: exec: \"nvidia-container-runtime\": executable file not found in $PATH: unknown"), engine.ErrNoDriver},
		{startKind, answer(internal, "unknown or invalid runtime name: nvidia"), engine.ErrNoDriver},
		{startKind, answer(internal, `OCI runtime create failed: runc create failed: unable to start container process: exec: "tool": executable file not found in $PATH: unknown`), engine.ErrCannotStart},
		{startKind, answer(internal, "OCI runtime create failed: fork: cannot allocate memory: unknown"), engine.ErrFailed},
		{startKind, answer(missing, "No such container: gone"), engine.ErrNotFound},
		{startKind, answer(missing, "network lab not found"), engine.ErrCannotStart},
		{startKind, answer(internal, "stat /dev/nope: no such file or directory"), engine.ErrCannotStart},
		{startKind, answer(internal, "OCI runtime create failed: unable to retrieve OCI runtime error (open /run/containerd/io.containerd.runtime.v2.task/moby/x/log.json: no such file or directory): runc did not terminate successfully: signal: killed: unknown"), engine.ErrFailed},
		{startKind, answer(internal, "OCI runtime create failed: unable to retrieve OCI runtime error (open /run/containerd/io.containerd.runtime.v2.task/moby/x/log.json: no such file or directory): other did not terminate successfully: exit status 127: unknown"), engine.ErrCannotStart},
		{startKind, answer(internal, `failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: unable to apply cgroup configuration: unable to start unit "docker-x.scope": dial unix /run/systemd/private: connect: connection refused: unknown`), engine.ErrFailed},
		{startKind, answer(internal, "OCI runtime create failed: runc create failed: unable to start container process: error mounting /x: device or resource busy: unknown"), engine.ErrFailed},
		{startKind, answer(internal, "OCI runtime create failed: container_linux.go:380: process_linux.go:545: container init caused: process_linux.go:508: read init-p: connection reset by peer: unknown"), engine.ErrFailed},
		{startKind, answer(internal, "OCI runtime create failed: context canceled: unknown"), engine.ErrFailed},
		{startKind, answer(internal, `connection error: desc = "transport: error while dialing: dial unix /run/containerd/containerd.sock: connect: connection refused"`), engine.ErrUnavailable},
		{startKind, answer(invalid, `connection error: desc = "transport: Error while dialing: dial unix /run/containerd/containerd.sock: connect: no such file or directory"`), engine.ErrUnavailable},
		{startKind, answer(internal, "transport is closing: unavailable"), engine.ErrUnavailable},
		{startKind, answer(internal, "grpc: the client connection is closing: unknown"), engine.ErrUnavailable},
		{startKind, answer(internal, "failed to create shim task: ttrpc: closed: unknown"), engine.ErrUnavailable},
		{startKind, answer(invalid, `failed to create task for container: OCI runtime create failed: exec: "/no/such": stat /no/such: no such file or directory`), engine.ErrCannotStart},
		{kindOf, answer(invalid, "client version 1.41 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version"), engine.ErrOtherVersion},
		{createKind, answer(invalid, "client version 1.51 is too new. Maximum supported API version is 1.41"), engine.ErrOtherVersion},
		{startKind, answer(invalid, "client version 1.51 is too new. Maximum supported API version is 1.41"), engine.ErrUnavailable},
		{pullKind, answer(invalid, "client version 1.51 is too new. Maximum supported API version is 1.41"), engine.ErrOtherVersion},
		{kindOf, answer(internal, `Cannot kill container: x: connection error: desc = "transport: error while dialing"`), engine.ErrUnavailable},
		{kindOf, answer(internal, "plugin x failed with error: AuthZPlugin.AuthZReq: connection refused"), engine.ErrFailed},
		{createKind, answer(internal, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"), engine.ErrRefused},
		{pullKind, answer(missing, "manifest for tool:1 not found: manifest unknown: manifest unknown"), engine.ErrImageNotFound},
		{pullKind, answer(missing, "pull access denied for tool, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"), engine.ErrPullDenied},
		{pullKind, answer(internal, "Get https://registry/v2/: unauthorized: authentication required"), engine.ErrPullDenied},
		{pullKind, answer(internal, "failed to register layer: Error processing tar file(exit status 1): write /x: no space left on device"), engine.ErrNoSpace},
		{pullKind, answer(internal, "toomanyrequests: You have reached your pull rate limit"), engine.ErrRegistryUnavailable},
		{pullKind, answer(internal, "Get https://registry/v2/: dial tcp: lookup registry: no such host"), engine.ErrRegistryUnavailable},
		{pullKind, answer(internal, "Get https://registry/v2/: net/http: TLS handshake timeout"), engine.ErrRegistryUnavailable},
		{pullKind, answer(internal, "no matching manifest for linux/arm64 in the manifest list entries"), engine.ErrImageNotFound},
		{pullKind, answer(internal, "failed to register layer: layer does not exist"), engine.ErrRegistryUnavailable},
		{pullKind, answer(internal, "Get https://registry/v2/: dial tcp 10.1.1.1:443: connect: permission denied"), engine.ErrRegistryUnavailable},
		{pullKind, io.ErrUnexpectedEOF, engine.ErrUnavailable},
	} {
		if got := test.call(test.err); !errors.Is(got, test.want) {
			t.Errorf("%q: %v, want %v", test.err, got, test.want)
		}
	}
}

// The words are those of runc and of tini, as engines hand them on.
func TestProgramsThatCannotRun(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		`exec: "tool": executable file not found in $PATH`:                                                      codeMissing,
		`OCI runtime create failed: container_linux.go:380: exec: "tool": stat tool: no such file or directory`: codeMissing,
		`exec: "tool": permission denied`:                                                                       codeNotExecutable,
		`exec: "tool": is a directory`:                                                                          codeNotExecutable,
		`exec: "other-runtime": executable file not found in $PATH`:                                             0,
		`error mounting "tool": not a directory`:                                                                0,
	} {
		if code, ok := cannotExec(text, "tool"); code != want || ok != (want != 0) {
			t.Errorf("%s: %d, %t, want %d", text, code, ok, want)
		}
	}
	for said, want := range map[string]string{
		"[FATAL tini (7)] exec /no/such failed: No such file or directory\n": "/no/such",
		"[FATAL tini (123)] exec a b failed: Permission denied":              "a b",
		"[WARN  tini (7)] Tini is not running as PID 1\n":                    "",
		"[FATAL tini (7)] exec a failed: b\nmore\n":                          "",
		"sh: tool: not found\n":                                              "",
	} {
		if got := notRunByInit(said); got != want {
			t.Errorf("%q: %q, want %q", said, got, want)
		}
	}
}
