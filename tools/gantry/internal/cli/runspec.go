package cli

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
)

// Specification is the part of run's flags that make the task.
type Specification struct {
	Command []string `arg:"" name:"image" passthrough:"partial" help:"Image, then the container's arguments. An argument that starts with @ stands for something of Gantry's: @file:ID[:NAME] a file from Girder, @item:ID and @folder:ID[:NAME] all of an item or folder, @stream:ID a pipe with a file's bytes, @path:PATH a path on the task's volume (for results), @progress the pipe for progress, @volume the volume's folder, @girder-url and @girder-token; @@ is a plain @."`

	Pull       string   `help:"When to pull the image: ${enum}." enum:"always,missing,never" default:"missing"`
	Entrypoint string   `help:"Replace the image's entry point; split into words as a shell does." placeholder:"COMMAND"`
	Env        []string `short:"e" sep:"none" help:"Environment variable; without =VALUE it is taken from here." placeholder:"NAME=VALUE"`
	Memory     string   `help:"Memory limit, such as 512m or 2g." placeholder:"SIZE"`
	CPUs       float64  `name:"cpus" help:"CPU limit, such as 1.5." placeholder:"N"`
	Network    string   `help:"Network mode, such as none." placeholder:"MODE"`
	User       string   `help:"User in the container: NAME or UID[:GID]."`
	Workdir    string   `help:"Working folder in the container." placeholder:"PATH"`
	Volume     []string `short:"v" sep:"none" help:"Mount a folder of the node, where its executor allows that." placeholder:"HOST:CONTAINER[:ro]"`

	TimeLimit     time.Duration `help:"Kill the container after this time, such as 12h; the job fails." placeholder:"TIME"`
	SoftTimeLimit time.Duration `help:"Send SIGTERM to the container after this time." placeholder:"TIME"`
	KeepContainer bool          `help:"Leave the container behind when it has ended."`

	Upload   []string `sep:"none" help:"After exit code 0 upload a path on the volume into an item or a folder." placeholder:"PATH=item:ID|folder:ID"`
	Artifact []string `sep:"none" help:"Attach a path on the volume to the Girder job, where it is there; after a failure too." placeholder:"PATH"`

	GirderURL      string `name:"girder-url" env:"GANTRY_GIRDER_URL" help:"Girder's API, such as https://girder.example.org/api/v1." placeholder:"URL" group:"Girder"`
	GirderToken    string `name:"girder-token" env:"GANTRY_GIRDER_TOKEN" help:"Token that reads and writes the task's data." placeholder:"TOKEN" group:"Girder"`
	GirderJobToken string `name:"girder-job-token" env:"GANTRY_GIRDER_JOB_TOKEN" help:"Show the task as a Girder job; a token with the scope jobs.rest.create_job." placeholder:"TOKEN" group:"Girder"`
	Title          string `help:"Title of the Girder job (default: the image)." group:"Girder"`

	ID       string            `name:"id" help:"The job's id; the same task submitted twice under one id runs once." placeholder:"ID"`
	Queue    string            `help:"Queue to wait in."`
	Priority *int              `help:"0 to 9, higher first."`
	Label    map[string]string `mapsep:"none" help:"Label of the task, for 'gantry jobs ls --label'." placeholder:"NAME=VALUE"`
}

// Task returns the task that the flags describe, checked.
func (s *Specification) Task() (*contracts.Task, error) {
	args, err := parseArgs(s.Command[1:])
	if err != nil {
		return nil, err
	}
	options, err := s.options()
	if err != nil {
		return nil, err
	}
	task := &contracts.Task{
		Version: contracts.Version, ID: contracts.JobID(s.ID), Name: contracts.TaskDockerRun,
		Queue: contracts.Queue(s.Queue), Priority: s.Priority, Labels: s.Label,
		Docker: &contracts.DockerRun{Image: s.Command[0], Pull: contracts.PullPolicy(s.Pull), Args: args, Options: options},
	}
	if task.ID == "" {
		task.ID = contracts.NewJobID()
	}
	if task.Docker.Entrypoint, err = splitCommand(s.Entrypoint); err != nil {
		return nil, fmt.Errorf("--entrypoint: %w", err)
	}
	if task.Docker.Volumes, err = parseVolumes(s.Volume); err != nil {
		return nil, err
	}
	if s.KeepContainer {
		task.Docker.RemoveContainer = new(bool)
	}
	if task.Limits, err = s.limits(); err != nil {
		return nil, err
	}
	if task.Outputs, err = s.outputs(); err != nil {
		return nil, err
	}
	if task.Girder, err = s.girder(); err != nil {
		return nil, err
	}
	switch needs := needsGirder(task); {
	case needs == "@girder-url" && s.GirderURL == "":
		return nil, errors.New("@girder-url needs --girder-url")
	case needs != "" && needs != "@girder-url" && (s.GirderURL == "" || s.GirderToken == ""):
		return nil, fmt.Errorf("%s needs --girder-url and --girder-token", needs)
	}
	if len(s.Artifact) > 0 && s.GirderJobToken == "" {
		return nil, errors.New("--artifact attaches to the Girder job: give --girder-job-token to have one")
	}
	return task, task.Validate()
}

