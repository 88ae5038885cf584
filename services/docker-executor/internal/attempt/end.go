package attempt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Failure is an end of the attempt that is the task's own fault, with a reason
// for people.
type Failure struct {
	Message string
}

func (f *Failure) Error() string { return f.Message }

// Infrastructure is an end that is ours or the network's.
type Infrastructure struct {
	Message string
}

func (i *Infrastructure) Error() string { return i.Message }

// Timeout is the end of an attempt that took longer than its task may.
type Timeout struct {
	Message string
}

func (t *Timeout) Error() string { return t.Message }

// endOf turns what broke an attempt into its end. An error is returned for an
// end that is not ours to write.
func (a *Attempt) endOf(ctx, lifetime context.Context, err error) (contracts.EntryData, error) {
	var revoked *Revoked
	if errors.As(context.Cause(ctx), &revoked) || errors.As(err, &revoked) {
		return &contracts.Canceled{By: revoked.By, Reason: revoked.Reason}, nil
	}
	switch cause := context.Cause(ctx); {
	case isAny(err, bus.ErrOvertaken, ErrSuperseded), errors.Is(cause, ErrSuperseded):
		return nil, ErrSuperseded
	case !a.begun && isAny(cause, ErrStopping, ErrLeaseLost):
		return a.released(cause), nil
	case !a.begun && errors.Is(err, ErrStopping):
		return a.released(ErrStopping), nil
	case isLeft(ctx, lifetime):
		return nil, ErrStopping
	case errors.Is(cause, ErrLeaseLost):
		return a.failed(contracts.FailureInfrastructure, cause.Error()), nil
	}
	var failure *Failure
	var refusal *policy.Refusal
	var timeout *Timeout
	switch {
	case errors.As(err, &timeout):
		return a.failed(contracts.FailureTimeout, err.Error()), nil
	case errors.As(err, &failure), errors.As(err, &refusal):
		return a.failed(contracts.FailureTask, err.Error()), nil
	case errors.Is(err, engine.ErrUnavailable) && !a.begun:
		// Nothing ran: whoever has an engine may take it, and nothing is counted.
		return a.release(lifetime, err)
	case isEngineError(err) && !engine.IsInfrastructure(err):
		return a.failed(contracts.FailureTask, err.Error()), nil
	default:
		return a.failed(contracts.FailureInfrastructure, err.Error()), nil
	}
}

// maxReleases is how often an offer is given back for want of an engine. One
// that answers, and yet runs nothing, would have it go round for ever. Where it
// has locked up, nothing more is claimed, and there is no end to the patience.
const maxReleases = 5

func (a *Attempt) release(lifetime context.Context, why error) (contracts.EntryData, error) {
	if errors.Is(why, engine.ErrLockedUp) {
		return a.released(why), nil
	}
	releases := 0
	if a.last.Attempt > maxReleases { // each release was an attempt
		life, err := a.tools.Bus.Life(lifetime, a.last.Job)
		if err != nil {
			return nil, err
		}
		for _, entry := range life {
			if entry.Type == contracts.EntryReleased && entry.Offer == a.last.Offer {
				releases++
			}
		}
	}
	if releases >= maxReleases {
		return a.failed(contracts.FailureInfrastructure, fmt.Sprintf("given back %d times already: %v", releases, why)), nil
	}
	return a.released(why), nil
}

func (a *Attempt) released(why error) *contracts.Released {
	a.givenBack = why
	return &contracts.Released{Node: a.tools.Node, Executor: a.tools.Executor, Reason: sized(why.Error())}
}

