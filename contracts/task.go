package contracts

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// TaskDockerRun is the task that runs one Docker container.
const TaskDockerRun = "docker_run"

// Task is a task specification, version 1, as a client publishes it to
// [SubmitSubject]. Read it with [DecodeTask], which refuses unknown fields.
type Task struct {
	// Version is 1.
	Version int `json:"version"`
	// ID becomes the job's id. Publishing the same task twice under one id runs
	// it once. Without one the message's Nats-Msg-Id is taken where it fits the
	// rules of [JobID], else the dispatcher assigns a ULID.
	ID JobID `json:"id,omitempty"`
	// Name is what to run: "docker_run", or the name of a plugin task.
	Name string `json:"task"`
	// Queue is where the task waits; [DefaultQueue] if empty.
	Queue Queue `json:"queue,omitempty"`
	// Priority is 0 to 9, higher first; 5 if absent.
	Priority *int `json:"priority,omitempty"`
	// Docker is required for docker_run, and refused elsewhere.
	Docker *DockerRun `json:"docker,omitempty"`
	// Args and Kwargs are a plugin task's arguments.
	Args   []jsontext.Value          `json:"args,omitempty"`
	Kwargs map[string]jsontext.Value `json:"kwargs,omitempty"`
	// Outputs are what is put into Girder after exit code 0, in this order.
	Outputs []Output `json:"outputs,omitempty"`
	// Girder says where the task's data and its Girder job are.
	Girder *Girder `json:"girder,omitempty"`
	// Schedule delays the task or lets it expire.
	Schedule *Schedule `json:"schedule,omitempty"`
	// Retry says how often a new attempt follows an ended one.
	Retry *Retry `json:"retry,omitempty"`
	// Limits bound an attempt's run time, counted from "started".
	Limits *Limits `json:"limits,omitempty"`
	// Labels are the client's own marks; queries filter by them.
	Labels map[string]string `json:"labels,omitempty"`
}

// QueueOrDefault returns the task's queue, [DefaultQueue] if it names none.
func (t *Task) QueueOrDefault() Queue {
	if t.Queue == "" {
		return DefaultQueue
	}
	return t.Queue
}

// Lane returns the lane of the task's priority.
func (t *Task) Lane() Lane {
	if t.Priority == nil {
		return LaneNormal
	}
	return LaneOf(*t.Priority)
}

// Kind returns which sort of executor takes the task.
func (t *Task) Kind() Kind {
	return KindDocker
}

// Title is what a list of jobs shows for this task: the title of its Girder
// job, else its image, else its name.
func (t *Task) Title() string {
	switch {
	case t.Girder != nil && t.Girder.Job != nil && t.Girder.Job.Title != "":
		return t.Girder.Job.Title
	case t.Docker != nil:
		return t.Docker.Image
	default:
		return t.Name
	}
}

// HasGirderJob reports whether the task is mirrored to a Girder job.
func (t *Task) HasGirderJob() bool {
	return t.Girder != nil && (t.Girder.Job != nil || t.Girder.JobInfo != nil)
}

// GirderFor returns the API URL and token that a transform or output with the
// given own access uses: its own, or the task's.
func (t *Task) GirderFor(own *GirderAccess) GirderAccess {
	var access GirderAccess
	if t.Girder != nil {
		access = GirderAccess{APIURL: t.Girder.APIURL, Token: t.Girder.Token}
	}
	if own == nil {
		return access
	}
	if own.APIURL != "" {
		access.APIURL = own.APIURL
	}
	if own.Token != "" {
		access.Token = own.Token
	}
	return access
}

// Girder is the Girder server that a task belongs to.
type Girder struct {
	// APIURL is the base of the REST API, https://girder.example.org/api/v1.
	APIURL string `json:"api_url,omitempty"`
	// Token reads and writes the task's data (scopes core.data.read and
	// core.data.write).
	Token Secret `json:"token,omitempty"`
	// Job creates a Girder job; JobInfo takes over one that exists. At most one.
	Job     *GirderJob     `json:"job,omitempty"`
	JobInfo *GirderJobInfo `json:"job_info,omitempty"`
	// Session says how to reach the server.
	Session *GirderSession `json:"session,omitempty"`
}

// GirderAccess is the API URL and token of one transform or output, where they
// differ from the task's.
type GirderAccess struct {
	APIURL string `json:"api_url,omitempty"`
	Token  Secret `json:"token,omitempty"`
}

// GirderJob describes the Girder job to create.
type GirderJob struct {
	// Token carries the scope jobs.rest.create_job, which no login and no API
	// key has.
	Token       Secret                    `json:"token"`
	Title       string                    `json:"title,omitempty"`
	Type        string                    `json:"type,omitempty"`
	Public      bool                      `json:"public,omitzero"`
	OtherFields map[string]jsontext.Value `json:"other_fields,omitempty"`
}

// GirderJobInfo is what Girder itself hands out as jobInfoSpec.
type GirderJobInfo struct {
	// Method is PUT.
	Method string `json:"method"`
	// URL is <api>/job/<id>.
	URL string `json:"url"`
	// Reference is the job's id.
	Reference string `json:"reference,omitempty"`
	// Headers hold the job token as Girder-Token.
	Headers  map[string]Secret `json:"headers"`
	LogPrint bool              `json:"log_print,omitzero"`
}

// Schedule delays a task or lets it expire.
type Schedule struct {
	ETA       string   `json:"eta,omitempty"`
	Countdown Duration `json:"countdown,omitzero"`
	Expires   string   `json:"expires,omitempty"`
}

// Retry says how often a new attempt follows an ended one.
type Retry struct {
	// MaxCrashes is the number of further attempts after an infrastructure end
	// (lost worker, engine, network), 0 to 100; 3 if absent, 0 means at most once.
	MaxCrashes *int `json:"max_crashes,omitempty"`
	// MaxFailures is the number of further attempts after the task's own
	// failure, 0 to 100; 0 if absent.
	MaxFailures int `json:"max_failures,omitzero"`
	// Backoff is the delay before the second attempt, doubled for each further
	// one up to MaxBackoff; 2 s and 5 min if absent.
	Backoff    Duration `json:"backoff,omitzero"`
	MaxBackoff Duration `json:"max_backoff,omitzero"`
}

// Limits bound an attempt's run time.
type Limits struct {
	// Time is after how long a container is killed and the job fails as timeout;
	// absent for no limit.
	Time Duration `json:"time,omitzero"`
	// SoftTime is after how long the container gets SIGTERM.
	SoftTime Duration `json:"soft_time,omitzero"`
}

// UnmarshalJSONFrom reads an object; a limit that is there is above zero.
func (l *Limits) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var given struct {
		Time     *Duration `json:"time"`
		SoftTime *Duration `json:"soft_time"`
	}
	if err := json.UnmarshalDecode(dec, &given); err != nil {
		return err
	}
	path := dottedPath(dec.StackPointer())
	for name, limit := range map[string]*Duration{"time": given.Time, "soft_time": given.SoftTime} {
		if limit != nil && *limit == 0 {
			return fieldError(join(path, name), "\"0s\" is no time at all; leave it out for no limit")
		}
	}
	*l = Limits{}
	if given.Time != nil {
		l.Time = *given.Time
	}
	if given.SoftTime != nil {
		l.SoftTime = *given.SoftTime
	}
	return nil
}
