package cli

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
)

// Specification is the part of run's flags that make the task.
type Specification struct {
	Command []string `arg:"" name:"image" passthrough:"partial" help:"Image, then the container's arguments. An argument that starts with @ stands for something of Gantry's: @file:ID[:NAME] a file from Girder, @path:PATH a path on the task's volume (for results), @progress the pipe for progress, @volume the volume's folder; @@ is a plain @."`

	Pull       string   `help:"When to pull the image: ${enum}." enum:"always,missing,never" default:"missing"`
	Entrypoint string   `help:"Replace the image's entry point; split into words as a shell does." placeholder:"COMMAND"`
	Env        []string `short:"e" sep:"none" help:"Environment variable; without =VALUE it is taken from here." placeholder:"NAME=VALUE"`
	Memory     string   `help:"Memory limit, such as 512m or 2g." placeholder:"SIZE"`
	CPUs       float64  `name:"cpus" help:"CPU limit, such as 1.5." placeholder:"N"`
	Network    string   `help:"Network mode, such as none." placeholder:"MODE"`
	User       string   `help:"User in the container: NAME or UID[:GID]."`
	Workdir    string   `help:"Working folder in the container." placeholder:"PATH"`

	Upload []string `sep:"none" help:"After exit code 0 upload a path on the volume: PATH=item:ID." placeholder:"PATH=item:ID"`

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
	for _, text := range s.Upload {
		upload, err := parseUpload(text)
		if err != nil {
			return nil, err
		}
		task.Outputs = append(task.Outputs, upload)
	}
	if task.Girder, err = s.girder(); err != nil {
		return nil, err
	}
	if movesData(task) && (s.GirderURL == "" || s.GirderToken == "") {
		return nil, errors.New("@file and --upload need --girder-url and --girder-token")
	}
	return task, task.Validate()
}

// movesData reports whether the task reads or writes Girder's data.
func movesData(task *contracts.Task) bool {
	return len(task.Outputs) > 0 || slices.ContainsFunc(task.Docker.Args, func(arg contracts.Arg) bool {
		_, isFile := arg.Transform.(*contracts.GirderFile)
		return isFile
	})
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

// parseArgs reads the container's arguments, with what stands for something.
func parseArgs(words []string) ([]contracts.Arg, error) {
	args := make([]contracts.Arg, len(words))
	for i, word := range words {
		name, isPlaceholder := strings.CutPrefix(word, "@")
		if !isPlaceholder || strings.HasPrefix(name, "@") {
			args[i].Text = name // "@@x" is "@x"
			continue
		}
		transform, err := parsePlaceholder(name)
		if err != nil {
			return nil, err
		}
		args[i].Transform = transform
	}
	return args, nil
}

func parsePlaceholder(text string) (contracts.Transform, error) {
	kind, value, hasValue := strings.Cut(text, ":")
	switch {
	case kind == "file" && hasValue:
		id, name, _ := strings.Cut(value, ":")
		return &contracts.GirderFile{ID: id, Filename: name}, nil
	case kind == "path" && hasValue:
		return &contracts.VolumePath{Path: value}, nil
	case text == "progress":
		return &contracts.ProgressPipe{}, nil
	case text == "volume":
		return &contracts.TemporaryVolume{}, nil
	default:
		return nil, fmt.Errorf("argument %q: known are @file:ID[:NAME], @path:PATH, @progress and @volume; write %q to pass it as it is", "@"+text, "@@"+text)
	}
}

func parseUpload(text string) (contracts.Output, error) {
	at := strings.LastIndex(text, "=")
	if at > 0 {
		if id, ok := strings.CutPrefix(text[at+1:], "item:"); ok {
			path := contracts.OutputPath{VolumePath: contracts.VolumePath{Path: text[:at]}}
			return contracts.Output{OutputSpec: &contracts.GirderUploadItem{Path: path, ItemID: id}}, nil
		}
	}
	return contracts.Output{}, fmt.Errorf("--upload: %q is not PATH=item:ID", text)
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