// isLeft reports whether the attempt is left to whoever adopts it.
func isLeft(ctx, lifetime context.Context) bool {
	return errors.Is(context.Cause(ctx), ErrStopping) || lifetime.Err() != nil
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func isEngineError(err error) bool {
	var e *engine.Error
	return errors.As(err, &e)
}

func (a *Attempt) failed(kind contracts.FailureKind, message string) *contracts.Failed {
	return &contracts.Failed{Kind: kind, Message: sized(message)}
}

// sized makes a reason fit into an entry.
func sized(message string) string {
	message = withoutRepeats(message)
	if len(message) > contracts.MaxErrorSize {
		message = strings.ToValidUTF8(message[:contracts.MaxErrorSize-len(" …")], "") + " …"
	}
	return message
}

// withoutRepeats leaves each line out that was there before: errors that several
// parts of an attempt ended with are often one.
func withoutRepeats(message string) string {
	var lines []string
	for line := range strings.SplitSeq(message, "\n") {
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// failureOf returns the end of a container that did not exit with code 0, nil
// for one that did.
func (a *Attempt) failureOf(exit engine.Exit) *contracts.Failed {
	if exit.EngineLost {
		// An engine that stops ends its containers: even code 0 may be its doing.
		return a.failed(contracts.FailureInfrastructure,
			fmt.Sprintf("the container engine stopped while the container ran (exit code %d)", exit.Code))
	}
	if exit.Code == 0 {
		return nil
	}
	if a.isTimeout(exit) {
		_, hard := a.tools.Policy.Limits(a.task)
		failed := a.failed(contracts.FailureTimeout, fmt.Sprintf("time limit of %s reached, the container was killed", brief(hard)))
		failed.ExitCode = &exit.Code
		return failed
	}
	message := fmt.Sprintf("Non-zero exit code from docker container (%d).", exit.Code)
	switch limit, setting := a.tools.Policy.MemoryLimit(&a.task.Docker.Options); {
	case exit.OOMKilled && limit > 0:
		message += fmt.Sprintf(" It ran out of memory: the limit is %s (%s).", units.BytesSize(float64(limit)), setting)
	case exit.OOMKilled:
		message += " It ran out of memory."
	case exit.Signal == "SIGKILL" && limit > 0: // an engine does not always learn why
		message += fmt.Sprintf(" It was ended by SIGKILL. It may have run out of memory: the limit is %s (%s).", units.BytesSize(float64(limit)), setting)
	case exit.Signal != "":
		message += " It was ended by " + exit.Signal + "."
	}
	if exit.NotRun != "" {
		message += " " + engine.NotRun(exit.NotRun, a.task.Docker.Image, exit.Code)
	}
	if soft, _ := a.tools.Policy.Limits(a.task); a.folder.AskedToEnd {
		message += " Its soft time limit of " + brief(soft) + " had been reached."
	}
	if exit.Error != "" {
		message += " The engine says: " + exit.Error
	}
	failed := a.failed(contracts.FailureTask, message)
	failed.ExitCode, failed.OOMKilled = &exit.Code, exit.OOMKilled
	return failed
}

// clockSkew is how far the engine's clock may be from this one.
const clockSkew = 5 * time.Second

// isTimeout reports whether a container was killed for its time limit, by this
// executor or by the one that had it before.
func (a *Attempt) isTimeout(exit engine.Exit) bool {
	_, hard := a.tools.Policy.Limits(a.task)
	started := a.folder.Timings.Started
	if hard == 0 || exit.OOMKilled || exit.Signal != "SIGKILL" || started.IsZero() {
		return false
	}
	if exit.FinishedAt.IsZero() {
		return a.timedOut
	}
	return exit.FinishedAt.Add(clockSkew).After(started.Add(hard)) && (a.timedOut || !exit.FinishedAt.Before(started.Add(hard)))
}

// maxFiles is how many bytes the files of an entry may take: a message of NATS
// has its limit.
const maxFiles = 128 << 10

// fitting returns those of the files that an entry has room for.
func fitting(files []contracts.GirderSent) []contracts.GirderSent {
	size := 0
	for i := range files {
		data, err := json.Marshal(files[i], jsontext.AllowInvalidUTF8(true))
		if size += len(data) + len(","); err != nil || size > maxFiles {
			return files[:i]
		}
	}
	return files
}

// listed returns the files and warnings of an end, as far as it has room.
func (a *Attempt) listed(files []contracts.GirderSent) ([]contracts.GirderSent, []string) {
	fit, warnings := fitting(files), a.warnings
	if more := len(files) - len(fit); more > 0 {
		warnings = append(warnings, fmt.Sprintf("%d more files are in Girder than are listed here.", more))
	}
	size := 0
	for i, warning := range warnings {
		if size += len(warning) + 16; size > contracts.MaxErrorSize {
			return fit, append(warnings[:i:i], fmt.Sprintf("There are %d more warnings.", len(warnings)-i))
		}
	}
	return fit, warnings
}

// salvage has the artifacts of a container that failed attached to the Girder
// job, where the task asks for that.
func (a *Attempt) salvage(ctx, lifetime context.Context, end contracts.EntryData) error {
	failed, ok := end.(*contracts.Failed)
	if !ok || !a.exited && a.folder.Exit == nil || ctx.Err() != nil || failed.Kind != contracts.FailureTask && failed.Kind != contracts.FailureTimeout {
		return nil
	}
	failed.Outputs = append(a.outputs, a.pushArtifacts(ctx, lifetime)...)
	if isLeft(ctx, lifetime) {
		return ErrStopping
	}
	return nil
}

// removePatience is how long the removal of a container is tried whose engine
// says nothing of it any more.
const removePatience = time.Minute

// makeSure removes a container that may still run before another attempt begins
// elsewhere, unless its engine stays away.
func (a *Attempt) makeSure(ctx, lifetime context.Context) {
	if !a.begun || a.exited || a.folder.Exit != nil || a.container == "" {
		return
	}
	trying, stop := context.WithTimeout(lifetime, removePatience)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	for {
		err := a.tools.RemoveContainers(trying, a.folder)
		if err == nil || trying.Err() != nil {
			return
		}
		a.log.Warn().Err(err).Msg("container that may still run is not removed, trying again")
		pause(trying, signalRetry)
	}
}

// write puts the end into the job's life. A revoke that arrives before the end
// is written turns it into a cancel.
func (a *Attempt) write(ctx, lifetime context.Context, end contracts.EntryData) (done bool, err error) {
	var revoked *Revoked
	if errors.As(context.Cause(ctx), &revoked) {
		end = &contracts.Canceled{By: revoked.By, Reason: revoked.Reason}
	}
	a.settleLog(lifetime)
	timings := a.folder.Timings
	timings.Ended = time.Now().UTC()
	switch e := end.(type) {
	case *contracts.Succeeded:
		e.Timings, e.LogSeq = timings, a.logSeq
		e.Outputs, e.Warnings = a.listed(e.Outputs)
	case *contracts.Failed:
		e.Timings, e.LogSeq = timings, a.logSeq
		e.Outputs, e.Warnings = a.listed(e.Outputs)
		if e.DecideRetry(a.task.Retry, a.last.Entry, time.Now()); e.WillRetry {
			a.makeSure(ctx, lifetime)
			e.DecideRetry(a.task.Retry, a.last.Entry, time.Now())
		}
	case *contracts.Canceled:
		e.LogSeq = a.logSeq
		err = a.tellCanceling(lifetime, e.By, e.Reason)
	}
	if err == nil {
		err = a.append(lifetime, end)
	}
	if err != nil {
		return false, err
	}
	a.logEnd(end)
	_, released := end.(*contracts.Released)
	return !released, nil
}

// tellCanceling says once that the attempt is being stopped.
func (a *Attempt) tellCanceling(lifetime context.Context, by, reason string) error {
	if a.canceling != nil {
		return nil
	}
	a.canceling = &contracts.Canceling{By: by, Reason: reason}
	return a.append(lifetime, a.canceling)
}

func (a *Attempt) logEnd(end contracts.EntryData) {
	event := a.log.Info()
	switch e := end.(type) {
	case *contracts.Failed:
		event = event.Str("kind", string(e.Kind)).Str("reason", e.Message).Bool("will_retry", e.WillRetry)
	case *contracts.Released:
		if errors.Is(a.givenBack, engine.ErrUnavailable) {
			event = a.log.Warn()
		}
		event = event.Str("reason", e.Reason)
	}
	event.Msg("attempt " + string(end.EntryType()))
}
