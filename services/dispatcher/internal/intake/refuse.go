package intake

import (
	"context"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/cancel"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/deadletter"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// refuse keeps a dead letter, and where the specification has an id that is
// free, the job ends as rejected, so that whoever waits for it is told. A job
// that an earlier delivery of the submission queued stays queued: the task was
// taken, whatever is known of its queue now.
func (i *Intake) refuse(ctx context.Context, s submission, task *contracts.Task, why *contracts.InvalidTaskError) error {
	reason := deadletter.Reason(why)
	if task.ID != "" {
		switch err := i.reject(ctx, s, task, reason); {
		case errors.Is(err, errTaken):
			return nil
		case err != nil && !errors.Is(err, errUsedID):
			return err
		}
	}
	zerolog.Ctx(ctx).Warn().Str("job", string(task.ID)).Str("reason", reason).Msg("task refused")
	return deadletter.Keep(ctx, i.Bus, deadletter.Letter{
		Job: task.ID, Queue: task.QueueOrDefault(), Reason: reason, Payload: s.payload, Submission: s.seq,
	})
}

var errTaken = errors.New("the task was taken before")

func (i *Intake) reject(ctx context.Context, s submission, task *contracts.Task, reason string) error {
	redacted, secrets, err := task.Redact()
	if err != nil {
		return err
	}
	last, err := i.begin(ctx, s, redacted)
	if err != nil || last == nil {
		return err
	}
	if last.Type != contracts.EntrySubmitted {
		if err := i.enqueue(ctx, last, redacted); err != nil {
			return err
		}
		if err := cancel.IfRevoked(ctx, i.Bus, task.ID); err != nil {
			return err
		}
		return errTaken
	}
	if err := i.keepSecrets(ctx, task.ID, secrets); err != nil {
		return err
	}
	_, err = i.Bus.Append(ctx, task.ID, last, &contracts.Failed{Kind: contracts.FailureRejected, Message: reason})
	if errors.Is(err, bus.ErrOvertaken) {
		return nil
	}
	return err
}

// legible returns what can be read of a specification that was refused, enough
// to tell its owner: id, name, queue, and the Girder job. Without an id there
// is one only where somebody may wait for the job's end: a client that chose
// the message's id, or Girder.
func (s submission) legible() *contracts.Task {
	task := &contracts.Task{Version: contracts.Version, Queue: s.queue()}
	var fields map[string]jsontext.Value
	if json.Unmarshal(s.payload, &fields, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) != nil {
		return task
	}
	text := func(name string) (value string) {
		_ = json.Unmarshal(fields[name], &value) // whatever is no text reads as empty
		return value
	}
	if id, err := contracts.ParseJobID(text("id")); err == nil {
		task.ID = id
	}
	if queue, err := contracts.ParseName[contracts.Queue](text("queue")); err == nil {
		task.Queue = queue
	}
	task.Name = text("task")
	task.Girder = girderJob(fields["girder"])
	if task.ID == "" && (task.HasGirderJob() || fields["id"] == nil && s.namesJob()) {
		task.ID = s.jobID()
	}
	return task
}

// namesJob reports whether the message's id is taken as the job's.
func (s submission) namesJob() bool {
	_, err := contracts.ParseJobID(s.msgID)
	return err == nil
}

// girderJob returns the way to the Girder job, if it is sound, without what
// stands beside it and is not.
func girderJob(field jsontext.Value) *contracts.Girder {
	var parts map[string]jsontext.Value
	if json.Unmarshal(field, &parts) != nil {
		return nil
	}
	girder := new(contracts.Girder)
	var err error
	switch job, info := parts["job"], parts["job_info"]; {
	case job == nil && info != nil:
		err = json.Unmarshal(info, &girder.JobInfo)
	case job != nil && info == nil:
		err = errors.Join(json.Unmarshal(job, &girder.Job), json.Unmarshal(parts["api_url"], &girder.APIURL))
	}
	if err != nil {
		return nil
	}
	probe := &contracts.Task{Version: contracts.Version, Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "probe"}, Girder: girder}
	if probe.Validate() != nil || !probe.HasGirderJob() {
		return nil
	}
	return girder
}
