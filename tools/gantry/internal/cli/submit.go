package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/goccy/go-yaml"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

// Submit is `gantry submit`.
type Submit struct {
	File string `short:"f" required:"" help:"Task specification as JSON or YAML; - is standard input." placeholder:"FILE"`
	Wait bool   `help:"Wait for the end and print the job's last entry as JSON; exit like 'gantry run'."`
}

// Help is the long help.
func (*Submit) Help() string {
	return "Prints the job's id as soon as the task is durable. What is wrong with a task is\nsaid field by field before anything is published.\n\n" + ExitCodes
}

// Run submits the task.
func (s *Submit) Run(ctx context.Context, env *Env) error {
	err := s.run(ctx, env)
	if s.Wait {
		return asGantry(err)
	}
	return err
}

func (s *Submit) run(ctx context.Context, env *Env) error {
	ctx, stop := env.UntilSignal(ctx)
	defer stop()
	data, err := s.read(env.Stdin)
	if err != nil {
		return err
	}
	task, err := decodeTask(data)
	if err != nil {
		return err
	}
	c, err := env.Connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	job, err := deliver(ctx, c, task)
	if err != nil {
		return err
	}
	if !s.Wait {
		return env.print(string(job) + "\n")
	}
	end, err := c.Wait(ctx, job)
	if err != nil {
		return err
	}
	if err := env.printEntry(end); err != nil {
		return err
	}
	if code := exitOf(end); code != ExitOK {
		return &Exit{Code: code}
	}
	return nil
}

func (s *Submit) read(stdin io.Reader) ([]byte, error) {
	from := stdin
	if s.File != "-" {
		file, err := os.Open(s.File)
		if err != nil {
			return nil, fmt.Errorf("read task: %w", err)
		}
		defer file.Close() //nolint:errcheck // only read from
		from = file
	}
	data, err := io.ReadAll(io.LimitReader(from, contracts.MaxTaskSize+1))
	if err != nil {
		return nil, fmt.Errorf("read task: %w", err)
	}
	return data, nil
}

// decodeTask reads and checks a specification in JSON or YAML. Version and id
// may be missing.
func decodeTask(data []byte) (*contracts.Task, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("read task: the file is empty")
	}
	if !jsontext.Value(data).IsValid() && !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		converted, err := yaml.YAMLToJSON(data)
		if err != nil {
			return nil, fmt.Errorf("read task: neither JSON nor YAML: %s", yaml.FormatError(err, false, true))
		}
		data = converted
	}
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return nil, errors.New("read task: the file holds no task specification")
	}
	task, err := contracts.ReadTask(data)
	if err != nil {
		return nil, err
	}
	if task.Version == 0 {
		task.Version = contracts.Version
	}
	return task, task.Validate()
}

// printEntry prints an entry of a job's life for programs.
func (e *Env) printEntry(entry *contracts.Entry) error {
	data, err := entry.Encode()
	if err != nil {
		return err
	}
	value := jsontext.Value(data)
	if err := value.Format(jsontext.WithIndent("  "), json.Deterministic(true)); err != nil {
		return fmt.Errorf("print entry: %w", err)
	}
	return e.print(string(value) + "\n")
}

// deliver submits a task. Without an answer it is asked whether there is a stream
// that takes tasks: a cluster that elects a leader has one all the same.
func deliver(ctx context.Context, c *client.Client, task *contracts.Task) (contracts.JobID, error) {
	job, err := c.Submit(ctx, task)
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return job, err
	}
	if _, missing := c.JetStream().Stream(ctx, contracts.StreamSubmit); errors.Is(missing, jetstream.ErrStreamNotFound) {
		return "", missing
	}
	return "", err
}