// needsGirder returns what of the task needs Girder's address and a token, empty
// for nothing.
func needsGirder(task *contracts.Task) string {
	for _, arg := range task.Docker.Args {
		for kind, of := range girderPlaceholders {
			if arg.Transform != nil && arg.Transform.TransformType() == of {
				return "@" + kind
			}
		}
	}
	switch {
	case len(task.Outputs) == 0:
		return ""
	case task.Outputs[0].OutputType() == contracts.TypeGirderJobArtifact:
		return "--artifact"
	default:
		return "--upload"
	}
}

func (s *Specification) limits() (*contracts.Limits, error) {
	for flag, limit := range map[string]time.Duration{"--time-limit": s.TimeLimit, "--soft-time-limit": s.SoftTimeLimit} {
		if limit < 0 {
			return nil, fmt.Errorf("%s: %s is below zero", flag, limit)
		}
	}
	if s.TimeLimit == 0 && s.SoftTimeLimit == 0 {
		return nil, nil
	}
	return &contracts.Limits{Time: contracts.Duration(s.TimeLimit), SoftTime: contracts.Duration(s.SoftTimeLimit)}, nil
}

func (s *Specification) options() (contracts.DockerOptions, error) {
	options := contracts.DockerOptions{
		NetworkMode: s.Network, User: contracts.Text(s.User), WorkingDir: s.Workdir,
		NanoCPUs: int64(math.Round(s.CPUs * 1e9)),
	}
	if s.Memory != "" {
		size, err := units.RAMInBytes(s.Memory)
		if err != nil || size < 0 {
			return options, fmt.Errorf("--memory: %q is not a size such as 512m or 2g", s.Memory)
		}
		options.MemLimit = contracts.ByteSize(size)
	}
	for _, variable := range s.Env {
		name, value, given := strings.Cut(variable, "=")
		if name == "" {
			return options, fmt.Errorf("-e: %q has no name: write NAME=VALUE", variable)
		}
		if !given {
			if value, given = os.LookupEnv(name); !given {
				continue
			}
		}
		if options.Environment == nil {
			options.Environment = contracts.Environment{}
		}
		options.Environment[name] = contracts.Text(value)
	}
	return options, nil
}

func (s *Specification) girder() (*contracts.Girder, error) {
	if s.Title != "" && s.GirderJobToken == "" {
		return nil, errors.New("--title is the title of a Girder job: give --girder-job-token to have one")
	}
	if s.GirderURL == "" && s.GirderToken == "" && s.GirderJobToken == "" {
		return nil, nil
	}
	if s.GirderURL == "" {
		return nil, errors.New("--girder-url is missing: a token alone does not say which Girder")
	}
	girder := &contracts.Girder{APIURL: s.GirderURL, Token: contracts.Secret(s.GirderToken)}
	if s.GirderJobToken != "" {
		title := s.Title
		if title == "" {
			title = s.Command[0]
		}
		girder.Job = &contracts.GirderJob{Token: contracts.Secret(s.GirderJobToken), Title: title, Type: contracts.TaskDockerRun}
	}
	return girder, nil
}

// splitCommand splits a line into words by the rules of the wire.
func splitCommand(line string) (contracts.Command, error) {
	if line == "" {
		return nil, nil
	}
	quoted, err := json.Marshal(line)
	if err != nil {
		return nil, err
	}
	var command contracts.Command
	if err := json.Unmarshal(quoted, &command); err != nil {
		return nil, fmt.Errorf("%q cannot be split into words", line)
	}
	return command, nil
}
