// Package rig is what benchmarks run on: a Gantry and a NATS server in processes
// of their own with their data in a temporary folder, the container engine, and a
// small image.
package rig

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/image"
	docker "github.com/docker/docker/client"
	"github.com/nats-io/nats.go"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

// Image is the reference of the image: a static busybox and nothing else.
const Image = "gantry-bench:latest"

// busybox is where Debian's busybox-static puts its binary.
const busybox = "/bin/busybox"

// Slots is how many tasks Gantry runs at once.
const Slots = 2

// Rig is ready for benchmarks.
type Rig struct {
	Client *client.Client
	Docker *docker.Client
	gantry *exec.Cmd
	nats   *exec.Cmd
	folder string
}

// Programs are the binaries that a rig starts.
type Programs struct{ Gantry, NATS string }

// Start starts Gantry and builds the image.
func Start(ctx context.Context, programs Programs) (*Rig, error) {
	r := new(Rig)
	if err := r.start(ctx, programs); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Rig) start(ctx context.Context, programs Programs) error {
	var err error
	if r.Docker, err = docker.NewClientWithOpts(docker.FromEnv, docker.WithAPIVersionNegotiation()); err != nil {
		return fmt.Errorf("find Docker: %w", err)
	}
	if err := r.importImage(ctx); err != nil {
		return err
	}
	if r.folder, err = os.MkdirTemp("", "gantry-bench-"); err != nil {
		return err
	}
	url, err := r.startNATS(programs.NATS)
	if err != nil {
		return err
	}
	return r.startGantry(ctx, programs.Gantry, url)
}

// startGantry returns when the services are there and a client can ask.
func (r *Rig) startGantry(ctx context.Context, gantry, url string) error {
	log, err := os.Create(filepath.Join(r.folder, "gantry.log"))
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	r.gantry = exec.Command(gantry, "up", "--data", r.folder, "--nats-url", url, "--slots", fmt.Sprint(Slots))
	r.gantry.Env = append(os.Environ(), "GANTRY_LOG_LIMIT=1g") // the whole log is to be stored
	r.gantry.Stdout, r.gantry.Stderr = log, log
	if err := r.gantry.Start(); err != nil {
		return fmt.Errorf("start %s: %w", gantry, err)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if r.connect(ctx, url) == nil {
			if workers, err := r.Client.Workers(ctx); err == nil && ready(workers) {
				return nil
			}
		}
	}
	return errors.Join(errors.New("gantry up is not ready after 30 s"), r.tail(log.Name()))
}

func ready(workers []contracts.Instance) bool {
	for _, worker := range workers {
		if worker.Service == "docker-executor" {
			return true
		}
	}
	return false
}

func (r *Rig) connect(ctx context.Context, url string) (err error) {
	if r.Client == nil {
		r.Client, err = client.Connect(ctx, client.Config{URL: url, Name: "bench"})
	}
	return err
}

// tail returns the end of a log as an error, to be read by a person.
func (r *Rig) tail(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	var last []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		last = append(last, lines.Text())
		last = last[max(0, len(last)-10):]
	}
	return fmt.Errorf("its log ends with: %q", last)
}

// importImage makes the image from the static busybox of this machine.
func (r *Rig) importImage(ctx context.Context) error {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return fmt.Errorf("the image needs Debian's busybox-static: %w", err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err = w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))})
	if err == nil {
		_, err = w.Write(program)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	reply, err := r.Docker.ImageImport(ctx, image.ImportSource{Source: &layer, SourceName: "-"}, Image,
		image.ImportOptions{Changes: []string{`ENTRYPOINT ["/bin/busybox"]`}})
	if err != nil {
		return fmt.Errorf("import image: %w", err)
	}
	_, err = io.Copy(io.Discard, reply)
	return errors.Join(err, reply.Close())
}

// Folder is where benchmarks keep what goes with the rig.
func (r *Rig) Folder() string { return r.folder }

// Close stops Gantry and removes what the rig made.
func (r *Rig) Close() {
	if r.Client != nil {
		r.Client.Close()
	}
	for _, process := range []*exec.Cmd{r.gantry, r.nats} {
		if process != nil && process.Process != nil {
			_ = process.Process.Signal(syscall.SIGTERM)
			_ = process.Wait()
		}
	}
	if r.folder != "" {
		_ = os.RemoveAll(r.folder)
	}
	if r.Docker != nil {
		_ = r.Docker.Close()
	}
}

// Task is a task that runs the image with arguments, without a network.
func Task(args ...string) *contracts.Task {
	task := &contracts.Task{
		Name: contracts.TaskDockerRun,
		Docker: &contracts.DockerRun{
			Image: Image, Pull: contracts.PullNever,
			Options: contracts.DockerOptions{NetworkMode: "none"},
		},
	}
	for _, arg := range args {
		task.Docker.Args = append(task.Docker.Args, contracts.Arg{Text: arg})
	}
	return task
}

// Run submits a task and waits for its end, which has to be a success.
func (r *Rig) Run(ctx context.Context, task *contracts.Task) error {
	task.ID = contracts.NewJobID()
	ended := make(chan *contracts.Entry, 1)
	// A plain subscription: a consumer for each waiting task would load the
	// server that is measured.
	subscription, err := r.Client.Conn().Subscribe(contracts.LifeSubject(task.ID), func(msg *nats.Msg) {
		if entry, err := contracts.DecodeEntry(msg.Data); err == nil && entry.Terminal() {
			ended <- entry
		}
	})
	if err != nil {
		return err
	}
	defer subscription.Unsubscribe() //nolint:errcheck // it ends with the connection at the latest
	if _, err := r.Client.Submit(ctx, task); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case end := <-ended:
		if end.Type != contracts.EntrySucceeded {
			return fmt.Errorf("job %s %s: %+v", task.ID, end.Type, end.Data)
		}
		return nil
	}
}
